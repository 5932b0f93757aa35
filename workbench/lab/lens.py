"""A logit lens as a grid to press, and what a model says at one place of its stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from workbench.core.charts.cells import cells
from workbench.core.charts.heat import shown
from workbench.core.errors import BadValue

LENS = "logit-lens"
MOST = 48
"""Positions in a grid at most: of a longer text the last ones."""


def positions(result: Any) -> np.ndarray:
    """The places (along ``pos``) of item 0 that are shown."""
    return np.flatnonzero(result.values.isel(batch=0).position.values >= 0)[-MOST:]


def lens_grid(result: Any) -> dict[str, Any]:
    """Item 0: at each place the likeliest answer, coloured by its probability; the end of the stream stands on top."""
    item, kept = result.values.isel(batch=0), positions(result)
    first = item.isel(top=0, pos=kept)
    sites = [str(site).replace("blocks.", "").replace("hook_", "") for site in item.site.values]
    tokens = [str(token) or "answer" for token in item.token.values[kept]]
    order = np.arange(len(sites))[::-1]
    words = first.top_answer.transpose("site", "pos").values[order]
    values = np.exp(first.top_logprob.transpose("site", "pos").values[order])
    title = "The likeliest answer at each place of the stream" + (f" (the last {MOST} positions)" if len(kept) == MOST else "")
    return cells(values, [sites[i] for i in order], tokens, title=title, unit="probability", words=[[str(w) for w in row] for row in words],
                 top=1.0)  # fmt: skip


def lens_place(result: Any, row: int, column: int) -> tuple[str, pd.DataFrame]:
    """The likeliest answers at one cell of the grid, with words for the place."""
    item, kept = result.values.isel(batch=0), positions(result)
    depth = len(item.site) - 1 - row
    if not (0 <= depth < len(item.site) and 0 <= column < len(kept)):
        raise BadValue("the cell", (row, column), "one of the grid's")
    here = item.isel(site=depth, pos=kept[column])
    answers = [shown(str(word)) for word in here.top_answer.values]
    frame = pd.DataFrame({"answer": answers, "probability": np.exp(here.top_logprob.values)})
    token = shown(str(item.token.values[kept[column]]) or "answer")
    return f"{here.site.item()} at position {int(here.position)} ({token}): {float(here.kl):.3g} nats from the model's own answer", frame
