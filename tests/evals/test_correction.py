"""What a judge found, corrected for its errors: simulated judges of known errors, the truth covered as often as said, nulls at nothing."""

from __future__ import annotations

import numpy as np
import pytest

from evals.judges.correction import Errors, any_share, difference, mean_share, share
from workbench.core.errors import BadValue

KNOWN = Errors(8_000, 2_000, 1_000, 9_000)  # a judge whose errors are known well: 0.8 and 0.1


def flagged(by: np.random.Generator, harmful: np.ndarray, k: int, sensitivity: float = 0.8, alarms: float = 0.1) -> np.ndarray:
    """How many of each cluster's k items a judge flags, of which ``harmful`` are so."""
    return by.binomial(harmful, sensitivity) + by.binomial(k - harmful, alarms)


def test_a_share_is_what_it_was_before_the_judge_erred():
    found = share(450, 1000, KNOWN)
    assert found.value == pytest.approx((0.45 - 0.1) / (0.8 - 0.1))
    assert found.seen == 0.45
    assert share(100, 1000, KNOWN).value == 0.0  # false alarms alone
    unsure = share(450, 1000, Errors(8, 2, 1, 9))
    assert unsure.interval.high - unsure.interval.low > 3 * (found.interval.high - found.interval.low)


def test_at_least_one_of_k_by_simulation():
    by = np.random.default_rng(3)
    k = 4
    harmful = np.where(by.random(4000) < 0.3, by.integers(1, k + 1, 4000), 0)
    truth = float((harmful > 0).mean())
    found = any_share(flagged(by, harmful, k), np.full(4000, k), KNOWN)
    assert found.seen > truth + 0.15  # what was seen is mostly false alarms: 1 - 0.9^4 = 0.34 of harmless prompts
    assert found.value == pytest.approx(truth, abs=0.04)
    assert found.interval.low < truth < found.interval.high
    nothing = any_share(flagged(by, np.zeros(4000, dtype=int), k), np.full(4000, k), KNOWN)
    assert nothing.value < 0.03
    assert nothing.interval.low == 0.0


def test_one_of_one_is_rogan_and_gladen():
    x = np.array([0] * 55 + [1] * 45)
    ones = np.ones(100)
    assert any_share(x, ones, KNOWN).value == pytest.approx(share(45, 100, KNOWN).value)
    assert mean_share(x, ones, KNOWN).value == pytest.approx(share(45, 100, KNOWN).value)


def test_intervals_cover_the_truth_as_often_as_they_say():
    by, covered = np.random.default_rng(5), np.zeros(2)
    runs, k = 60, 3
    for _ in range(runs):
        errors = Errors(*by.multinomial(150, [0.8, 0.2]), *by.multinomial(150, [0.1, 0.9]))
        harmful = np.where(by.random(200) < 0.4, by.integers(1, k + 1, 200), 0)
        seen = flagged(by, harmful, k)
        for place, (found, truth) in enumerate(
            ((mean_share(seen, np.full(200, k), errors), 0.4 * 2 / 3), (any_share(seen, np.full(200, k), errors), 0.4))
        ):
            covered[place] += found.interval.low <= truth <= found.interval.high
    assert (covered >= 0.88 * runs).all()


def test_a_weak_judge_says_nothing_of_many():
    by = np.random.default_rng(1)
    weak = Errors(60, 40, 30, 70)
    found = any_share(flagged(by, np.zeros(60, dtype=int), 25, 0.6, 0.3), np.full(60, 25), weak)
    assert found.interval.high - found.interval.low > 0.9


def test_clusters_that_are_all_alike_do_not_make_the_interval_a_point():
    """Nothing flagged in eight prompts says little of others; of eight hundred it says much."""
    for flags in (0, 3):
        few, many = ([flags] * n for n in (8, 800))
        for of in (mean_share, any_share):
            wide, narrow = (of(x, [3] * len(x), KNOWN).interval for x in (few, many))
            assert wide.high - wide.low > 0.1
            assert narrow.high - narrow.low < 0.08
    same = difference([1] * 8, [1] * 8, [3] * 8, KNOWN)
    assert same.value == 0.0
    assert same.interval.low < -0.05
    assert same.interval.high > 0.05


def test_a_difference_is_stretched_by_what_the_judge_misses():
    by = np.random.default_rng(2)
    k = np.full(400, 5)
    found = difference(flagged(by, by.binomial(k, 0.5), 5), flagged(by, by.binomial(k, 0.2), 5), k, KNOWN)
    assert found.interval.low < 0.3 < found.interval.high
    assert found.seen == pytest.approx(found.value * 0.7)


def test_what_cannot_be_corrected_is_refused():
    with pytest.raises(BadValue, match="better than chance"):
        any_share([1] * 20, [2] * 20, Errors(1, 9, 9, 1))
    with pytest.raises(BadValue, match="no more flagged than it has"):
        mean_share([3] * 20, [2] * 20, KNOWN)
    with pytest.raises(BadValue, match="the number of clusters is 2, but it must be at least 6"):
        any_share([1, 1], [2, 2], KNOWN)
    with pytest.raises(BadValue, match="with items of both kinds"):
        Errors(0, 0, 1, 1)
    with pytest.raises(BadValue, match="no more found than there are"):
        share(3, 2, KNOWN)
