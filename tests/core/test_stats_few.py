"""The mean of items in few clusters: Student's t of equal clusters, coverage of unequal ones, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from workbench.core.errors import BadValue
from workbench.core.stats.few import few_clusters_interval


def test_clusters_of_one_size_have_students_interval_of_their_means() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, (5, 6))
    found = few_clusters_interval(values.ravel(), np.repeat(np.arange(5), 6), level=0.9)
    said = stats.ttest_1samp(values.mean(1), 0.0).confidence_interval(0.9)
    np.testing.assert_allclose([found.low, found.high], [said.low, said.high], rtol=1e-12)
    assert found.method == "Student t of 5 clusters"


def test_it_covers_as_often_as_it_says_with_four_clusters_and_more_than_items_taken_for_independent() -> None:
    rng, of = np.random.default_rng(1), np.repeat(np.arange(4), [3, 4, 4, 5])
    held = narrow = 0
    for _ in range(600):
        values = rng.normal(size=4)[of] + 0.3 * rng.normal(size=16)
        found = few_clusters_interval(values, of)
        held += found.low <= 0 <= found.high
        bare = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        narrow += bare.low <= 0 <= bare.high
    assert stats.binomtest(held, 600, 0.95).pvalue > 1e-3
    assert narrow < 420


def test_what_has_no_interval_is_refused() -> None:
    with pytest.raises(BadValue, match="the number of units of values is 1, but it must be at least 2"):
        few_clusters_interval([1.0, 2.0], ["x", "x"])
    with pytest.raises(BadValue, match="the spread between clusters"):
        few_clusters_interval([1.0, 1.0], ["x", "y"])
