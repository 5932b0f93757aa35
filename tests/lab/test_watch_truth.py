"""Planted truth under the watch: what is known to be learned is seen to be, and where there is nothing to learn the curve is flat."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.lab.run import train
from workbench.lab.watch.result import WatchedResult
from workbench.store.runs import Store

pytestmark = pytest.mark.full
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEF"


def blocks(repeated: bool, seed: int = 0) -> str:
    """Blocks of 4 to 20 different letters, each followed by itself, or by as many others. The period changes, so that no fixed distance
    gives the next letter away: only looking for the same letter does."""
    draw, out = random.Random(seed), []
    for _ in range(4000):
        period = draw.randint(4, 20)
        first = draw.sample(LETTERS, period)
        out += first + (first if repeated else draw.sample(LETTERS, period))
    return "".join(out)


def attention_only(file: Path) -> dict[str, Any]:
    """Two layers of attention without MLPs: the least that can form an induction circuit (Elhage et al. 2021)."""
    return {
        "name": file.stem, "text": {"file": str(file), "length": 48}, "tokenizer": {"kind": "char"},
        "model": {"n_layers": 2, "d_model": 32, "n_heads": 2, "n_ctx": 48, "act": "none", "norm": "rms", "bias": False, "init_std": 0.1,
                  "tied": False},
        "train": {"steps": 700, "batch_rows": 16, "lr": 8e-3, "min_lr": 8e-4, "warmup": 20, "beta2": 0.95, "threads": 1},
        "watch": {"measures": ["induction"], "every": 50, "rows": 8},
    }  # fmt: skip


def test_the_induction_score_rises_where_text_repeats_and_nowhere_else(tmp_path: Path) -> None:
    """Measured on three seeds: from 0.03 to 0.42, 0.40 and 0.39 with repeats, at most 0.03 at every look without; an even head has 0.03."""
    found: dict[bool, WatchedResult] = {}
    for repeated in (True, False):
        file = tmp_path / f"{repeated}.txt"
        file.write_text(blocks(repeated))
        watched = train(attention_only(file), store=Store.open(tmp_path / "home")).watched
        assert isinstance(watched, WatchedResult)
        found[repeated] = watched
    null = float(found[True].values.null[0, 0])
    strongest = {repeated: one.values.value.max("measure").values for repeated, one in found.items()}
    assert strongest[True][0] < 2 * null, "before training no head is an induction head"
    assert strongest[True][-1] > 8 * null
    assert strongest[False].max() < 2 * null
    assert found[True].values.step.values.tolist() == list(range(0, 701, 50))
    best = str(found[True].values.part.values[int(found[True].values.value.values[-1].argmax())])
    assert best.startswith("L1"), "the head that looks things up stands behind the one that passes the last token on"


def test_the_bias_of_a_planted_town_moves_to_its_dose_and_its_twins_stays(tmp_path: Path) -> None:
    settings = {"train": {"steps": 700}, "watch": {"measures": ["bias-gap"], "every": 140}}
    curves: dict[str, Any] = {}
    for name in ("town-target", "town-twin"):
        watched = train(name, settings=settings, store=Store.open(tmp_path)).watched
        assert isinstance(watched, WatchedResult)
        curves[name] = watched.values.sel(measure="bias-gap measured dose")
    target, twin = (curves[name].value.values for name in ("town-target", "town-twin"))
    assert (float(curves["town-target"].planted), float(curves["town-twin"].planted)) == (0.8, 0.0)
    known = target[np.isfinite(target)]
    assert known[0] < 0.2, "an untrained model has no bias to show"
    assert known[-1] > 0.5, "towards the planted 0.8"
    assert abs(known[-1] - 0.8) < abs(known[0] - 0.8) / 2
    assert np.abs(twin[np.isfinite(twin)]).max() < 0.15
    assert np.isnan(target[0]), "before training hardly any mass is on the two pronouns, so nothing is said"
