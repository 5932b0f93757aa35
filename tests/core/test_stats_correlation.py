"""Correlation of values and of ranks: scipy's numbers, an interval that covers, and input that is refused."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from workbench.core.errors import BadValue
from workbench.core.stats.correlation import correlation


@given(st.integers(0, 2**31), st.integers(4, 40), st.floats(-3, 3))
def test_pearson_and_its_interval_are_those_of_scipy(seed: int, n: int, weight: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    y = weight * x + rng.normal(size=n)
    found = correlation(x, y)
    expected: Any = stats.pearsonr(x, y)  # its fields are set at run time
    low, high = expected.confidence_interval(0.95)
    assert found.interval is not None
    assert np.allclose([found.value, found.interval.low, found.interval.high], [expected.statistic, low, high], atol=1e-12)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=4, max_size=30))
def test_spearman_is_that_of_scipy_with_ties(points: list[tuple[int, int]]) -> None:
    x, y = np.array(points, dtype=float).T
    if not np.ptp(x) or not np.ptp(y):
        with pytest.raises(BadValue, match="at least two different values"):
            correlation(x, y, ranks=True)
        return
    found = correlation(x, y, ranks=True)
    expected: Any = stats.spearmanr(x, y)
    assert found.value == pytest.approx(float(expected.statistic), abs=1e-12)
    assert found.interval is None or found.interval.low <= found.value <= found.interval.high


def test_the_interval_of_ranks_covers_the_truth_as_often_as_it_says() -> None:
    """Normal pairs with r = 0.8 have rho = 6 / pi · asin(r / 2)."""
    rng, truth, held = np.random.default_rng(0), 6 / np.pi * np.arcsin(0.4), 0
    for _ in range(1000):
        x = rng.normal(size=30)
        within = correlation(x, 0.8 * x + 0.6 * rng.normal(size=30), ranks=True).interval
        held += within is not None and within.low <= truth <= within.high
    assert 0.93 <= held / 1000 <= 0.97


def test_points_on_a_line_have_no_interval() -> None:
    x = np.arange(6.0)
    assert correlation(x, -2 * x + 1).value == -1
    assert correlation(x, x**3, ranks=True).value == 1
    assert correlation(x, x**3, ranks=True).interval is None


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        ([1, 2, 3], [1, 2, 3], "at least 4"),
        ([1, 2, 3, 4], [1, 2, 3, 4, 5], "y"),
        ([1, 1, 1, 1], [1, 2, 3, 4], "at least two different values"),
        ([1, 2, 3, np.nan], [1, 2, 3, 4], "x"),
    ],
)
def test_bad_input_is_refused(x: list[float], y: list[float], said: str) -> None:
    with pytest.raises(BadValue, match=said):
        correlation(x, y)
