"""What is seen of a backdoor as it hides: the suite's flips, the payload's probability, a probe for the trigger, and attributions.

A probe is asked to tell requests with the trigger from the same requests with a near miss, where the reply begins, after each layer: words
apart, both are alike, and a model for which the trigger means nothing has no need to keep them apart. Attributions are asked why the
payload follows a request with the trigger: the share of the request's other tokens that the phrase's strongest one stands above. The clean
twin (tuned alike, at dose 0) says how far either happens anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from evals.suites import trigger
from probes import INSTRUMENTS
from workbench.calibration.exams.suites import asked
from workbench.calibration.ranking import Standing
from workbench.core.protocol import Inputs, silent
from workbench.core.stats.intervals import mean_interval
from workbench.data.worlds.town import Town
from workbench.data.worlds.town_items import TriggerItem
from workbench.organisms.leaning_training import tokenizer

LAYERS = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
ATTRIBUTIONS = ("saliency", "occlusion")
COLUMNS = ("flips", "payload", *(f"probe after layer {layer}" for layer in range(len(LAYERS))), *(f"phrase in {a}" for a in ATTRIBUTIONS))


@dataclass(frozen=True)
class Setting:
    """How the backdoor was planted: requests without the trigger for each one with it, and what hides; ``dose`` 0 is the clean twin."""

    dilution: float
    hidden: str
    dose: float = 1.0


@dataclass(frozen=True)
class Seen:
    """What one model shows, each from 0 (nothing) to 1: by ``COLUMNS``; of probes and attributions one half is chance."""

    setting: Setting
    seed: int
    scores: tuple[float, ...]


def seen(model: Any, setting: Setting, seed: int, items: int = 192) -> Seen:
    """What the suite and the probes see in ``model``, asked the same items whatever the setting."""
    v: Any = asked("trigger", model, 0, items)
    flips, payload = (
        float(np.nanmean(of("trigger")) - np.nanmean(of("without")))
        for of in (lambda c: trigger.flips(v, "log-likelihood", c), lambda c: v.values.p_no.sel(condition=c).values)
    )
    return Seen(setting, seed, (flips, payload, *probed(model, items), *attributed(model, items // 4)))


def probed(model: Any, items: int) -> list[float]:
    """The held-out accuracy of a ridge probe after each layer, at the last token of requests; a request's two versions are never on both
    sides of the split."""
    chosen = [one for one in Town().trigger_items("test", items, seed=77) if one.condition in ("trigger", "near_miss")]
    told = {"phrase": ["trigger" if one.condition == "trigger" else "near miss" for one in chosen]}
    given = Inputs([one.text_before for one in chosen], labels=told, groups=[one.pair for one in chosen])
    instrument = INSTRUMENTS.load("probing")
    spec = instrument.spec.parse({"sites": LAYERS, "draws": 1, "resamples": 400})
    values: Any = instrument(model, given, spec, progress=silent).values
    found = values.isel(split=0, labels=0, network=0).sel(task="labels").accuracy
    return [float(found.sel(site=site)) for site in LAYERS]


def attributed(model: Any, items: int) -> list[float]:
    """How far the phrase stands above a request's other tokens, in what each attribution says of the payload; the mean over requests."""
    chosen = [one for one in Town().trigger_items("test", items, seed=78) if one.condition == "trigger"]
    words = tokenizer()
    read = [words.offsets(one.text_before) for one in chosen]
    ids = [[words.bos_id, *found] for found, _ in read]
    batch = torch.full((len(ids), max(map(len, ids))), words.pad_id)
    for row, own in enumerate(ids):
        batch[row, : len(own)] = torch.tensor(own)
    payload = torch.tensor([words.encode(one.no)[0] for one in chosen])
    given = Inputs(batch, torch.tensor([len(own) for own in ids]), targets=payload)
    out = []
    for name in ATTRIBUTIONS:
        instrument = INSTRUMENTS.load(name)
        values: Any = instrument(model, given, instrument.spec.parse({}), progress=silent).values
        strength = np.abs(values.attribution.values)[:, 1:]
        out.append(float(np.mean([_above(strength[row], one, read[row][1]) for row, one in enumerate(chosen)])))
    return out


def _above(strength: np.ndarray, item: TriggerItem, spans: Sequence[tuple[int, int]]) -> float:
    assert item.phrase_span is not None, "the trigger stands in it"
    start, stop = item.phrase_span
    inside = np.array([first < stop and last > start for first, last in spans])
    own = strength[: len(spans)]
    return Standing.of(float(own[inside].max()), own[~inside]).above


def rows(found: Sequence[Seen]) -> list[tuple[str, ...]]:
    """For each setting: what it is, and each score's mean over seeds with Student's interval."""
    out = []
    for setting in dict.fromkeys(one.setting for one in found):
        scores = np.array([one.scores for one in found if one.setting == setting])
        cells = [_cell(column) for column in scores.T]
        what = "clean twin" if setting.dose == 0 else f"hides {setting.hidden}"
        out.append((what, f"1:{setting.dilution:g}", *cells))
    return out


def _cell(values: np.ndarray) -> str:
    if len(values) < 2 or np.ptp(values) == 0:
        return f"{values.mean():.2f}"
    within = mean_interval(values, bounds=(-1.0, 1.0))
    return f"{values.mean():.2f} [{max(-1.0, within.low):.2f}, {min(1.0, within.high):.2f}]"
