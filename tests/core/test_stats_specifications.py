"""Specification curves: planted shares of choice and of sampling are told apart, and luck that all share is no agreement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from workbench.core.errors import BadValue
from workbench.core.stats.specifications import Specification, ratio_of, specification_curve

N = 80


def mean_of(values: np.ndarray, **choices: str) -> Specification:
    return Specification(choices, np.stack([values, np.ones(len(values))], axis=1), ratio_of)


def made(shift: float, noise: float, seed: int = 0) -> list[Specification]:
    """Two choices of two options on the same items: the first moves the value by ``shift``, the second by nothing; each way of scoring adds
    ``noise`` of its own to an item."""
    by = np.random.default_rng(seed)
    items = by.normal(0, 1, N)
    return [
        mean_of(items + shift * (a == "b") + by.normal(0, noise, N), scoring=a, average=b) for a in ("a", "b") for b in ("x", "y")
    ]  # fmt: skip


def test_a_planted_choice_is_its_share() -> None:
    """The variance between ways is (shift/2)² and that of sampling 1/N: half and half at a shift of 2/√N."""
    shares = [specification_curve(made(2 / N**0.5, 0.0, seed), np.arange(N), draws=400).choice_share for seed in range(20)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)
    found = specification_curve(made(2.0, 0.0), np.arange(N))
    assert found.choice_share > 0.95
    assert found.parts["scoring"] == pytest.approx(1.0)
    assert found.parts["average"] == pytest.approx(0.0)


def test_noise_of_a_way_is_not_the_analysts_choice() -> None:
    """Without correction the ways' own noise would count as choice: 0.47 on average, where the truth is 0."""
    found = [specification_curve(made(0.0, 1.5, seed), np.arange(N), draws=400) for seed in range(30)]
    naive = [float(one.values.var()) / (float(one.values.var()) + one.sampling_sd**2) for one in found]
    assert np.mean(naive) > 0.25
    assert np.mean([one.choice_share for one in found]) < np.mean(naive) / 2
    assert np.median([one.choice_share for one in found]) < 0.1


def test_ways_that_agree_share_their_luck() -> None:
    """Four times the same scoring: the median's interval is as wide as one way's, not half as wide."""
    found = specification_curve(made(0.0, 0.0), np.arange(N))
    assert found.interval.high - found.interval.low == pytest.approx(float(found.high[0] - found.low[0]))
    assert found.choice_share == 0


def test_clusters_are_drawn_whole() -> None:
    single = specification_curve(made(0.1, 0.0), np.arange(N))
    copies = np.repeat(np.arange(N), 10)
    many = [Specification(one.choices, one.columns[copies], one.of) for one in made(0.1, 0.0)]
    again = specification_curve(many, copies)
    assert again.clusters == N
    np.testing.assert_allclose(again.low, single.low, atol=1e-12)


def test_undefined_ways_are_dropped_and_listed() -> None:
    nothing = Specification({"scoring": "c", "average": "x"}, np.zeros((N, 2)), ratio_of)
    found = specification_curve([*made(0.1, 0.0), nothing], np.arange(N))
    assert found.dropped == (nothing,)
    assert len(found.values) == 4


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: specification_curve([], []), "at least two"),
        (lambda: specification_curve(made(0, 0)[:1], np.arange(N)), "that are defined"),
        (lambda: specification_curve(made(0, 0), np.zeros(N)), "clusters"),
        (lambda: specification_curve(made(0, 0), np.arange(N - 1)), "length of clusters"),
        (lambda: specification_curve([*made(0, 0), mean_of(np.ones(3), scoring="c", average="x")], np.arange(N)), "same items"),
        (lambda: specification_curve([mean_of(np.full(N, np.nan), scoring="a", average="x")] * 2, np.arange(N)), "same items"),
    ],
)
def test_what_is_no_curve_is_refused(call: Any, says: str) -> None:
    with pytest.raises(BadValue, match=says):
        call()
