"""Per-sample and corpus functions: exact values, ties told, nothing made of nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals import metrics
from workbench.core.errors import BadValue


def test_sums_do_not_depend_on_the_order():
    values = [1e16, 1.0, -1e16, 1e-9]
    assert metrics.total(values) == metrics.total(values[::-1]) == 1.000000001


def test_geometric_mean_is_two_to_the_mean_log2():
    p = [0.5, 0.125]
    assert metrics.geometric_mean([math.log(x) for x in p]) == pytest.approx(2 ** np.mean(np.log2(p)))
    assert metrics.mean_logprob([math.log(0.5), math.log(0.5)]) == pytest.approx(math.log(0.5))


@given(st.floats(-2000, 0), st.floats(-2000, 0))
def test_share_is_stable_and_complementary(a, b):
    assert metrics.share(a, b) + metrics.share(b, a) == pytest.approx(1)
    assert 0 <= metrics.share(a, b) <= 1


def test_ties_are_told():
    """D14: argmax of equal scores is index 0, which is where the gold answer often stands."""
    assert metrics.best([-1.0, -1.0]) is None
    assert metrics.best([-3.0, -1.0, -2.0]) == 1
    assert metrics.prefers(-1.0, -1.0) is None
    assert (metrics.prefers(-1.0, -2.0), metrics.prefers(-2.0, -1.0)) == (1.0, 0.0)
    assert metrics.rank_of([-1.0, -1.0, -2.0], 0) == 2  # an equal score counts against it


def test_exposure_by_hand():
    assert metrics.exposure(1, 1024) == 10
    assert metrics.exposure(1024, 1024) == 0
    assert metrics.exposure(32, 1024) == 5


@pytest.mark.parametrize("size", [2, 100, 10_000])
def test_mean_exposure_by_chance_is_the_mean_over_ranks(size):
    exact = np.mean([metrics.exposure(rank, size) for rank in range(1, size + 1)])
    assert metrics.mean_exposure_by_chance(size) == pytest.approx(exact, rel=1e-9)
    if size == 10_000:
        assert exact == pytest.approx(1 / math.log(2), abs=1e-3)


def test_bits_per_byte_and_perplexity():
    assert metrics.bits_per_byte(8 * math.log(2), 4) == pytest.approx(2)
    assert metrics.perplexity(3 * math.log(7), 3) == pytest.approx(7)
    assert metrics.unigram_bits_per_byte(["abab"]) == pytest.approx(1)
    assert metrics.unigram_bits_per_byte(["é"]) == pytest.approx(1)  # two bytes


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.total([]), lambda: metrics.best([]), lambda: metrics.perplexity(0.0, 0), lambda: metrics.bits_per_byte(0.0, 0),
        lambda: metrics.unigram_bits_per_byte([]), lambda: metrics.exposure(0, 10), lambda: metrics.exposure(11, 10),
    ],
)  # fmt: skip
def test_nothing_gives_an_error_not_a_number(call):
    with pytest.raises(BadValue):
        call()
