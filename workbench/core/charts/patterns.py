"""One attention pattern as plain values, for a view that lays any of its rows over the words without asking again.

A weight travels as a whole number of 1/65535, so what is read off it is within 1/131070 of the weight. Of a long text only the largest
weights of each row travel, since all of them would be megabytes.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt16

from workbench.core.charts import palette
from workbench.core.charts.heat import shown
from workbench.core.charts.multiples import LARGE, picture_of
from workbench.core.errors import BadValue

WHOLE, MOST = 512, 12
"""Queries and keys up to which every weight travels, and how many of a row do beyond."""
UNIT, SHADES = 65535, 32


def counted(weights: Float[np.ndarray, "*any"]) -> UInt16[np.ndarray, "*any"]:
    """Weights as whole numbers of 1/65535. Raises BadValue for what is no attention weight."""
    found = np.asarray(weights)
    low, high = found.min(initial=0.0), found.max(initial=0.0)
    if not (np.isfinite(found.sum()) and low >= 0 and high <= 1 + 1e-4):
        raise BadValue("the weights", "outside 0 … 1 or not finite", "attention weights between 0 and 1")
    return np.rint(np.minimum(found, 1.0) * np.float64(UNIT)).astype("<u2")


def pattern_view(
    counts: UInt16[np.ndarray, "query key"], queries: Sequence[str], keys: Sequence[str], *, title: str
) -> dict[str, Any]:  # fmt: skip
    """The pattern of which ``counts`` are the weights as ``counted``: a picture of it, its tokens as they are shown, and its weights
    (``weights`` ``[query, key]``, or of a long text ``top_key`` and ``top_weight`` ``[query, rank]``), each as little-endian 16-bit numbers
    in base64."""
    if counts.shape != (len(queries), len(keys)) or not counts.size:
        raise BadValue("the shape of the weights", counts.shape, f"[query, key] = ({len(queries)}, {len(keys)}), neither empty")
    found = counts / UNIT
    out: dict[str, Any] = {
        "title": title, "queries": [shown(token) for token in queries], "keys": [shown(token) for token in keys],
        "picture": picture_of(found, LARGE), "unit": UNIT, "shades": _shades(), "ramp": list(palette.SEQUENTIAL),
        "note": _note(found), "whole": max(found.shape) <= WHOLE,
    }  # fmt: skip
    if out["whole"]:
        return out | {"weights": _packed(counts)}
    top = _strongest(counts)
    return out | {"top_key": _packed(top.astype("<u2")), "top_weight": _packed(np.take_along_axis(counts, top, axis=1))}


def _strongest(counts: np.ndarray) -> np.ndarray:
    """Of each row the ``MOST`` keys of the largest counts, largest first; of equal ones the first key first."""
    keys = np.arange(counts.shape[1], dtype=np.int64)
    ranked = counts.astype(np.int64) * counts.shape[1] + keys[::-1]  # no two are equal, so a partition has one answer
    most = min(MOST, counts.shape[1])
    top = np.argpartition(-ranked, most - 1, axis=1)[:, :most]
    order = np.argsort(-np.take_along_axis(ranked, top, axis=1), axis=1)
    return np.take_along_axis(top, order, axis=1)


def _packed(numbers: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(numbers).tobytes()).decode()


def _shades() -> list[list[str]]:
    """Colours from no weight to all of it, each with the ink that can be read on it."""
    fills = [palette.blend(palette.SEQUENTIAL, i / SHADES) for i in range(SHADES + 1)]
    return [[fill, palette.ink_on(fill)] for fill in fills]


def _note(weights: np.ndarray) -> str:
    rows, columns = weights.shape
    largest = "" if max(rows, columns) <= LARGE else " A square shows the largest weight in it."
    return f"{rows:,} by {columns:,} weights.{largest}"
