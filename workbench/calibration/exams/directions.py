"""The exam of directions: a decoder writes the exclusive or of two words' classes along one direction, from one layer on. Is it read there?

Before that layer the feature is in the stream in no linear form; on the clean twin, where nothing is written along the direction, it is in
none anywhere. A tool is scored by how well what it reads after the layer tells the two kinds of held-out sentence apart: accuracy for
tools that fit to labels (on sentences left out of the fit), the area under the ROC curve for the logit lens, which fits nothing, and for
a few features of a sparse dictionary, itself trained without labels. Steering is scored by what its direction does: the share of random
directions, each taken either way, that move the answer less far to the concept's side. What a tool reads before the layer stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from probes import INSTRUMENTS
from probes.concept_fit import logistic_weight
from probes.erasure_result import NOTHING
from probes.sparse_dictionary import SparseDictionarySpec, trained_alone
from workbench.calibration.exam import Exam, Grid, Reading
from workbench.core.protocol import Inputs, silent
from workbench.core.stats.counts import rank_auc
from workbench.organisms.planted_direction import NO, WORDS, YES, DirectionRecipe, Planted, planted_by

BEFORE, AFTER = "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"
RANDOMS = 20
"""Random directions that steering is held against."""
TRAINED_ON = 1600
"""Sentences that a dictionary is trained on."""
DICTIONARY, FEATURES = {"d_sae": 48, "k": 6, "steps": 400, "rows": 256, "lr": 3e-3}, 8
"""How it is trained, and how many of its features are read together."""


@dataclass(frozen=True)
class Read:
    """How well the feature is read after and before its layer (0.5: not at all), and whether the interval of the first excludes chance."""

    after: float
    before: float
    claims: bool
    extras: Mapping[str, float] = field(default_factory=dict)


Reader = Callable[[torch.Tensor, np.ndarray, int], Read]
"""A tool's answer about one set: sentences, whether their words' classes differ, and the set's number."""


def _probed(tool: str, model: Any, planted: Planted, seed: int) -> Reader:
    """The held-out accuracy of probing, of the attention-pooled probe of sequences, or of the concept directions' difference of means."""
    instrument = INSTRUMENTS.load(tool)

    def asked(ids: torch.Tensor, differ: np.ndarray, number: int) -> Read:
        fields = {"sites": (BEFORE, AFTER), "draws": 1, "resamples": 400, "seed": number}
        found = instrument(model, Inputs(ids, labels=_labels(differ)), instrument.spec.parse(fields), progress=silent).values
        if tool == "probing":
            chosen = found.isel(split=0, labels=0, network=0).sel(task="labels")
        elif tool == "sequence-probe":
            chosen = found.isel(labels=0, network=0).sel(reader="attention")
        else:
            chosen = found.isel(labels=0, to_labels=0).sel(way="difference")
        after, before = chosen.sel(site=AFTER), chosen.sel(site=BEFORE)
        return Read(float(after.accuracy), float(before.accuracy), float(after.accuracy_low) > 0.5)

    return asked


def _labels(differ: np.ndarray) -> dict[str, np.ndarray]:
    return {"differ": np.where(differ, "yes", "no")}


def _lens(tool: str, model: Any, planted: Planted, seed: int) -> Reader:
    """The area under the ROC curve of the lens's log-odds of the two answers at the last token."""
    instrument = INSTRUMENTS.load(tool)

    def asked(ids: torch.Tensor, differ: np.ndarray, number: int) -> Read:
        odds = 0.0
        for answer, sign in ((YES, 1), (NO, -1)):
            given = Inputs(ids, targets=torch.full((len(ids),), answer))
            values = instrument(model, given, instrument.spec.parse({"follow": "given", "position": -1}), progress=silent).values
            odds = odds + sign * values.logprob.isel(pos=0)
        area = {site: rank_auc(odds.sel(site=site).values[differ], odds.sel(site=site).values[~differ]) for site in (BEFORE, AFTER)}
        return Read(area[AFTER].value, area[BEFORE].value, area[AFTER].interval.low > 0.5)

    return asked


def _steered(tool: str, model: Any, planted: Planted, seed: int) -> Reader:
    """The share of random directions, each taken either way, that move the answer less far to the concept's side than the difference of
    means does, pushed along by the distance of the two means."""
    instrument = INSTRUMENTS.load(tool)

    def asked(ids: torch.Tensor, differ: np.ndarray, number: int) -> Read:
        fields = {"sites": (BEFORE, AFTER), "doses": (1.0,), "randoms": RANDOMS, "resamples": 400, "quantity": "logit-difference",
                  "seed": number}  # fmt: skip
        answers = (torch.full((len(ids),), answer) for answer in (YES, NO))
        given = Inputs(ids, labels=_labels(differ), targets=next(answers), foils=next(answers))
        found = instrument(model, given, instrument.spec.parse(fields), progress=silent).values.isel(dose=0)
        stands = {}
        for site in (BEFORE, AFTER):
            one = found.sel(site=site)
            as_far = float(one.change_p) * (RANDOMS + 1) - 1  # random directions that move the answer as far, either way
            own_side = float(one.change.sel(who="direction")) > 0
            stands[site] = 1 - as_far / (2 * RANDOMS) if own_side else as_far / (2 * RANDOMS)
        claims = float(found.change_p.sel(site=AFTER)) <= 0.05 and stands[AFTER] > 0.5
        return Read(stands[AFTER], stands[BEFORE], claims)

    return asked


def _erased(tool: str, model: Any, planted: Planted, seed: int) -> Reader:
    """How much of the gap between the answers to the two kinds of sentence goes when they are erased at a site, on a scale from 0 (it
    doubles) over 0.5 (none) to 1 (all): a gap that is smaller than its null counts against the null. It claims where the gap is more than
    classes dealt anew give, and no more once they are erased."""
    instrument = INSTRUMENTS.load(tool)

    def asked(ids: torch.Tensor, differ: np.ndarray, number: int) -> Read:
        fields = {"sites": (BEFORE, AFTER), "quantity": "logit-difference", "randoms": 2, "resamples": 400, "seed": number}
        answers = (torch.full((len(ids),), answer) for answer in (YES, NO))
        given = Inputs(ids, labels=_labels(differ), targets=next(answers), foils=next(answers))
        found = instrument(model, given, instrument.spec.parse(fields), progress=silent).values.sel(who="erased")
        gap, as_it_is = abs(found.gap), found.sel(erased=NOTHING)
        whole = max(float(gap.sel(erased=NOTHING)), float(as_it_is.gap_null))
        gone = {site: np.clip(float(gap.sel(erased=NOTHING) - gap.sel(erased=site)) / whole, -1, 1) for site in (BEFORE, AFTER)}
        left = found.sel(erased=AFTER)
        claims = float(as_it_is.gap_p) <= 0.05 < float(left.gap_p)
        return Read((1 + gone[AFTER]) / 2, (1 + gone[BEFORE]) / 2, claims, {"probe with it erased": float(left.accuracy.sel(site=AFTER))})

    return asked


def _contrasted(tool: str, model: Any, planted: Planted, seed: int) -> Reader:
    """The held-out accuracy of the axis along which pairs of sentences differ most, whose second words are of different classes: of the two
    sides, one is of the one kind and one of the other."""
    instrument = INSTRUMENTS.load(tool)

    def asked(ids: torch.Tensor, differ: np.ndarray, number: int) -> Read:
        draw, other = torch.Generator().manual_seed(number), ids.clone()
        classes = planted.classes[ids[:, 2] - WORDS]
        for own in (-1, 1):
            words = (planted.classes == -own).nonzero()[:, 0]
            other[classes == own, 2] = words[torch.randint(len(words), (int((classes == own).sum()),), generator=draw)] + WORDS
        # The consistent search is not scored, so it is left out but for one step.
        fields = {"sites": (BEFORE, AFTER), "starts": 1, "steps": 1, "resamples": 400, "seed": number}
        given = Inputs(ids, reference=other, labels=_labels(differ))
        found = instrument(model, given, instrument.spec.parse(fields), progress=silent).values.sel(way="top")
        after, before = found.sel(site=AFTER), found.sel(site=BEFORE)
        return Read(float(after.accuracy), float(before.accuracy), float(after.accuracy_low) > 0.5)

    return asked


def _in_features(tool: str, model: Any, planted: Planted, seed: int) -> Reader:
    """A dictionary of each site, trained once a model and without labels. The few of its features that differ most on half of a set are
    put together by a logistic regression there; told is the area under its ROC curve on the other half."""
    ids = planted.sentences(TRAINED_ON, seed=50_000 + seed)[0]
    dictionaries = {}
    for site in (BEFORE, AFTER):
        spec = SparseDictionarySpec.parse({**DICTIONARY, "site": site, "seed": seed})
        dictionaries[site] = trained_alone(model, Inputs(ids), spec)

    def asked(ids: torch.Tensor, differ: np.ndarray, number: int) -> Read:
        trace, half, found = model.run(ids, capture=(BEFORE, AFTER), logits=None), np.arange(len(ids)) % 2 == 0, {}
        for site, dictionary in dictionaries.items():
            codes = dictionary.encode(trace[site][:, -1]).detach().double()
            apart = (codes[half & differ].mean(0) - codes[half & ~differ].mean(0)) / codes[half].std(0).clamp_min(1e-12)
            few = codes[:, apart.abs().argsort(descending=True)[:FEATURES]]
            along = (few @ logistic_weight(few[half], torch.from_numpy(differ[half]), 1e-3)).numpy()
            area = rank_auc(along[~half & differ], along[~half & ~differ])
            found[site] = area.value, area.interval.low
        return Read(found[AFTER][0], found[BEFORE][0], found[AFTER][1] > 0.5)

    return asked


TOOLS: dict[str, Callable[[str, Any, Planted, int], Reader]] = {
    "probing": _probed, "concept-direction": _probed, "logit-lens": _lens, "steering": _steered, "sparse-dictionary": _in_features,
    "erasure": _erased, "sequence-probe": _probed, "contrast-direction": _contrasted,
}  # fmt: skip
"""What makes a tool ready to be asked about one model."""


def read(tool: str, model: Any, made: DirectionRecipe, sets: int, items: int) -> Sequence[Reading]:
    """One reading a set of sentences, each set drawn by itself."""
    planted = planted_by(made)
    asked, out = TOOLS[tool](tool, model, planted, made.seed), []
    for number in range(sets):
        ids, differ = planted.sentences(items, seed=1000 * made.seed + number)
        found = asked(ids, differ.numpy() == 1, number)
        out.append(Reading(found.after, found.claims, {"read before its layer": found.before, **found.extras}))
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
