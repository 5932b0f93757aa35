"""The exam of directions: a decoder writes the exclusive or of two words' classes along one direction, from one layer on. Is it read there?

Before that layer the feature is in the stream in no linear form; on the clean twin, where nothing is written along the direction, it is in
none anywhere. A tool is scored by how well what it reads after the layer tells the two kinds of held-out sentence apart: accuracy for
tools that fit to labels (on sentences left out of the fit), the area under the ROC curve for the logit lens, which fits nothing. What it
reads before the layer stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from probes import INSTRUMENTS
from workbench.calibration.exam import Exam, Grid, Reading
from workbench.core.protocol import Inputs, silent
from workbench.core.stats.counts import rank_auc
from workbench.organisms.planted_direction import NO, YES, DirectionRecipe, planted_by

BEFORE, AFTER = "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"


@dataclass(frozen=True)
class Read:
    """How well the feature is read after and before its layer (0.5: not at all), and whether the interval of the first excludes chance."""

    after: float
    before: float
    claims: bool


def _probed(tool: str, model: Any, ids: torch.Tensor, differ: np.ndarray, seed: int) -> Read:
    """The held-out accuracy of probing, or of the difference of means of the concept directions."""
    labels = {"differ": np.where(differ, "yes", "no")}
    fields = {"sites": (BEFORE, AFTER), "draws": 1, "resamples": 400, "seed": seed}
    instrument = INSTRUMENTS.load(tool)
    found = instrument(model, Inputs(ids, labels=labels), instrument.spec.parse(fields), progress=silent).values
    if tool == "probing":
        chosen = found.isel(split=0, labels=0, network=0).sel(task="labels")
    else:
        chosen = found.isel(labels=0, to_labels=0).sel(way="difference")
    after, before = chosen.sel(site=AFTER), chosen.sel(site=BEFORE)
    return Read(float(after.accuracy), float(before.accuracy), float(after.accuracy_low) > 0.5)


def _lens(tool: str, model: Any, ids: torch.Tensor, differ: np.ndarray, seed: int) -> Read:
    """The area under the ROC curve of the lens's log-odds of the two answers at the last token."""
    instrument = INSTRUMENTS.load(tool)
    odds = 0.0
    for answer, sign in ((YES, 1), (NO, -1)):
        given = Inputs(ids, targets=torch.full((len(ids),), answer))
        values = instrument(model, given, instrument.spec.parse({"follow": "given", "position": -1}), progress=silent).values
        odds = odds + sign * values.logprob.isel(pos=0)
    area = {site: rank_auc(odds.sel(site=site).values[differ], odds.sel(site=site).values[~differ]) for site in (BEFORE, AFTER)}
    return Read(area[AFTER].value, area[BEFORE].value, area[AFTER].interval.low > 0.5)


TOOLS: dict[str, Callable[..., Read]] = {"probing": _probed, "concept-direction": _probed, "logit-lens": _lens}


def read(tool: str, model: Any, made: DirectionRecipe, sets: int, items: int) -> Sequence[Reading]:
    """One reading a set of sentences, each set drawn by itself."""
    planted = planted_by(made)
    out = []
    for number in range(sets):
        ids, differ = planted.sentences(items, seed=1000 * made.seed + number)
        found = TOOLS[tool](tool, model, ids, differ.numpy() == 1, number)
        out.append(Reading(found.after, found.claims, {"read before its layer": found.before}))
    return out


def answered(model: Any, made: DirectionRecipe) -> float:
    """What the direction does to behaviour: by how much the answer's probability differs between the two kinds of sentence."""
    ids, differ = planted_by(made).sentences(400, seed=10_000 + made.seed)
    logits = model.run(ids, logits="last").logits[:, -1].double()
    yes = logits[:, [YES, NO]].softmax(-1)[:, 0]
    return float(yes[differ == 1].mean() - yes[differ == 0].mean())


EXAM = Exam(
    name="directions",
    question="Is a feature read where it is written, and not where it is not?",
    domain="two words",
    unit="how far the direction is written, where words vary by at most 1 along an axis",
    grid=Grid.parse({"doses": (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 2.0), "items": 160}),
    quick=Grid.parse({"doses": (0.5, 2.0), "seeds": (0,), "clean_seeds": (100, 101), "clean_sets": 4, "items": 160}),
    families=("gpt",),
    tools=lambda family: tuple(TOOLS),
    organism=lambda family, tool="": "planted-direction",
    read=read,
    behaviour=answered,
    statistic="read after its layer",
)
