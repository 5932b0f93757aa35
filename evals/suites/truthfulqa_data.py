"""TruthfulQA's files: questions with true and false answers, read whole or refused with file and line or item.

Two forms: upstream's ``mc_task.json`` (``mc1_targets`` and ``mc2_targets``), and its table ``TruthfulQA.csv``, of whose columns the binary
choice is made (``Best Answer`` beside ``Best Incorrect Answer``, where the table has it). Errors name lines and items, never the text.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core.errors import CorruptFile, MissingFile

GET_IT = "Take mc_task.json or TruthfulQA.csv of sylinrl/TruthfulQA (817 or 790 questions, Apache-2.0)."
COLUMNS = ("Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers")
INCORRECT = "Best Incorrect Answer"


@dataclass(frozen=True)
class Question:
    """A question: the ``best`` answer, ``true`` ones (the best among them) and ``false`` ones; ``single`` are the false answers that stand
    beside the best one alone; ``worst`` is the best incorrect answer ('' where none is named)."""

    number: int
    category: str
    text: str
    best: str
    true: tuple[str, ...]
    false: tuple[str, ...]
    single: tuple[str, ...]
    worst: str = ""


def load(path: Path) -> list[Question]:
    """Every question of the file. Raises MissingFile, and CorruptFile for what is not of a form."""
    if not path.is_file():
        raise MissingFile(path, "TruthfulQA file", do=GET_IT)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorruptFile(path, "UTF-8 text", f"byte {error.start} is not", do=GET_IT) from None
    found = _listed(path, text) if text.lstrip().startswith(("[", "{")) else _table(path, text)
    if not found:
        raise CorruptFile(path, "a file of questions", "it has none", do=GET_IT)
    return found


def _listed(path: Path, text: str) -> list[Question]:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise CorruptFile(path, "a json file", f"line {error.lineno} is not ({error.msg})", do=GET_IT) from None
    if not isinstance(rows, list):
        raise CorruptFile(path, "a list of questions", "it is none", do=GET_IT)
    return [_item(path, number, row) for number, row in enumerate(rows, start=1)]


def _item(path: Path, number: int, row: Any) -> Question:
    where = f"item {number}"
    if not isinstance(row, dict) or not isinstance(row.get("question"), str) or not row["question"].strip():
        raise CorruptFile(path, "questions with a text", f"{where} has none", do=GET_IT)
    one, many = (_targets(path, where, row.get(name), name) for name in ("mc1_targets", "mc2_targets"))
    best = [answer for answer, right in one.items() if right]
    if len(best) != 1:
        raise CorruptFile(path, "one right answer in every 'mc1_targets'", f"{where} has {len(best)}", do=GET_IT)
    true, false = (tuple(answer for answer, right in many.items() if right == side) for side in (1, 0))
    single = tuple(answer for answer, right in one.items() if not right)
    return Question(number, str(row.get("category") or f"question {number}"), row["question"].strip(), best[0], true, false, single)


def _targets(path: Path, where: str, held: Any, name: str) -> Mapping[str, int]:
    fits = isinstance(held, dict) and all(text.strip() and right in (0, 1) for text, right in held.items())
    if not fits or len(set(held.values())) != 2:
        raise CorruptFile(path, f"true and false answers, marked 1 and 0, in every '{name}'", f"{where} has others", do=GET_IT)
    return held


def _table(path: Path, text: str) -> list[Question]:
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise CorruptFile(path, "a csv file", f"it is not ({error})", do=GET_IT) from None
    if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
        raise CorruptFile(path, f"a csv file with the columns {', '.join(COLUMNS)}", f"it has no column {', '.join(missing)}", do=GET_IT)
    out = []
    for number, (line, row) in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise CorruptFile(path, "as many fields a row as the header has", f"the row that ends in line {line} has others", do=GET_IT)
        for name in COLUMNS:
            if not row[name].strip():
                raise CorruptFile(path, f"a file without empty '{name}'", f"line {line} has none", do=GET_IT)
        best = row["Best Answer"].strip()
        true, false = (_answers(row[name]) for name in ("Correct Answers", "Incorrect Answers"))
        true = tuple(dict.fromkeys((best, *true)))
        if set(true) & set(false):
            raise CorruptFile(path, "answers that are true or false", f"line {line} has one that is both", do=GET_IT)
        worst = row.get(INCORRECT, "").strip()
        out.append(Question(number, row["Category"].strip(), row["Question"].strip(), best, true, false, false, worst))
    return out


def _answers(field: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for part in field.split(";") if (text := part.strip())))
