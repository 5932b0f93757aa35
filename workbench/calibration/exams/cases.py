"""The exam of cases: three fields' cases in which a planted sign decides the answer as often as the dose says, and an honest one else.

A tool that says which parts of an input matter is asked about held-out cases that show the planted sign: a motif in a protein-like chain
(encoder), an odd payment (decoder), a scratched patch of a casting (image classifier). Its answer is scored by place: a place is as
strong as its strongest position, and the planted one is held against those where nothing stands (the honest sign's place, which also
matters, is no rival). A motif is longer than a residue, so places of the same length are its rivals, lest the larger of four numbers be
taken for a find. On the clean twin the same sign stands there, as conspicuous, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workbench.calibration.exam import Exam, Grid, Reading
from workbench.calibration.exams.places import DOSES, strengths
from workbench.calibration.ranking import Standing, reading
from workbench.data.worlds.cases import MOTIF, PAYMENTS, PLACES, FieldName
from workbench.organisms.cases import READERS, CaseRecipe, ask, followed
from workbench.organisms.shortcut_forms import Asked

FIELD_OF: Mapping[str, FieldName] = {reader.family: name for name, reader in READERS.items()}
TOOLS = ("saliency", "input-x-gradient", "integrated-gradients", "occlusion", "attention-pattern")
QUERIES = {"proteins": 0, "payments": PAYMENTS, "castings": 0}
"""From which position attention to the case is read: where the answer is given."""


def read(tool: str, model: Any, made: CaseRecipe, sets: int, items: int) -> Sequence[Reading]:
    """One reading a set of held-out cases."""
    asked = ask(made, sets * items)
    each = standings(strengths(tool, model, asked, {"query": QUERIES[made.world.field]}), asked, made.world.field)
    return [reading(each[start : start + items]) for start in range(0, len(each), items)]


def standings(found: np.ndarray, asked: Asked, field: FieldName) -> list[Standing]:
    """How far the planted sign's place stands above places that say nothing, case by case, from a strength a position ``[case, pos]``."""
    lead, width = READERS[field].lead, MOTIF if field == "proteins" else 1
    places = found[:, lead : lead + width * PLACES[field]].reshape(len(found), PLACES[field], width).max(2)
    out = []
    for row, *spans in zip(places, asked.planted, asked.honest, strict=True):
        planted, honest = ((start - lead) // width for start, _ in spans)
        out.append(Standing.of(float(row[planted]), np.delete(row, [planted, honest])))
    return out


EXAM = Exam(
    name="cases",
    question="Is the place of a field's case that decides named?",
    domain="field cases",
    unit="how often the planted sign decides the answer (0 to 1)",
    grid=Grid.parse({"doses": DOSES}),
    quick=Grid.parse({"doses": (0.5, 1.0), "seeds": (0,), "clean_seeds": (100, 101), "clean_sets": 4}),
    families=tuple(FIELD_OF),
    tools=lambda family: TOOLS,
    organism=lambda family, tool="": f"cases-{FIELD_OF[family]}",
    read=read,
    behaviour=followed,
    statistic="planted place above a silent one",
    floor=0.85,
    exempt={"attention-pattern": "a weight says where a head reads, not what decides"},
)
