"""The table beside a chart: it has the numbers that are drawn, and few enough to read."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from workbench.core.result import Result
from workbench.lab.figure_tables import MOST_ROWS, drawn_table

RNG = np.random.default_rng(0)


def pattern(*, items: int = 3, heads: int = 4, positions: int = 9, first: str = "the", picture: bool = False) -> Result:
    names = np.array([[first, *(f"w{n}" for n in range(positions - 1))]] * items, dtype=object)
    weights = RNG.dirichlet(np.ones(positions), size=(2, heads, items, positions))
    weights[:, :, :, -1, :] = np.nan  # a position that is not there
    values = xr.Dataset(
        {
            "pattern": (("layer", "head", "batch", "query", "key"), weights),
            "row_error": (("layer", "head", "batch", "query"), weights.sum(-1) - 1),
            "query_token": (("batch", "query"), names),
            "key_token": (("batch", "key"), names),
        },
        coords={"layer": [0, 1], "head": range(heads), "batch": range(items), "query": range(positions), "key": range(positions)},
        attrs={"picture": {"along": "key"}} if picture else {},
    )
    return Result("attention-pattern", values)


def test_of_each_head_the_strongest_weights_of_the_drawn_item_are_told() -> None:
    result = pattern()
    table = drawn_table(result, "attention-pattern, audited model")
    assert table.columns == ("layer", "head", "query", "query_token", "key", "key_token", "pattern")
    assert table.caption == "The numbers of: attention-pattern, audited model, the 7 strongest of each layer and head"
    assert len(table.rows) == 2 * 4 * 7 <= MOST_ROWS
    assert table.note == "", "nothing is cut off behind the reader's back"
    for layer in (0, 1):
        for head in range(4):
            drawn = result.values.pattern.values[layer, head, 0]
            told = [float(str(row[6])) for row in table.rows if row[:2] == (layer, head)]
            assert sorted(told) == np.sort(drawn[np.isfinite(drawn)])[-7:].tolist()


def test_over_a_picture_it_is_what_the_class_token_reads() -> None:
    told = drawn_table(pattern(first="class", picture=True), "t").rows
    assert {row[3] for row in told} == {"class"}
    assert len({row[3] for row in drawn_table(pattern(first="class"), "t").rows}) > 1, "a word of a text may be 'class' too"


def test_of_each_drawn_item_the_strongest_attributions_are_told_and_no_padding() -> None:
    items, positions = 12, 20
    real = np.arange(positions)[None] < np.array([20] * 11 + [4])[:, None]
    strengths = RNG.normal(size=(items, positions))
    values = xr.Dataset(
        {
            "attribution": (("batch", "pos"), strengths), "is_token": (("batch", "pos"), real), "steps": ("batch", np.full(items, 64)),
            "token": (("batch", "pos"), np.array([[f"w{n}" for n in range(positions)]] * items, dtype=object)),
        },
        coords={"batch": range(items), "pos": range(positions)},
    )  # fmt: skip
    table = drawn_table(Result("occlusion", values), "t")
    assert table.columns == ("batch", "pos", "token", "attribution")
    assert {row[0] for row in table.rows} == set(range(8)), "the items that the chart draws"
    for item in range(8):
        told = sorted(abs(float(str(row[3]))) for row in table.rows if row[0] == item)
        assert told == np.sort(np.abs(strengths[item]))[-7:].tolist()
    short = drawn_table(Result("occlusion", values.isel(batch=[11])), "t")
    assert (len(short.rows), short.caption) == (4, "The numbers of: t"), "all of them, so nothing is said of the strongest"


def test_of_many_heads_those_that_are_drawn_are_told() -> None:
    table = drawn_table(pattern(heads=40, positions=4), "t")
    assert {row[:2] for row in table.rows} == {(0, head) for head in range(8)}
    assert (table.caption, table.note) == ("The numbers of: t, the 7 strongest of each layer and head", "")


@pytest.mark.parametrize("measure", ["rollout", "flow"])
def test_of_attention_through_all_layers_the_last_is_told(measure: str) -> None:
    whole = RNG.random((3, 2, 4, 4))
    names = np.array([[f"w{n}" for n in range(4)]] * 2, dtype=object)
    values = xr.Dataset(
        {
            measure: (("layer", "batch", "query", "key"), whole),
            "query_token": (("batch", "query"), names), "key_token": (("batch", "key"), names),
        },
        coords={"layer": range(3), "batch": range(2), "query": range(4), "key": range(4)},
    )  # fmt: skip
    table = drawn_table(Result("attention-rollout", values), "t")
    assert table.columns == ("layer", "query", "query_token", "key", "key_token", measure)
    assert {row[0] for row in table.rows} == {2}
    assert [row[5] for row in table.rows] == whole[2, 0].ravel().tolist()


def test_of_what_a_model_wrote_each_number_stands_with_the_written_token() -> None:
    strengths = RNG.normal(size=(6, 2, 3))
    values = xr.Dataset(
        {
            "attribution": (("batch", "generated", "pos"), strengths),
            "generated_token": (("batch", "generated"), np.array([["x", "y"]] * 6, dtype=object)),
            "token": (("batch", "pos"), np.array([["a", "b", "c"]] * 6, dtype=object)),
        },
        coords={"batch": range(6), "generated": range(2), "pos": range(3)},
    )  # fmt: skip
    table = drawn_table(Result("generation-attribution", values), "t")
    assert table.columns == ("batch", "generated", "generated_token", "pos", "token", "attribution")
    assert {row[0] for row in table.rows} == set(range(4)), "the items that the chart draws"
    assert {(row[0], row[1], row[3]): row[5] for row in table.rows} == {
        (item, step, pos): strengths[item, step, pos] for item in range(4) for step in range(2) for pos in range(3)
    }


def test_what_is_the_same_in_every_row_is_told_once_and_what_was_measured_keeps_its_column() -> None:
    values = xr.Dataset(
        {
            "accuracy": ("site", [1.0, np.nan, 1.0]), "n_test": ("site", [90, 90, 90]), "low": ("site", [0.4, 0.1, 0.123456]),
            "gap": ("site", [3e-5, 0.0, 2e-5]), "labels": ("site", ["class"] * 3),
        },
        coords={"site": ["a", "b", "c"]},
    )  # fmt: skip
    table = drawn_table(Result("probing", values), "t")
    assert table.columns == ("site", "accuracy", "low", "gap"), "all accuracies are 1, and that is what was found"
    assert table.rows == (("a", 1.0, 0.4, 3e-5), ("c", 1.0, 0.123456, 2e-5)), "the page chooses the digits"
    assert table.caption == "The numbers of: t, n_test 90, labels class in every row"
