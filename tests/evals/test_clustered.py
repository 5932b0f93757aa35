"""Clustered statistics: the same as their definitions, none where they are undefined, no interval where it cannot be honest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.clustered import between, mean_of, statistic_of, sums_by
from workbench.core.errors import BadValue
from workbench.core.stats.resampling import bootstrap, ratio
from workbench.core.stats.unpaired import unpaired_interval

SHARE = (0.0, 1.0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-5, 5), st.integers(0, 5)), min_size=1, max_size=30))
def test_sums_are_those_of_a_loop(rows):
    names = sorted({name for name, _, _ in rows})
    expected = [[sum(r[k] for r in rows if r[0] == name) for k in (1, 2)] for name in names]
    assert sums_by([r[1:] for r in rows], [r[0] for r in rows]).tolist() == expected


def test_a_mean_has_the_interval_of_its_clusters_and_leaves_out_what_is_not_there():
    rng = np.random.default_rng(0)
    values, names = rng.random(60), np.repeat([f"c{k}" for k in range(10)], 6)
    found = mean_of(np.append(values, np.nan), np.append(names, "alone"), bounds=(0.0, 1.0))
    direct = bootstrap(values, clusters=names, bounds=(0.0, 1.0))
    assert (found.value, found.interval, found.n, found.units) == (direct.value, direct.interval, 60, 10)
    assert found.detectable is not None
    assert found.detectable > 0
    assert found.plain() == {"value": found.value, "low": direct.interval.low, "high": direct.interval.high, "n": 60, "clusters": 10}


def test_few_clusters_give_a_value_and_no_interval():
    found = mean_of([0.0, 1.0] * 50, ["a", "b"] * 50, bounds=(0.0, 1.0))
    assert (found.value, found.interval, found.units) == (0.5, None, 2)
    assert not found.above(-1.0)
    assert mean_of([np.nan], ["a"], bounds=(0.0, 1.0)).value is None


def test_equal_values_have_an_interval_of_some_width():
    found = mean_of([1.0] * 20, [f"c{k}" for k in range(20)], bounds=(0.0, 1.0))
    assert found.interval is not None
    assert found.interval.low < 1.0 == found.interval.high
    assert found.above(0.5)


def test_a_quotient_is_undefined_without_a_denominator_and_without_interval_where_a_draw_is():
    rows = np.array([[1.0, 2.0]] * 5 + [[0.0, 1.0]] * 5)
    found = statistic_of(rows, ratio, bounds=SHARE, n=15)
    assert found.value == pytest.approx(5 / 15)
    assert found.interval is not None
    assert found.interval.low <= 5 / 15 <= found.interval.high
    assert statistic_of(rows * [1.0, 0.0], ratio, bounds=SHARE).value is None
    sparse = np.array([[1.0, 1.0]] + [[0.0, 0.0]] * 9)  # most draws have nothing to divide by
    assert (statistic_of(sparse, ratio, bounds=SHARE).value, statistic_of(sparse, ratio, bounds=SHARE).interval) == (1.0, None)
    assert statistic_of(np.zeros((0, 2)), ratio, bounds=SHARE).value is None
    assert statistic_of(rows[:3], ratio, bounds=SHARE).interval is None


def test_a_quotient_that_every_cluster_agrees_on_is_certain_to_a_degree():
    """No draw can vary: a width of 0 would claim certainty, and no interval would call the plainest case undecided."""
    rows = np.array([[3.0, 3.0]] * 10)
    found = statistic_of(rows, ratio, bounds=SHARE)
    assert found.value == 1.0
    assert found.interval is not None
    assert 0.7 < found.interval.low < 1.0 == found.interval.high
    idle = np.concatenate([rows[:6], np.zeros((4, 2))])  # four clusters without a denominator say nothing
    fewer = statistic_of(idle, ratio, bounds=SHARE).interval
    assert fewer is not None
    assert fewer.low < found.interval.low
    assert statistic_of(idle[1:], ratio, bounds=SHARE).interval is None  # five


def test_one_value_that_moves_does_not_make_a_difference_certain() -> None:
    """Fifteen voices without an error do not prove the sixteenth: what is alike keeps the width that its number leaves."""
    alike, moved, none = [0.5] * 15, [0.5] * 14 + [0.45], [0.0] * 15
    both, one = between(alike, none, 0.95, (0.0, 1.0)), between(moved, none, 0.95, (0.0, 1.0))
    open_still = 1 - 0.025 ** (1 / 15)  # the share of voices that may differ from fifteen alike, at 97.5 %
    assert both.low == pytest.approx(0.5 * (1 - open_still) - open_still)
    assert one.low < np.mean(moved) - open_still
    assert one.high > np.mean(moved)
    at_null = between(none, [*none[1:], 0.05], 0.95, (0.0, 1.0))
    assert at_null.high > 0.2
    varied = between([0.1, 0.4, 0.3], [0.2, 0.0, 0.1], 0.95, (0.0, 1.0))
    assert varied == unpaired_interval([0.1, 0.4, 0.3], [0.2, 0.0, 0.1], level=0.95)
    with pytest.raises(BadValue, match="at least 2"):
        between([0.1], none, 0.95, (0.0, 1.0))
