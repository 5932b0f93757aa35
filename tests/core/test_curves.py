"""Curves: every series is there, named ones in colour, gaps stay gaps, and what cannot be drawn is refused."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from workbench.core.charts.curves import MOST, curves
from workbench.core.charts.svg import to_svg
from workbench.core.errors import BadValue, UnknownName

TITLES = {"title": "Something", "step": "step", "value": "unit", "of": ""}


def frame(series: int = 3, points: int = 4) -> pd.DataFrame:
    rows = [(f"s{n}", at, n + at / 10) for n in range(series) for at in range(points)]
    return pd.DataFrame(rows, columns=["of", "step", "value"])


def drawn(chart: Any) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each layer's mark with its rows."""
    whole = chart.to_dict()
    at = lambda layer: layer["data"].get("values") or whole["datasets"][layer["data"]["name"]]  # noqa: E731
    return [(layer["mark"], at(layer)) for layer in whole["layer"]]


def test_every_named_series_has_its_line_and_its_points() -> None:
    layers = drawn(curves(frame(), "step", "value", "of", titles=TITLES))
    lines = [(mark["color"], [(row["x"], row["y"]) for row in rows]) for mark, rows in layers if mark["type"] == "line"]
    assert len({colour for colour, _ in lines}) == 3
    assert [points for _, points in lines] == [[(at, n + at / 10) for at in range(4)] for n in range(3)]
    ((_, points),) = [layer for layer in layers if layer[0]["type"] == "point"]
    assert [row["shown"] for row in points] == [1] * 12


def test_points_of_a_long_series_are_not_drawn_and_those_of_a_short_one_beside_it_are() -> None:
    long, short = frame(1, 200), pd.DataFrame({"of": "few", "step": [10, 20], "value": [1.0, 2.0]})
    layers = drawn(curves(pd.concat([long, short]), "step", "value", "of", titles=TITLES))
    ((_, points),) = [layer for layer in layers if layer[0]["type"] == "point"]
    assert {(row["series"], row["shown"]) for row in points} == {("s0", 0), ("few", 1)}


def test_the_unnamed_are_in_the_background_and_levels_lie_across() -> None:
    chart = curves(frame(9), "step", "value", "of", titles=TITLES, named=["s8", "s2"], levels={"chance": 0.5, "planted": 2.0}, zero=True)
    layers = drawn(chart)
    faint = [rows for mark, rows in layers if mark["type"] == "line" and mark.get("opacity")]
    assert len(faint) == 1
    assert {row["series"] for row in faint[0]} == {f"s{n}" for n in range(9)} - {"s2", "s8"}
    assert [rows[0] for mark, rows in layers if mark["type"] == "rule"] == [{"at": 0.5, "words": "chance"}, {"at": 2.0, "words": "planted"}]
    assert chart.to_dict()["description"] == "unit over step, 36 points in 9 series."
    assert "planted" in to_svg(chart, desc="x")


def test_what_is_not_known_is_left_out() -> None:
    table = frame(2)
    table.loc[table["of"] == "s1", "value"] = math.nan
    table.loc[1, "value"] = math.nan
    layers = drawn(curves(table, "step", "value", "of", titles=TITLES))
    lines = [[row["x"] for row in rows] for mark, rows in layers if mark["type"] == "line"]
    assert lines == [[0, 2, 3], []]


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(BadValue, match=f"the number of named series is {MOST + 1}, but it must be at most {MOST}"):
        curves(frame(MOST + 1), "step", "value", "of", titles=TITLES)
    with pytest.raises(UnknownName, match="no series 's7'"):
        curves(frame(), "step", "value", "of", titles=TITLES, named=["s7"])
    with pytest.raises(UnknownName, match="no column 'values'"):
        curves(frame(), "step", "values", "of", titles=TITLES)
    with pytest.raises(BadValue, match="infinite"):
        curves(frame().assign(value=math.inf), "step", "value", "of", titles=TITLES)
    with pytest.raises(BadValue, match="empty"):
        curves(frame(0), "step", "value", "of", titles=TITLES)
