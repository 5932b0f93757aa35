"""Many attention patterns at once, and one of a long text: as small pictures, since a mark a weight would be millions of marks.

A picture's square is the largest weight of the weights in it, so that a single strong one is never averaged away.
"""

from __future__ import annotations

import base64
from functools import cache

import numpy as np
from jaxtyping import Float, UInt8

from workbench.core.charts import palette
from workbench.core.charts.picture import indexed_png
from workbench.core.errors import BadValue

SIDE, LARGE = 32, 512
"""Squares a side, at most: of one small picture, and of a large one."""
_SHADES = 256


def pooled(weights: Float[np.ndarray, "*lead query key"], side: int) -> Float[np.ndarray, "*lead row column"]:
    """The largest weight in each of at most ``side`` by ``side`` blocks; NaN (padding) counts as none."""
    if weights.ndim < 2 or not all(weights.shape[-2:]):
        raise BadValue("the shape of the weights", weights.shape, "[…, query, key], neither empty")
    found = np.nan_to_num(weights, nan=0.0) if np.isnan(weights.sum()) else weights
    for axis in (-2, -1):
        length = found.shape[axis]
        if length > side and length % side == 0:
            split = (*found.shape[:axis], side, length // side, *(found.shape[-1:] if axis == -2 else ()))
            found = found.reshape(split).max(axis=axis)  # the same blocks, several times as fast
        elif length > side:
            starts = (np.arange(side) * length) // side
            found = np.maximum.reduceat(found, starts, axis=axis)
    return found


def picture_of(weights: Float[np.ndarray, "query key"], side: int = SIDE) -> str:
    """One pattern as a picture (a ``data:`` address): white for no weight, the palette's darkest for 1."""
    shades = np.rint(np.clip(pooled(weights, side), 0, 1) * (_SHADES - 1)).astype(np.uint8)
    return f"data:image/png;base64,{base64.b64encode(indexed_png(shades, _colours())).decode()}"


@cache
def _colours() -> UInt8[np.ndarray, "shade channel"]:
    shades = [palette.blend(palette.SEQUENTIAL, i / (_SHADES - 1)) for i in range(_SHADES)]
    return np.array([[int(one[i : i + 2], 16) for i in (1, 3, 5)] for one in shades], dtype=np.uint8)
