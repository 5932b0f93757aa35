"""Intervals with a formula: published tables, and coverage counted exactly or by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.weightstats import DescrStatsW

from workbench.core.errors import BadValue
from workbench.core.finding import Interval
from workbench.core.stats.equivalence import equivalence_interval, tost, tost_estimate
from workbench.core.stats.intervals import clopper_pearson, constant_interval, mean_interval, wilson
from workbench.core.stats.regression import slope

# Newcombe 1998, Statistics in Medicine 17:857, table I, methods 3 (score) and 5 (exact), to four digits.
NEWCOMBE = [
    (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
    (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
    (0, 20, (0.0, 0.1611), (0.0, 0.1684)),
    (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
]
# Hours of sleep gained with one drug over another by the same ten patients: Student 1908, Biometrika 6:1.
SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]


def covered(hits: float, repetitions: int, level: float = 0.95) -> bool:
    """Whether ``hits`` of ``repetitions`` lies in the central 99.9 % band of a binomial with rate ``level``."""
    low, high = scipy_stats.binom.interval(0.999, repetitions, level)
    return bool(low <= hits <= high)


@pytest.mark.parametrize(("k", "n", "score", "exact"), NEWCOMBE)
def test_rates_equal_the_published_table(k: int, n: int, score: tuple[float, float], exact: tuple[float, float]) -> None:
    for found, wanted in ((wilson(k, n), score), (clopper_pearson(k, n), exact)):
        assert (round(found.low, 4), round(found.high, 4)) == wanted
        assert found.level == 0.95


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.95, 0.99]))
def test_rates_solve_their_equations(kn: tuple[int, int], level: float) -> None:
    k, n = kn
    score, exact = wilson(k, n, level), clopper_pearson(k, n, level)
    z = scipy_stats.norm.ppf((1 + level) / 2)
    for bound in (score.low, score.high):
        if 0 < bound < 1:  # a score bound p solves |k/n - p| = z sqrt(p (1-p) / n)
            assert abs(k / n - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / n), rel=1e-7, abs=1e-12)
    if k:
        assert scipy_stats.binom.sf(k - 1, n, exact.low) == pytest.approx((1 - level) / 2, rel=1e-6)
    if k < n:
        assert scipy_stats.binom.cdf(k, n, exact.high) == pytest.approx((1 - level) / 2, rel=1e-6)
    mirrored = wilson(n - k, n, level)
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((score.low, score.high), abs=1e-12)
    assert 0 <= score.low <= k / n <= score.high <= 1
    assert 0 <= exact.low <= k / n <= exact.high <= 1


def coverage_of_rates(interval, n: int, rates: np.ndarray) -> np.ndarray:
    """Exact coverage at each rate: the binomial weight of the counts whose interval holds it."""
    bounds = [interval(k, n) for k in range(n + 1)]
    weights = scipy_stats.binom.pmf(np.arange(n + 1), n, rates[:, None])
    held = np.array([[b.low <= rate <= b.high for b in bounds] for rate in rates])
    return (weights * held).sum(1)


@pytest.mark.parametrize("n", [5, 20, 100])
def test_rates_cover(n: int) -> None:
    rates = np.linspace(0.005, 0.995, 397)
    assert coverage_of_rates(clopper_pearson, n, rates).min() >= 0.95
    score = coverage_of_rates(wilson, n, rates)
    assert score.mean() == pytest.approx(0.953, abs=0.012)
    assert score.min() > 0.82


def test_the_coverage_check_catches_the_wald_interval() -> None:
    def wald(k: int, n: int) -> Interval:
        half = 1.96 * math.sqrt(k * (n - k) / n**3)
        return Interval(low=k / n - half, high=k / n + half, level=0.95, method="broken")

    assert coverage_of_rates(wald, 20, np.linspace(0.005, 0.995, 397)).mean() < 0.9


def test_mean_of_the_sleep_data() -> None:
    found = mean_interval(SLEEP)  # as every textbook and R's t.test(extra ~ group, paired = TRUE) prints it
    assert (found.low, found.high) == pytest.approx((0.7001142, 2.4598858), abs=5e-8)
    assert found.method == "Student t"


def test_mean_interval_covers_and_a_normal_quantile_is_caught() -> None:
    repetitions, n = 2500, 5
    samples = np.random.default_rng(11).normal(3.0, 2.0, (repetitions, n))
    hits = sum(not mean_interval(row).excludes(3.0) for row in samples)
    assert covered(hits, repetitions)
    half = 1.959964 * samples.std(1, ddof=1) / math.sqrt(n)
    broken = (np.abs(samples.mean(1) - 3.0) <= half).sum()
    assert not covered(broken, repetitions)


def test_equal_values_need_bounds() -> None:
    with pytest.raises(BadValue, match="1 in all 30 items.*bounds"):
        mean_interval([1.0] * 30)
    found = mean_interval([1.0] * 30, bounds=(0.0, 1.0))
    assert (found.low, found.high) == pytest.approx((0.05 ** (1 / 30), 1.0))  # the one-sided exact bound at k = n
    assert 1 - found.low == pytest.approx(3 / 30, rel=0.06)  # the rule of three
    both = constant_interval(0.0, 10, 0.9, (-1.0, 1.0))
    assert (both.low, both.high) == pytest.approx((-(1 - 0.1**0.1), 1 - 0.1**0.1))
    with pytest.raises(BadValue, match="around the value 2"):
        mean_interval([2.0, 2.0], bounds=(0.0, 1.0))


def test_rounding_noise_is_not_spread() -> None:
    with pytest.raises(BadValue, match="at least two different values"):
        mean_interval([0.1 + 0.2, 0.3, 0.3])


def test_mean_of_nearly_constant_rates_covers_with_bounds() -> None:
    repetitions, n, rate = 4000, 30, 0.97
    samples = np.random.default_rng(5).random((repetitions, n)) < rate
    whole = samples.all(1)
    assert 0.2 < whole.mean() < 0.6
    assert not mean_interval(np.ones(n), bounds=(0, 1)).excludes(rate)  # the honest interval holds the truth where a width of 0 would not


def test_tost_against_statsmodels() -> None:
    for margin, null in ((1.0, 1.5), (0.5, 1.5), (2.5, 0.0)):
        found = tost(SLEEP, margin, null=null)
        p, below, above = DescrStatsW(SLEEP).ttost_mean(null - margin, null + margin)
        assert (found.p, found.p_below, found.p_above) == pytest.approx((p, below[1], above[1]), rel=1e-9)
        assert found.df == 9
        assert found.equivalent == (p < 0.05)


@given(st.floats(-2, 2), st.floats(0.01, 2), st.sampled_from([1.0, 4.0, math.inf]), st.floats(0.01, 3), st.sampled_from([0.01, 0.05]))
def test_tost_says_what_its_interval_says(estimate: float, se: float, df: float, margin: float, alpha: float) -> None:
    found = tost_estimate(estimate, se, df, margin, alpha=alpha)
    interval = equivalence_interval(estimate, se, df, alpha=alpha)
    assert found.interval == interval
    assert interval.level == pytest.approx(1 - 2 * alpha)
    room = min(interval.low + margin, margin - interval.high)
    if abs(room) > 1e-9:
        assert found.equivalent == (room > 0)


@pytest.mark.slow
def test_tost_errs_at_the_margin_as_often_as_alpha() -> None:
    repetitions = 2000
    samples = np.random.default_rng(2).normal(0.5, 1.0, (repetitions, 40))
    wrong = sum(tost(row, 0.5).equivalent for row in samples)  # the truth sits on the margin
    assert covered(repetitions - wrong, repetitions, 0.95)


def test_slope_of_anscombe() -> None:
    # Anscombe 1973, The American Statistician 27:17, table and summary of the first set
    x = [10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5]
    y = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68]
    found = slope(x, y)
    assert found.slope == pytest.approx(0.5, abs=5e-4)
    assert found.intercept == pytest.approx(3.0, abs=5e-4)
    assert found.se == pytest.approx(0.118, abs=5e-4)
    assert found.r**2 == pytest.approx(0.667, abs=5e-4)
    design = np.stack([np.ones(11), np.array(x, dtype=float)], 1)  # the normal equations, solved apart
    beta, rest, *_ = np.linalg.lstsq(design, np.array(y), rcond=None)
    spread = np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * rest[0] / 9)
    assert (found.intercept, found.slope, found.intercept_se, found.se) == pytest.approx((*beta, *spread), rel=1e-9)
    assert (found.df, found.n) == (9, 11)


@pytest.mark.slow
def test_slope_covers() -> None:
    repetitions, rng = 2000, np.random.default_rng(8)
    x = rng.random(6)
    y = 1.0 + 0.3 * x + rng.normal(0, 0.2, (repetitions, 6))
    assert covered(sum(not slope(x, row).interval.excludes(0.3) for row in y), repetitions)


def test_slope_of_lines() -> None:
    level = slope([1, 2, 3], [2, 2, 2])
    assert (level.slope, level.intercept, level.se, level.r) == (0.0, 2.0, 0.0, 0.0)
    with pytest.raises(BadValue, match="se is 0"):
        tost_estimate(level.slope, level.se, level.df, 0.02)
    with pytest.raises(BadValue, match=r"x is '1 in all 3 items'"):
        slope([1, 1, 1], [1, 2, 3])
