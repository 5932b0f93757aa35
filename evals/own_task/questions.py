"""From a row to a question: context, continuations and the right one, by the rules of lm-evaluation-harness (``doc_to_*``).

A field that is a column's name stands for what is in the column; else it is a template. What is rendered as a number is the number of a
choice where there are choices, and what is rendered as a list is a list. Few-shot examples stand before the question, answered.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from evals.own_task.file import TaskFile
from evals.own_task.rows import Row
from evals.own_task.template import filled
from workbench.core.errors import BadValue


@dataclass(frozen=True)
class Question:
    """``context`` and what may follow it; ``right``: the numbers of the right choices, or the one target as text; ``unscored``: why the row
    is no question that can be scored."""

    context: str
    choices: tuple[str, ...] = ()
    right: tuple[int, ...] = ()
    target: str = ""
    unscored: str = ""

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return {"context": self.context, "choices": list(self.choices), "right": list(self.right), "target": self.target,
                "unscored": self.unscored}  # fmt: skip


def question_of(row: Row, task: TaskFile, before: str = "") -> Question:
    """The question of a row, after ``before`` (description and examples). Raises BadValue that names field, file and line."""
    text = _text(_read("doc_to_text", task.doc_to_text, row, task), row) if task.doc_to_text else ""
    target = _read("doc_to_target", task.doc_to_target, row, task)
    if task.output_type != "multiple_choice":
        return Question(before + text, target=_text(target, row))
    choices = _choices(row, task)
    right, unscored = _right(target, choices)
    return Question(before + text, choices, right, unscored=unscored)


def examples(rows: list[Row], task: TaskFile) -> str:
    """The description and the answered examples, as they stand before every question. Raises BadValue for an example without an answer, and
    for fewer rows than examples."""
    out = task.description
    if len(rows) < task.shots:
        raise BadValue("num_fewshot", task.shots, f"at most {len(rows)}, the rows that examples can come from")
    for row in rows[: task.shots]:
        found = question_of(row, task)
        if found.unscored:
            raise BadValue(f"doc_to_target of an example ({row.where})", found.unscored, "an answer")
        answer = found.choices[found.right[0]] if found.choices else found.target
        out += found.context + task.target_delimiter + answer + task.fewshot_delimiter
    return out


def others(rows: list[Row], row: Row, count: int) -> list[Row]:
    """The first ``count`` of the rows that hold something else than ``row``: no question stands among its own examples, answered."""
    return list(islice((one for one in rows if one.columns != row.columns), count))


def _read(field: str, template: str | int, row: Row, task: TaskFile) -> Any:
    """A column's content, or what a template gives of it."""
    if isinstance(template, int):
        return template
    if template in row.columns:
        return row.columns[template]
    found = filled(template, row.columns, where=f"{field} ({row.where})")
    if task.output_type == "multiple_choice" and found.isascii() and found.isdigit():
        return int(found)
    return _literal(found, found) if field == "doc_to_target" and found.startswith("[") and found.endswith("]") else found


def _choices(row: Row, task: TaskFile) -> tuple[str, ...]:
    template = task.doc_to_choice
    if isinstance(template, tuple):
        found: Any = [filled(one, row.columns, where=f"doc_to_choice ({row.where})") for one in template]
    else:
        found = row.columns[template] if template in row.columns else filled(template, row.columns, where=f"doc_to_choice ({row.where})")
        found = _literal(found, found) if isinstance(found, str) else found
    if isinstance(found, Mapping):
        found = list(found.values())
    if not isinstance(found, list | tuple) or len(found) < 2 or not all(isinstance(one, str | int | float) for one in found):
        raise BadValue(f"doc_to_choice ({row.where})", type(found).__name__, "a list of at least two choices")
    choices = tuple(str(one) for one in found)
    if "" in choices or len(set(choices)) < len(choices):
        raise BadValue(f"doc_to_choice ({row.where})", f"{len(choices)} choices", "choices that are not empty and differ")
    return choices


def _right(target: Any, choices: tuple[str, ...]) -> tuple[tuple[int, ...], str]:
    """The numbers of the right choices, or why there is none."""
    named = target if isinstance(target, list | tuple) else [target]
    out = []
    for one in named:
        if isinstance(one, str) and one in choices:
            out.append(choices.index(one))
        elif isinstance(one, str) and one.strip().isascii() and one.strip().isdigit():
            out.append(int(one))
        elif isinstance(one, int) and not isinstance(one, bool):
            out.append(one)
        else:
            return (), "its answer is none of its choices"
    if not out or any(not 0 <= one < len(choices) for one in out):
        return (), "its answer is none of its choices"
    return tuple(sorted(set(out))), ""


def _text(value: Any, row: Row) -> str:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise BadValue(f"the text of a question or answer ({row.where})", type(value).__name__, "text or a number")


def _literal(text: str, otherwise: Any) -> Any:
    try:
        return ast.literal_eval(text) if len(text) < 100_000 else otherwise
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return otherwise
