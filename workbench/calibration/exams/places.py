"""The exam of places: eight parts an input, of which a planted mark decides the answer as often as the dose says, and an honest one else.

A tool that says which parts of an input matter is asked about held-out items. Its answer is scored by how far the planted mark stands
above the parts that say nothing (the honest mark, which also matters, is no rival). On the clean twin the same mark stands in the input
and decides nothing: a tool that names it there names what is conspicuous, not what matters. All eight families take part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from probes import INSTRUMENTS
from probes.attribution import AttributionResult
from probes.explanation_quality import ExplanationQualitySpec
from workbench.calibration.exam import Exam, Grid, Reading
from workbench.calibration.exams import explanations
from workbench.calibration.ranking import Standing, reading
from workbench.core.protocol import silent
from workbench.organisms.shortcut import ask, followed
from workbench.organisms.shortcut_forms import FORMS, Asked

ATTRIBUTIONS = (
    "integrated-gradients", "input-x-gradient", "saliency", "smooth-grad", "gradient-shap", "occlusion", "shapley",
)  # fmt: skip
READING = ("attention-pattern", "value-norms")
JUDGED = ("bert", "gpt", "vit")
"""The families in which made-up explanations are judged: one of each kind of input."""
UNIT = "how often the planted part decides the answer (0 to 1)"
DOSES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
STATISTIC = "planted part above a silent one"


def tools(family: str) -> tuple[str, ...]:
    """What can be asked about places of this family. Where one stack reads another, only what can look from one into the other is."""
    reads = FORMS[family].reads
    reading = [tool for tool in READING if reads and ("cross" not in reads or "cross" in INSTRUMENTS.load(tool).spec.model_fields)]
    return (*ATTRIBUTIONS, *reading, *((explanations.NAME,) if family in JUDGED else ()))


def strengths(tool: str, model: Any, asked: Asked, reads: Mapping[str, Any]) -> np.ndarray:
    """What ``tool`` gives each position of each item ``[item, pos]``, larger for what matters more. ``reads``: from which ``query``, and of
    which stack, tools are read that say where a head looks."""
    instrument = INSTRUMENTS.load(tool)
    fields = instrument.spec.model_fields
    wanted = reads if tool in READING else asked.settings
    spec = instrument.spec.parse({name: value for name, value in wanted.items() if name in fields and name != "query"})
    if isinstance(spec, ExplanationQualitySpec):
        return explanations.comprehensiveness(model, asked.inputs, spec)
    result = instrument(model, asked.inputs, spec, progress=silent)
    if isinstance(result, AttributionResult):
        return np.abs(result.values.attribution.values)
    read = result.values.pattern if tool == "attention-pattern" else result.values.norm
    return read.values[-1].mean(0)[:, reads["query"]]  # the last layer, over all heads


def read(tool: str, model: Any, made: Any, sets: int, items: int) -> Sequence[Reading]:
    """One reading a set of held-out items; all are asked at once, or set by set where the items of a question are one another's rivals."""
    form = FORMS[made.family]
    at_once = items if form.one_each else sets * items
    out: list[Reading] = []
    for first in range(0, sets * items, at_once):
        asked = ask(model, made, at_once, first)
        out += readings(strengths(tool, model, asked, form.reads), asked, items)
    return out


def readings(found: np.ndarray, asked: Asked, items: int) -> list[Reading]:
    """One reading for each ``items`` items, from what a tool gives each position ``[item, pos]``."""
    each = [standing(row, asked, i) for i, row in enumerate(found)]
    return [reading(each[start : start + items]) for start in range(0, len(each), items)]


def standing(strength: np.ndarray, asked: Asked, item: int) -> Standing:
    """How far the planted mark of one item stands above the parts that say nothing."""
    start, stop = asked.planted[item]
    return Standing.of(float(strength[start:stop].max()), strength[: len(asked.rivals[item])][asked.rivals[item]])


EXAM = Exam(
    name="places",
    question="Is the part of an input that decides the answer named?",
    domain="marks",
    unit=UNIT,
    grid=Grid.parse({"doses": DOSES}),
    quick=Grid.parse({"doses": (0.5, 1.0), "seeds": (0,), "clean_seeds": (100, 101), "clean_sets": 4}),
    families=tuple(FORMS),
    tools=tools,
    organism=lambda family, tool="": f"shortcut-{family}",
    read=read,
    behaviour=followed,
    statistic=STATISTIC,
    floor=0.85,
    exempt={"attention-pattern": "a weight says where a head reads, not what decides"},
)
