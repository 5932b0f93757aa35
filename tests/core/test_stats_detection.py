"""The limit of detection: the curve it came from is recovered, a slow fit agrees, its interval covers, and ends of the range are said."""

from typing import Any

import numpy as np
import pytest
from scipy import optimize, special

from workbench.core.errors import BadValue
from workbench.core.stats.detection import found_at, limit_of_detection

DOSES = np.repeat([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0], 5)
CASES = np.full(len(DOSES), 10)


def drawn(limit: float, slope: float, seed: int, spread: float = 0.0) -> np.ndarray:
    """Counts found at every dose; ``spread``: how far each model's own limit lies from the common one (natural logarithm)."""
    draw = np.random.default_rng(seed)
    own = limit * np.exp(spread * draw.normal(size=len(DOSES)))
    p = np.array([found_at(d, one, slope, 0.05, 0.8) for d, one in zip(DOSES, own, strict=True)])
    return draw.binomial(CASES, p)


def test_the_curve_is_0_8_at_the_limit_and_the_false_alarms_far_below() -> None:
    assert found_at([0.2], 0.2, 3.0, 0.05, 0.8) == pytest.approx([0.8])
    assert found_at([1e-9], 0.2, 3.0, 0.05, 0.8) == pytest.approx([0.05])
    assert found_at([1e9], 0.2, 3.0, 0.05, 0.8) == pytest.approx([1.0])


@pytest.mark.parametrize("seed", range(4))
def test_a_slow_fit_agrees(seed: int) -> None:
    found = drawn(0.15, 2.0, seed)

    def lost(given: Any) -> float:
        p = found_at(DOSES, np.exp(given[0]), np.exp(given[1]), 0.05, 0.8)
        return -float((special.xlogy(found, p) + special.xlogy(CASES - found, 1 - p)).sum())

    slow: Any = optimize.minimize(lost, [np.log(0.3), 0.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9})
    limit = limit_of_detection(DOSES, found, CASES)
    assert limit.value == pytest.approx(np.exp(slow.x[0]), rel=0.03)  # the grid's step is 2 %
    assert limit.slope == pytest.approx(np.exp(slow.x[1]), rel=0.1)


def test_the_interval_covers_and_models_that_differ_widen_it() -> None:
    covered = {0.0: 0, 0.6: 0}
    for spread in covered:
        for seed in range(60):
            limit = limit_of_detection(DOSES, drawn(0.15, 2.0, seed, spread), CASES)
            assert limit.interval is not None
            covered[spread] += limit.interval.low <= 0.15 <= limit.interval.high
    assert covered[0.0] >= 53
    assert covered[0.6] >= 48  # the true curve is flatter then, so its limit is not quite 0.15
    alike, apart = (limit_of_detection(DOSES, drawn(0.15, 2.0, 1, spread), CASES) for spread in (0.0, 1.5))
    assert apart.heterogeneity > 2 > alike.heterogeneity >= 1
    assert apart.interval is not None
    assert alike.interval is not None
    assert apart.interval.high / apart.interval.low > alike.interval.high / alike.interval.low


def test_a_clean_step_has_a_limit_between_its_doses() -> None:
    limit = limit_of_detection(DOSES, np.where(DOSES >= 0.2, 10, 0), CASES)
    assert limit.value is not None
    assert 0.1 < limit.value <= 0.2
    assert limit.heterogeneity == 1


def test_outside_the_range_no_number_is_given() -> None:
    all_found = limit_of_detection(DOSES, CASES, CASES)
    assert (all_found.value, all_found.interval, all_found.where) == (None, None, "below the lowest dose")
    none_found = limit_of_detection(DOSES, np.zeros(len(DOSES)), CASES)
    assert (none_found.value, none_found.interval, none_found.where) == (None, None, "above the highest dose")


@pytest.mark.parametrize(
    ("doses", "found", "cases", "words"),
    [
        ([0, 0.1, 0.2, 0.3], [0, 1, 2, 3], [4] * 4, "doses is 0.0, but it must be above 0"),
        ([0.1, 0.1, 0.2, 0.2], [0, 1, 2, 3], [4] * 4, "number of different doses is 2"),
        ([0.1, 0.2, 0.3, 0.4], [0, 1, 2, 5], [4] * 4, "counts that cannot be"),
        ([0.1, 0.2, 0.3, 0.4], [0, 1, 2, 0.5], [4] * 4, "counts that cannot be"),
        ([0.1, 0.2, 0.3], [0, 1, 2], [4] * 3, "length of doses is 3"),
        ([0.1, 0.2, 0.3, 0.4], [0, 1, 2], [4] * 4, "length of found"),
        ([0.1, 0.2, 0.3, float("nan")], [0, 1, 2, 3], [4] * 4, "NaN or infinite"),
    ],
)
def test_what_cannot_be_is_refused(doses: Any, found: Any, cases: Any, words: str) -> None:
    with pytest.raises(BadValue, match=words):
        limit_of_detection(doses, found, cases)
