"""Means of different items: scipy's Welch interval, coverage with clusters, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from workbench.core.errors import BadValue
from workbench.core.stats.unpaired import unpaired_interval


def test_without_clusters_it_is_welchs_interval() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1.0, 2.0, 23), rng.normal(0.0, 0.5, 60)
    found = unpaired_interval(a, b, level=0.9)
    said = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.9)
    np.testing.assert_allclose([found.low, found.high], [said.low, said.high], rtol=1e-12)
    assert found.method == "Welch t, unpaired"
    each = unpaired_interval(a, b, clusters_a=range(23), clusters_b=range(60), level=0.9)
    np.testing.assert_allclose([each.low, each.high], [found.low, found.high], rtol=1e-12)


def test_clusters_widen_it_and_it_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    held = narrow = 0
    of = np.repeat(np.arange(20), 5)
    for _ in range(400):
        a, b = (np.repeat(rng.normal(size=20), 5) + 0.3 * rng.normal(size=100) for _ in range(2))
        found = unpaired_interval(a, b, clusters_a=of, clusters_b=of)
        held += found.low <= 0 <= found.high
        bare = unpaired_interval(a, b)
        narrow += bare.low <= 0 <= bare.high
    assert stats.binomtest(held, 400, 0.95).pvalue > 1e-3
    assert narrow < 320, "items of one cluster taken for independent ones promise too much"


def test_what_has_no_interval_is_refused() -> None:
    with pytest.raises(BadValue, match="the number of units of a is 1, but it must be at least 2"):
        unpaired_interval([1.0, 2.0], [1.0, 2.0], clusters_a=["x", "x"])
    with pytest.raises(BadValue, match="the spread of both sides"):
        unpaired_interval([1.0, 1.0], [2.0, 2.0])
    with pytest.raises(BadValue, match="NaN"):
        unpaired_interval([1.0, float("nan")], [2.0, 3.0])
