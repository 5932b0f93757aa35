"""A grid of values as plain values, for a grid that can be walked by keyboard and pressed: words, colours and what a reader is told.

Colour is never alone: a cell has words, and one below zero says so with a dashed border.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from workbench.core.charts import palette
from workbench.core.charts.frame import number, short
from workbench.core.charts.heat import shown
from workbench.core.errors import BadValue


def cells(
    values: Float[np.ndarray, "row column"], rows: Sequence[str], columns: Sequence[str], *, title: str, unit: str, signed: bool = False,
    words: Sequence[Sequence[str]] | None = None, top: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The grid. NaN is a cell without a value. ``words``: what stands in each cell (None: its number). ``top``: the value of the darkest
    colour (None: the largest there is). ``signed`` colours about zero."""
    found = np.asarray(values, dtype=float)
    if found.shape != (len(rows), len(columns)) or not found.size:
        raise BadValue("the shape of the values", found.shape, f"[row, column] = ({len(rows)}, {len(columns)}), neither empty")
    known = found[np.isfinite(found)]
    high = top if top is not None else float(np.abs(known).max()) if known.size else 1.0
    high = high if high > 0 else 1.0
    scale = palette.DIVERGING if signed else palette.SEQUENTIAL
    names = [shown(column) for column in columns]
    out = []
    for i, row in enumerate(rows):
        line = []
        for j, name in enumerate(names):
            value = float(found[i, j])
            if not np.isfinite(value):
                line.append({"words": "–", "fill": "", "ink": "", "said": f"{row}, {name}: no value", "below": False})
                continue
            fill = palette.blend(scale, (value / high + 1) / 2 if signed else value / high)
            said = f"{row}, {j} {name}: {number(value, signed=signed)}"
            what = shown(words[i][j]) if words is not None else short(value, signed=signed)
            said = f"{row}, {j} {name}: {what}, {number(value, signed=signed)}" if words is not None else said
            line.append({"words": what, "fill": fill, "ink": palette.ink_on(fill), "said": said, "below": signed and value < 0})
        out.append(line)
    ends = [number(-high if signed else 0.0, signed=signed), number(high, signed=signed)]
    return {"title": title, "unit": unit, "rows": list(rows), "columns": names, "cells": out, "ends": ends, "ramp": list(scale)}


def pictures(sources: Sequence[Sequence[str]], said: Sequence[Sequence[str]], rows: Sequence[str], columns: Sequence[str], *,
             title: str, unit: str) -> dict[str, Any]:  # fmt: skip
    """The same of pictures (``data:`` addresses), such as all heads of a model; '' where there is none."""
    if len(sources) != len(rows) or any(len(line) != len(columns) for line in sources):
        raise BadValue("the pictures", [len(line) for line in sources], f"{len(rows)} rows of {len(columns)}")
    bare = {"words": "", "fill": "", "ink": "", "below": False}
    pairs = [list(zip(line, tells, strict=True)) for line, tells in zip(sources, said, strict=True)]
    out = [[{**bare, "picture": source, "said": tell} for source, tell in line] for line in pairs]
    ramp = {"ends": ["0", "1"], "ramp": list(palette.SEQUENTIAL)}
    return {"title": title, "unit": unit, "rows": list(rows), "columns": list(columns), "cells": out, **ramp}
