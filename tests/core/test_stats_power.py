"""Minimal detectable effects: published sizes, statsmodels, exact enumeration and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.power import TTestIndPower, TTestPower

from workbench.core.errors import BadValue
from workbench.core.stats.power import mde_proportion, minimal_detectable_effect, sample_size, sample_size_proportion


def test_the_known_percentage_points() -> None:
    assert round(100 * mde_proportion(100)) == 14
    assert round(100 * mde_proportion(100, paired=False)) == 20
    assert round(100 * mde_proportion(1508), 1) == 3.6
    assert round(100 * minimal_detectable_effect(100, 0.5)) == 14
    assert round(100 * minimal_detectable_effect(100, 0.5, paired=False)) == 20


def test_cohens_table() -> None:
    # Cohen 1988, Statistical Power Analysis, table 2.4.1 (two-sided 0.05, power 0.80): n in each group for d = 0.2, 0.5, 0.8
    assert [sample_size(d, 1.0, paired=False) for d in (0.2, 0.5, 0.8)] == [394, 64, 26]  # he prints 393 for d = 0.2, by approximation
    assert sample_size(0.5, 1.0) == 34


@pytest.mark.parametrize("n", [8, 50, 3000])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_means_against_statsmodels(n: int, power: float) -> None:
    for paired, theirs in ((True, TTestPower()), (False, TTestIndPower())):
        found = minimal_detectable_effect(n, 2.0, power=power, paired=paired) / 2.0
        assert theirs.power(found, n, alpha=0.05, alternative="two-sided") == pytest.approx(power, abs=1e-4)


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_means_of_few_by_quadrature(n: int, power: float) -> None:
    # statsmodels gives NaN at n = 2; here P(Z + nc > cut · S) is summed over the spread S on a fine grid
    df, cut = n - 1, scipy_stats.t.ppf(0.975, n - 1)
    spread = np.linspace(1e-6, 12, 400_001)
    density = 2 * df * spread * scipy_stats.chi2.pdf(df * spread**2, df)
    nc = minimal_detectable_effect(n, 1.0, power=power) * math.sqrt(n)
    assert np.trapezoid(scipy_stats.norm.sf(cut * spread - nc) * density, spread) == pytest.approx(power, abs=1e-5)


def test_means_grow_into_the_normal_formula() -> None:
    normal = (scipy_stats.norm.ppf(0.975) + scipy_stats.norm.ppf(0.8)) / math.sqrt(1_000_000)
    assert minimal_detectable_effect(1_000_000, 1.0) == pytest.approx(normal, rel=1e-9)
    before, after = minimal_detectable_effect(100_001, 1.0), minimal_detectable_effect(100_002, 1.0)  # either side of the switch
    assert before == pytest.approx(after, rel=3e-5)
    assert before > after


def test_means_are_found_with_the_power_said() -> None:
    repetitions, n = 20_000, 8
    effect = minimal_detectable_effect(n, 3.0)
    samples = np.random.default_rng(1).normal(effect, 3.0, (repetitions, n))
    t = samples.mean(1) / (samples.std(1, ddof=1) / math.sqrt(n))
    assert (t > scipy_stats.t.ppf(0.975, n - 1)).mean() == pytest.approx(0.8, abs=0.01)
    broken = (scipy_stats.norm.ppf(0.975) + scipy_stats.norm.ppf(0.8)) * 3.0 / math.sqrt(n)  # z for t promises too much
    t = (samples - effect + broken).mean(1) / (samples.std(1, ddof=1) / math.sqrt(n))
    assert (t > scipy_stats.t.ppf(0.975, n - 1)).mean() < 0.75


@pytest.mark.parametrize(("n", "p0"), [(400, 0.5), (1508, 0.5), (900, 0.1), (900, 0.9)])
def test_rates_are_found_with_the_power_said(n: int, p0: float) -> None:
    effect = mde_proportion(n, p0)
    truth = p0 + effect if p0 <= 0.5 else p0 - effect
    counts = np.arange(n + 1)
    found = abs(counts / n - p0) > scipy_stats.norm.ppf(0.975) * math.sqrt(p0 * (1 - p0) / n)
    assert scipy_stats.binom.pmf(counts, n, truth)[found].sum() == pytest.approx(0.8, abs=0.025)  # the lattice moves it


def test_two_rates_are_found_with_the_power_said() -> None:
    n, p0 = 300, 0.3
    truth = p0 + mde_proportion(n, p0, paired=False)
    rng = np.random.default_rng(3)
    a, b = rng.binomial(n, p0, 20_000) / n, rng.binomial(n, truth, 20_000) / n
    pooled = (a + b) / 2
    z = (b - a) / np.sqrt(2 * pooled * (1 - pooled) / n)
    assert (z > scipy_stats.norm.ppf(0.975)).mean() == pytest.approx(0.8, abs=0.025)


def test_too_few_can_find_nothing() -> None:
    assert mde_proportion(2, 0.5) == math.inf
    assert mde_proportion(6, 0.5) < 0.5
    with pytest.raises(BadValue, match="n is 1"):
        minimal_detectable_effect(1, 1.0)


@settings(deadline=None, max_examples=60)
@given(st.floats(0.05, 3), st.floats(0.1, 2), st.booleans(), st.sampled_from([0.9, 0.95]), st.sampled_from([0.8, 0.9]))
def test_sample_size_inverts(effect: float, sd: float, paired: bool, level: float, power: float) -> None:
    n = sample_size(effect, sd, level=level, power=power, paired=paired)
    at = lambda m: minimal_detectable_effect(m, sd, level=level, power=power, paired=paired)  # noqa: E731
    assert at(n) <= effect
    assert n == 2 or at(n - 1) > effect


@settings(deadline=None, max_examples=60)
@given(st.floats(0.01, 0.45), st.floats(0.05, 0.95), st.booleans())
def test_sample_size_of_rates_inverts(effect: float, p0: float, paired: bool) -> None:
    n = sample_size_proportion(effect, p0, paired=paired)
    assert mde_proportion(n, p0, paired=paired) <= effect
    assert n == 1 or mde_proportion(n - 1, p0, paired=paired) > effect
    assert mde_proportion(n, p0, paired=paired) == pytest.approx(mde_proportion(n, 1 - p0, paired=paired))
