"""Samples one by one: flat, by group beside a slow twin, worst first, pairs; and texts that are masked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from evals import SUITES
from workbench.core.errors import UnknownName
from workbench.core.finding import Denominators, Interval
from workbench.core.measure import Generate, Loglikelihood, Moments, Request, Rolling, Sampled
from workbench.core.stats.intervals import mean_interval, wilson
from workbench.lab import samples
from workbench.lab.compare import Comparison, Difference, drawn, means
from workbench.store.runs import Store


def record(name: str, group: str, unscored: str = "", **values: object) -> dict[str, object]:
    return {"sample": name, "epoch": 0, "group": group, "cluster": "", "unscored": unscored, "values": values}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "home")


def filled(store: Store, values: list[float], *, unscored: int = 0) -> str:
    run = store.runs.create("eval", {"suites": {"trigger": {}}}, "run:x")
    rows = [record(f"s{i}", "ab"[i % 2], p=value, right=value > 0.5, two=[value, 1.0]) for i, value in enumerate(values)]
    rows += [record(f"u{i}", "a", "too long") for i in range(unscored)]
    store.sink(run, "trigger").put(rows)
    return run


def test_nested_values_lie_side_by_side() -> None:
    found = samples.flat({"a": {"b": 1, "c": {"d": "x"}}, "pair": [3.0, 1.0], "many": [1, 2, 3], "flags": [True, False]})
    assert found == {
        "a.b": 1, "a.c.d": "x", "pair (first)": 3.0, "pair (second)": 1.0, "pair (first − second)": 2.0, "many": "1, 2, 3",
        "flags": "True, False",
    }  # fmt: skip


def test_groups_are_means_of_the_scored_with_the_field_s_intervals(store: Store) -> None:
    values = [0.1, 0.9, 0.4, 0.8, 0.2, 0.7]
    table = samples.sample_table(store, filled(store, values, unscored=2), "trigger")
    assert len(table) == 8
    assert set(samples.numbers(table)) == {"p", "right", "two (first)", "two (second)", "two (first − second)"}
    found = samples.by_group(table, "p").set_index("group")
    for group, mine in (("a", values[::2]), ("b", values[1::2])):
        wanted = mean_interval(np.array(mine), 0.95)
        assert found.loc[group, "n"] == len(mine), "unscored ones are in no mean"
        assert found.loc[group, "mean"] == pytest.approx(sum(mine) / len(mine))
        assert (found.loc[group, "low"], found.loc[group, "high"]) == pytest.approx((wanted.low, wanted.high))
    rate = samples.by_group(table, "right").set_index("group")
    wanted = wilson(3, 3)
    assert (rate.loc["b", "low"], rate.loc["b", "high"]) == pytest.approx((wanted.low, wanted.high))
    assert "n 3" in str(samples.dots(table, "p").to_dict())


def test_one_sample_has_a_mean_and_no_interval(store: Store) -> None:
    table = samples.sample_table(store, filled(store, [0.3]), "trigger")
    row = samples.by_group(table, "p").iloc[0]
    assert math.isnan(row["low"])
    assert math.isnan(row["high"])
    assert row["n"] == 1


def test_the_worst_stand_first_and_ties_go_by_name(store: Store) -> None:
    table = samples.sample_table(store, filled(store, [0.5, 0.1, 0.9, 0.1], unscored=1), "trigger")
    assert samples.worst(table, "p", lowest=True)["sample"].tolist() == ["s1", "s3", "s0", "s2"]
    assert samples.worst(table, "p", lowest=False, most=2)["sample"].tolist() == ["s2", "s0"]
    with pytest.raises(UnknownName, match="among the samples' numbers"):
        samples.worst(table, "cluster", lowest=True)


def test_pairs_that_differ_most_stand_first_and_equal_ones_nowhere(store: Store) -> None:
    first, second = filled(store, [0.1, 0.5, 0.9]), filled(store, [0.2, 0.5, 0.1])
    found = samples.discordant(store, (first, second), "trigger", "p")
    assert found["sample"].tolist() == ["s2", "s0"]
    assert found["difference"].tolist() == pytest.approx([-0.8, 0.1])


@pytest.mark.parametrize(
    ("request_", "shown", "prompt"),
    [
        (Generate("say"), [("prompt, to be continued", "say")], "say"),
        (Sampled("say", 3), [("prompt, to be continued", "say")], "say"),
        (Rolling("text", "before"), [("context", "before"), ("text, scored whole", "text")], "before"),
        (Moments("text"), [("text, scored whole", "text")], "text"),
        (Loglikelihood("", ("a", "b")), [("continuation 1", "a"), ("continuation 2", "b")], "a"),
    ],
)
def test_every_kind_of_request_can_be_shown(request_: Request, shown: list[tuple[str, str]], prompt: str) -> None:
    assert samples._parts(request_) == shown
    assert samples._prompt([request_]) == prompt
    assert len(get_args(Request)) == 5, "a new kind of request is shown too"


def test_a_mask_says_how_long_and_nothing_else() -> None:
    assert set(samples.masked("one two-three, 4!")) == {"▇", " "}
    assert len(samples.masked("one two three").split()) == 3
    assert samples.masked("") == "▇"
    assert samples.warning_of("crows-pairs.audited")
    assert not samples.warning_of("trigger")
    assert samples.warning_of("refusal") == "harmful requests", "a suite that is not called as its set is masked too"
    assert set(samples.WARNED) < set(SUITES)
    assert samples.warning_of("robustness")


def test_a_difference_claims_only_what_its_interval_does() -> None:
    def one(low: float, high: float) -> Difference:
        return Difference("p", 0.5, 0.5 + (low + high) / 2, (low + high) / 2, Interval(low=low, high=high, method="x"), None, 10, 10)

    assert "excludes 0: the second is higher" in means(one(0.1, 0.3))
    assert "excludes 0: the second is lower" in means(one(-0.3, -0.1))
    assert "no difference is shown; one of up to 0.3 is not ruled out" in means(one(-0.1, 0.3))
    bare = Difference("q", 0.5, 0.6, 0.1, None, 0.03, 4, 4, "no interval: 4 clusters are too few")
    assert "is not known: 4 clusters are too few." in means(bare)
    whole = Comparison("trigger", "a", "b", Denominators(run=4, scored=4), (one(0.1, 0.3), bare), ())
    assert isinstance(drawn(whole).to_dict(), dict)
    assert pd.notna(whole.differences[0].difference)
