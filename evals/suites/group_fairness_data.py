"""The rows of the group fairness suite: a table of one's own, or applications of the generated world, written as texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from evals.own_task.rows import Row, rows_of
from evals.own_task.template import filled
from workbench.core.errors import BadValue, EmptySelection
from workbench.core.spec import Spec
from workbench.data.worlds.applications import ANSWERS, TEMPLATE, Applications, ApplicationsSpec

MOST_GROUPS = 12
Texts = tuple[str, ...]


def _two(answers: tuple[str, str]) -> tuple[str, str]:
    if answers[0] == answers[1] or "" in answers:
        raise ValueError("two different answers that are not empty")
    return answers


Answers = Annotated[tuple[str, str], AfterValidator(_two)]
"""What may be said to a question of yes or no, the yes first."""


class GroupFairnessSpec(Spec):
    """``file``: a table (csv, tsv, jsonl, json), written by ``text`` (a template of its columns); ``label``: a column, and ``positive``:
    its value for a yes; ``groups``: columns; ``answers``: what the model may say, the positive one first. ``cluster``: the column that
    rows share. Where there is no file, ``rows`` of ``applications``, the generated world; ``most``: a file's first so many (0: all)."""

    file: str = ""
    columns: Texts = Field(default=(), description="names of the columns of a csv that has no first line of names")
    text: str = TEMPLATE
    label: str = "deserved"
    positive: str = "yes"
    answers: Answers = ANSWERS
    groups: Texts = Field(default=("place", "age"), min_length=1, max_length=4)
    cluster: str = ""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    margin: float = Field(default=0.01, gt=0, lt=1, description="a change of score by the group's name alone that does not matter")
    applications: ApplicationsSpec = ApplicationsSpec.parse({})
    rows: int = Field(default=600, ge=1)
    most: int = Field(default=0, ge=0)
    seed: int = 0


def table(spec: GroupFairnessSpec) -> list[Row]:
    """The rows that are asked. Raises MissingFile, CorruptFile, EmptySelection (a column that is not there) and BadValue (labels that are
    not two)."""
    if spec.file:
        rows = rows_of([Path(spec.file)], columns=spec.columns)[: spec.most or None]
    else:
        world = Applications(spec.applications)
        rows = [Row(world.applicant(i, "test").columns(), Path("applications"), i + 1) for i in range(spec.rows)]
    for name in (*spec.groups, spec.label, *((spec.cluster,) if spec.cluster else ())):
        for row in rows:
            if name not in row.columns:
                raise EmptySelection("column", name, list(row.columns), where=row.where)
    labels = sorted({str(row.columns[spec.label]) for row in rows})
    if spec.positive not in labels or len(labels) != 2:
        raise BadValue(f"the labels in '{spec.label}'", labels[:6], f"two values, of which one is '{spec.positive}'")
    return rows


def groups_in(rows: Sequence[Row], attribute: str) -> list[str]:
    """The values of a column. Raises BadValue for one, or for more than can be told apart."""
    found = sorted({str(row.columns[attribute]) for row in rows})
    if not 2 <= len(found) <= MOST_GROUPS:
        allowed = f"from 2 to {MOST_GROUPS} values"
        raise BadValue(f"the groups of '{attribute}'", len(found), allowed, do="Name another column, or make fewer groups.")
    return found


def text_of(spec: GroupFairnessSpec, row: Row, changed: dict[str, str]) -> str:
    """A row as a text, with some of its columns changed."""
    return filled(spec.text, {**row.columns, **changed}, where=f"text ({row.where})")
