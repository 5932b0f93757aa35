"""Many attention patterns at once, and one of a long text: as small pictures, since a mark a weight would be millions of marks.

A picture's square is the largest weight of the weights in it, so that a single strong one is never averaged away.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from workbench.core.charts import palette
from workbench.core.charts.frame import altair, headline
from workbench.core.charts.heat import legend, shown
from workbench.core.charts.picture import png
from workbench.core.errors import BadValue

SIDE, LARGE = 48, 512
"""Squares a side, at most: of one small picture, and of a large one."""
_SHADES = 256


def pooled(weights: Float[np.ndarray, "*lead query key"], side: int) -> Float[np.ndarray, "*lead row column"]:
    """The largest weight in each of at most ``side`` by ``side`` blocks; NaN (padding) counts as none."""
    if weights.ndim < 2 or not all(weights.shape[-2:]):
        raise BadValue("the shape of the weights", weights.shape, "[…, query, key], neither empty")
    found = np.nan_to_num(weights, nan=0.0)
    for axis in (-2, -1):
        length = found.shape[axis]
        if length > side:
            starts = (np.arange(side) * length) // side
            found = np.maximum.reduceat(found, starts, axis=axis)
    return found


def picture_of(weights: Float[np.ndarray, "query key"], side: int = SIDE) -> str:
    """One pattern as a picture (a ``data:`` address): white for no weight, the palette's darkest for 1."""
    return f"data:image/png;base64,{base64.b64encode(png(_shaded(pooled(weights, side)))).decode()}"


def _shaded(weights: Float[np.ndarray, "row column"]) -> UInt8[np.ndarray, "row column channel"]:
    return _table()[(np.clip(weights, 0, 1) * (_SHADES - 1)).round().astype(int)]


@cache
def _table() -> UInt8[np.ndarray, "shade channel"]:
    shades = [palette.blend(palette.SEQUENTIAL, i / (_SHADES - 1)) for i in range(_SHADES)]
    return np.array([[int(one[i : i + 2], 16) for i in (1, 3, 5)] for one in shades], dtype=np.uint8)


def pattern_picture(weights: Float[np.ndarray, "query key"], tokens: Sequence[str], *, title: str, size: int = 560) -> Any:
    """One head's pattern over a text too long for a mark a weight: a picture with positions on both axes, ``size`` pixels wide."""
    alt = altair()
    queries, keys = weights.shape
    if len(tokens) != queries:
        raise BadValue("the number of tokens", len(tokens), f"that of queries, {queries}")
    tall = max(120, round(size * queries / keys))
    source = alt.Chart(alt.InlineData(values=[{"source": picture_of(weights, LARGE)}]))
    mark: dict[str, Any] = {"width": size, "height": tall, "aspect": False, "align": "left", "baseline": "top", "smooth": False}
    image = source.mark_image(**mark).encode(x=alt.value(0), y=alt.value(0), url=alt.Url("source:N"))
    ends = alt.Chart(alt.InlineData(values=[{"x": 0, "y": 0, "w": 0.0}, {"x": keys, "y": queries, "w": 1.0}]))
    ramp = alt.Scale(domain=[i / (len(palette.SEQUENTIAL) - 1) for i in range(len(palette.SEQUENTIAL))], range=list(palette.SEQUENTIAL))
    axes = ends.mark_point(opacity=0).encode(
        x=alt.X("x:Q", title="key (read from), position", scale=alt.Scale(domain=[0, keys], nice=False), axis=alt.Axis(grid=False)),
        y=alt.Y("y:Q", title="query (reads), position", scale=alt.Scale(domain=[queries, 0], nice=False), axis=alt.Axis(grid=False)),
        color=alt.Color("w:Q", scale=ramp, legend=legend(alt, "attention weight")),
    )
    note = f"{queries:,} by {keys:,} weights; a square shows the largest in it."
    said = f"{note} From {shown(tokens[0])} to {shown(tokens[-1])}."
    return alt.layer(axes, image).properties(width=size, height=tall, title=headline(alt, title, note), description=said)
