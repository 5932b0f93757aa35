"""A task of one's own from a table that was given on a page: checked, kept in the store's home, and asked in a process of its own.

What a table holds is text and stays text: a column is named by its own name, never by a template.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evals import SUITES
from evals.own_task.file import METRICS, read
from evals.own_task.questions import Question, question_of
from evals.own_task.rows import KINDS, Row, rows_of
from workbench.core.errors import BadValue, StoreError, UnknownName
from workbench.core.protocol import Progress
from workbench.lab import jobs
from workbench.lab.run import evaluate
from workbench.store.runs import Store

SUITE, TARGET = "own-task", "workbench.lab.own:evaluate_told"
MOST_BYTES, MOST_ROWS = 1_000_000, 20_000
PLACE = "own-tasks"
OUTPUTS = {
    "multiple_choice": "one of several answers, by which is likelier",
    "loglikelihood": "how likely the given answer is",
    "loglikelihood_rolling": "how likely a whole text is",
    "generate_until": "what the model writes, compared with the answer",
}
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,59}")


@dataclass(frozen=True)
class Table:
    """A table that was kept: its file, and its rows."""

    file: Path
    rows: tuple[Row, ...]

    @property
    def columns(self) -> list[str]:
        """The columns that every row has."""
        first = list(self.rows[0].columns)
        return [name for name in first if all(name in row.columns for row in self.rows)]


def keep_table(home: Path, name: str, content: bytes) -> Table:
    """Check a table and keep it below the store's home, under the hash of its content. The name tells its kind and nothing else.

    Raises BadValue for a kind or a size that is not taken, CorruptFile (with the line, never the text) for what is no such table.
    """
    ending = Path(name).suffix.lower()
    if ending not in KINDS:
        raise BadValue("the table", f"a file that ends in '{ending}'", f"one that ends in {', '.join(KINDS)}")
    if not content or len(content) > MOST_BYTES:
        raise BadValue(
            "the size of the table", f"{len(content):,} bytes", f"from 1 to {MOST_BYTES:,}", do="A larger one runs at the command line."
        )
    place = home / PLACE / f"{hashlib.sha256(content).hexdigest()[:16]}{ending}"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    except OSError as error:
        raise StoreError(f"The table could not be written to '{place}'", error.strerror or str(error)) from error
    try:
        rows = tuple(rows_of([place]))
        if len(rows) > MOST_ROWS:
            raise BadValue("the rows of the table", f"{len(rows):,}", f"at most {MOST_ROWS:,}", do="A larger one runs at the command line.")
    except Exception:
        place.unlink(missing_ok=True)  # nothing is kept that cannot be asked
        raise
    return Table(place, rows)


def task_of(
    table: Table, name: str, output: str, *, question: str, target: str, choices: str = "", listed: str = "", **columns: str
) -> Path:
    """Write the task file beside its table. ``question``, ``target`` and the rest of ``columns`` (``cluster``, ``subgroup``) name columns;
    ``choices`` a column that holds a list, or ``listed`` the choices themselves, by commas. Raises UsageError for what cannot be meant."""
    if not _NAME.fullmatch(name):
        raise BadValue("the task's name", name, "small letters, digits and hyphens, at most 60")
    if output not in METRICS:
        raise UnknownName("kind of answer", output, METRICS)
    named = {"doc_to_text": question, "doc_to_target": target, **columns}
    if output == "loglikelihood_rolling":
        named.pop("doc_to_text")
    values: dict[str, Any] = {"task": name, "data": table.file.name, "output_type": output}
    for field, column in named.items():
        if column and column not in table.columns:
            raise UnknownName("column", column, table.columns, where="in every row of the table")
        values |= {field: column} if column else {}
    if output == "multiple_choice":
        own = [one.strip() for one in listed.split(",") if one.strip()]
        if choices and choices not in table.columns:
            raise UnknownName("column", choices, table.columns, where="in every row of the table")
        values["doc_to_choice"] = choices or own
    place = table.file.with_name(f"{name}-{hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:12]}.yaml")
    place.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
    read(place)  # says what is wrong in its own words
    return place


def first_questions(table: Table, file: Path, most: int = 3) -> tuple[Question, ...]:
    """The first rows as the model is asked about them. Raises BadValue that names field, file and line."""
    task = read(file)
    return tuple(question_of(row, task, task.description) for row in table.rows[:most])


def begin(store: Store, file: Path, ref: str) -> Path:
    """Ask a model in a process of its own; the folder of its job."""
    SUITES.load(SUITE).spec.parse({"file": str(file)}, what=f"suite '{SUITE}'")
    folder = store.home / "jobs" / f"own-{secrets.token_hex(6)}"
    jobs.start(TARGET, {"address": store.address, "file": str(file), "ref": ref}, folder, outlive=True)
    return folder


def evaluate_told(progress: Progress, address: str, file: str, ref: str) -> Mapping[str, Any]:
    """What the process does."""
    with Store.open(address) as store:
        return {"run": evaluate(SUITE, ref, store=store, progress=progress, file=file).run}
