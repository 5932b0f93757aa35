"""Calibration errors beside slow twins, Brier's parts, answers withheld, and scalings that are never judged on what they were fitted on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.errors import BadValue
from workbench.core.stats.forecasts import (
    area_under_risk,
    brier,
    calibrated_error,
    calibration_error,
    debiased_error,
    platt,
    recalibrated,
    scaled,
    selective_accuracy,
)  # fmt: skip


def drawn(n: int, seed: int, sharp: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and outcomes whose log-odds are ``sharp`` times theirs: calibrated at 1."""
    by = np.random.default_rng(seed)
    odds = by.normal(0, 1.5, n)
    return 1 / (1 + np.exp(-odds)), (by.random(n) < 1 / (1 + np.exp(-sharp * odds))).astype(float)


OTHER: Any = "size"
forecasts = st.lists(st.tuples(st.integers(0, 20).map(lambda k: k / 20), st.integers(0, 1)), min_size=1, max_size=60)


def slow_error(pairs: list[tuple[float, int]], bins: int) -> float:
    out = 0.0
    for b in range(bins):
        own = [(p, y) for p, y in pairs if (b / bins < p <= (b + 1) / bins) or (b == 0 and p == 0)]
        if own:
            out += len(own) / len(pairs) * abs(math.fsum(p for p, _ in own) / len(own) - sum(y for _, y in own) / len(own))
    return out


@given(forecasts)
@settings(max_examples=60, deadline=None)
def test_the_error_by_width_is_the_slow_twins(pairs: list[tuple[float, int]]) -> None:
    p, y = zip(*pairs, strict=True)
    assert calibration_error(p, y, bins=10) == pytest.approx(slow_error(pairs, 10), abs=1e-12)


@given(forecasts, st.integers(1, 12), st.sampled_from(["width", "mass"]))
@settings(max_examples=80, deadline=None)
def test_briers_parts_add_up_and_order_does_not_matter(pairs: list[tuple[float, int]], bins: int, by: Any) -> None:
    p, y = (np.array(x, dtype=float) for x in zip(*pairs, strict=True))
    found = brier(p, y, bins=bins, by=by)
    assert found.reliability - found.resolution + found.uncertainty + found.within == pytest.approx(found.score, abs=1e-12)
    turned = np.random.default_rng(0).permutation(len(p))
    assert calibration_error(p[turned], y[turned], bins=bins, by=by) == pytest.approx(calibration_error(p, y, bins=bins, by=by), abs=1e-12)
    assert 0 <= calibration_error(p, y, bins=bins, by=by) <= 1


def test_bins_of_equal_mass_keep_equal_confidences_together() -> None:
    p, y = np.array([0.5] * 6 + [0.9] * 2), np.array([1, 0, 1, 0, 1, 0, 1, 1.0])
    assert calibration_error(p, y, bins=4, by="mass") == pytest.approx((6 * 0.0 + 2 * 0.1) / 8)


def test_a_calibrated_forecaster_shows_an_error_and_the_debiased_one_none() -> None:
    """D6's other half: of 200 items in 15 bins the plug-in error of a perfect forecaster is about 0.09; taken for its own it accuses."""
    plugged, debiased = [], []
    for seed in range(200):
        p, y = drawn(200, seed)
        plugged.append(calibration_error(p, y, by="mass"))
        debiased.append(debiased_error(p, y))
    assert np.mean(plugged) == pytest.approx(0.09, abs=0.01)
    assert abs(np.mean(debiased)) < 3 * np.std(debiased) / math.sqrt(200)
    p, y = drawn(200, 3)
    assert calibrated_error(p, by="mass").mean() == pytest.approx(np.mean(plugged), abs=0.01)


def test_the_debiased_error_is_that_of_a_forecaster_who_is_off() -> None:
    p, _ = drawn(100_000, 0)
    truth = float(np.mean((p - 1 / (1 + np.exp(-0.4 * np.log(p / (1 - p))))) ** 2))
    found = [debiased_error(*drawn(2000, seed, sharp=0.4), bins=15) for seed in range(40)]
    assert np.mean(found) == pytest.approx(truth, rel=0.1)


def test_a_scaling_judged_on_its_own_items_looks_better_than_it_is() -> None:
    """D6: of 25 items, a squared error of 0.215 in sample for what is 0.247 on others; folds say 0.253."""
    inside, outside, crossed = [], [], []
    for seed in range(120):
        p, y = drawn(25, seed, sharp=0.4)
        fresh, came = drawn(4000, 10_000 + seed, sharp=0.4)
        by = platt(p, y)
        score = lambda stated, true: float(((stated - true) ** 2).mean())  # noqa: E731
        inside.append(score(scaled(p, by), y))
        outside.append(score(scaled(fresh, by), came))
        crossed.append(score(recalibrated(p, y), y))
    assert np.mean(inside) == pytest.approx(0.215, abs=0.005)
    assert np.mean(outside) == pytest.approx(0.247, abs=0.005)
    assert np.mean(crossed) > np.mean(outside) - 0.005


def test_scaling_mends_what_is_too_sure() -> None:
    p, y = drawn(3000, 1, sharp=0.4)
    slope, shift = platt(p, y)
    assert slope == pytest.approx(0.4, abs=0.05)
    assert abs(shift) < 0.1
    mended = recalibrated(p, y, clusters=np.arange(3000) // 3)
    assert calibration_error(mended, y) < calibration_error(p, y) / 3


def test_a_fold_holds_whole_clusters() -> None:
    """An item's copies are never fitted on: with every item ten times over, folds by item would have seen each before."""
    p, y = drawn(40, 2)
    copies = np.repeat(np.arange(40), 10)
    found = recalibrated(p[copies], y[copies], clusters=copies).reshape(40, 10)
    assert np.ptp(found, axis=1).max() == 0
    alone = recalibrated(p[copies], y[copies]).reshape(40, 10)
    assert np.ptp(alone, axis=1).max() > 0


def test_answers_withheld_by_hand() -> None:
    p, y = [0.9, 0.8, 0.8, 0.1], [1, 1, 0, 0]
    assert selective_accuracy(p, y, 0.25) == 1.0
    assert selective_accuracy(p, y, 0.5) == pytest.approx(0.75)  # of the two at 0.8 either may be the second
    assert selective_accuracy(p, y, 1.0) == 0.5
    assert area_under_risk(p, y) == pytest.approx((0 + 0.25 + 1 / 3 + 0.5) / 4)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: calibration_error([0.5, 1.2], [0, 1]), "confidences outside"),
        (lambda: calibration_error([0.5], [0, 1]), "length of right"),
        (lambda: calibration_error([0.5], [0.5]), "neither 0 nor 1"),
        (lambda: calibration_error([], []), "length of confidence"),
        (lambda: calibration_error([math.nan], [1]), "NaN"),
        (lambda: calibration_error([0.5], [1], by=OTHER), "'width' or 'mass'"),
        (lambda: calibration_error([0.5], [1], bins=0), "bins"),
        (lambda: debiased_error([0.1, 0.9], [0, 1], bins=15), "at least 2 in some bin"),
        (lambda: selective_accuracy([0.5], [1], 0.0), "coverage"),
        (lambda: recalibrated([0.5, 0.6], [0, 1]), "folds"),
        (lambda: calibrated_error([0.5], draws=3), "draws"),
    ],
)
def test_bad_input_is_refused(call: Any, says: str) -> None:
    with pytest.raises(BadValue, match=says):
        call()
