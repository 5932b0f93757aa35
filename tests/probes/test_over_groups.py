"""Gaps between classes with intervals and nulls: against slow twins, and how often they are right."""

from __future__ import annotations

import numpy as np
import pytest

from probes.over_groups import Sampling, gap, gap_null, gap_over_groups, mean_over_groups

HOW = Sampling(0.95, 1000, 0)


def test_the_mean_and_gap_of_groups_and_what_has_no_interval() -> None:
    rng = np.random.default_rng(0)
    values, groups = rng.normal(2, 1, 60), np.repeat(np.arange(20), 3)
    value, low, high = mean_over_groups(values, groups, HOW)
    assert value == pytest.approx(values.mean())
    assert low < value < high
    assert mean_over_groups(np.full(30, 2.5), np.arange(30), HOW) == (2.5, 2.5, 2.5)
    assert np.isnan(mean_over_groups(values, np.repeat([0, 1], 30), HOW)[1:]).all()
    assert np.isnan(mean_over_groups(np.zeros(0), np.zeros(0), HOW)).all()


def test_the_interval_of_a_gap_is_that_of_a_bootstrap_that_takes_it_anew_in_every_draw() -> None:
    rng = np.random.default_rng(1)
    present = rng.random(200) < 0.3
    answers = rng.normal(0, 1, 200) + 2 * present
    value, low, high = gap_over_groups(answers, present, np.arange(200), HOW)
    draws = rng.integers(200, size=(4000, 200))
    slow = [gap(answers[d], present[d]) for d in draws]
    assert value == gap(answers, present)
    assert (low, high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])), abs=0.08)


@pytest.mark.parametrize("kind", ["one class a group", "both in each", "mixed"])
def test_classes_are_dealt_as_the_groups_allow(kind: str) -> None:
    """The null is that of the slow obvious permutation; where groups shift answers together, dealing over items would be too narrow."""
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(30), 2)
    shift = 3 * rng.normal(size=30)[groups]
    answers = shift + 0.1 * rng.normal(size=60)
    present = {"one class a group": groups % 2 == 0, "both in each": np.arange(60) % 2 == 0,
               "mixed": np.concatenate([np.arange(30) % 2 == 0, np.arange(30) < 15])}[kind]  # fmt: skip
    slow = []
    for _ in range(2000):
        if kind == "one class a group":
            dealt = (rng.permutation(30) % 2 == 0)[groups]
        elif kind == "both in each":
            dealt = np.concatenate([rng.permutation([True, False]) for _ in range(30)])
        else:
            dealt = rng.permutation(present)
        slow.append(abs(gap(answers, dealt)))
    null, _ = gap_null(answers, present, groups, HOW)
    assert null == pytest.approx(np.quantile(slow, 0.95), rel=0.12)
    assert gap_null(answers, present, groups, HOW, rounding=99.0) == (99.0, 1.0)
    assert gap_null(answers, present, groups, HOW, fitted=10)[0] == pytest.approx(2 * null)


@pytest.mark.slow
def test_a_gap_closed_on_other_items_is_within_its_null_as_often_as_the_level_says() -> None:
    """Answers are made free of the class on as many other items: the null must know that this was an estimate too."""
    rng, runs, n = np.random.default_rng(3), 120, 60
    narrow = wide = 0
    for run in range(runs):
        present = np.tile([True, False], n)
        answers = rng.normal(size=2 * n) + 1.5 * present
        left = answers[n:] - gap(answers[:n], present[:n]) * present[n:]
        null, _ = gap_null(left, present[n:], np.arange(n), Sampling(0.95, 400, run))
        narrow += abs(gap(left, present[n:])) <= null
        wide += abs(gap(left, present[n:])) <= null * 2**0.5  # which is what ``fitted=n`` gives, see above
    assert wide / runs > 0.91
    assert narrow / runs < 0.9, "without it the null is too narrow"
