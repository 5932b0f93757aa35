"""The numbers beside a chart of an instrument: those that it draws, in rows that a reader can use. The stored result holds all of them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from workbench.core.result import Result
from workbench.reports.report import Table

MOST_ROWS = 60
DRAWN_ITEMS = 8
"""Items that a chart of attributions draws at most."""
_STRENGTHS = {"attribution": ("batch",), "pattern": ("layer", "head"), "rollout": ("layer",)}
"""What is drawn as colours, and by what its maps are divided."""
_ASIDE = {
    "attribution": ("batch", "pos", "token", "attribution"),
    "pattern": ("layer", "head", "query", "query_token", "key", "key_token", "pattern"),
    "rollout": ("layer", "query", "query_token", "key", "key_token", "rollout"),
}
"""The columns that say which cell of a map it is, and how strong."""


def drawn_table(result: Result, title: str) -> Table:
    """The table of ``result``'s own chart. Of maps the strongest cells of each, as many as leave room for all; of anything else its rows.
    A whole number or a word that is the same in all of them is told once, in the caption; what was measured keeps its column."""
    frame = result.to_frame()
    caption = f"The numbers of: {title}"
    for value, maps in _STRENGTHS.items():
        if value in frame and set(_ASIDE[value]) <= set(frame.columns):
            of_class = value == "pattern" and "picture" in result.values.attrs and bool((frame["query_token"] == "class").any())
            frame, each = _strongest(frame, value, maps, of_class)
            words = f", the {each} strongest of each {' and '.join('item' if name == 'batch' else name for name in maps)}"
            return Table.from_frame(frame, f"{caption}{words if each else ''}", most=MOST_ROWS)
    measured = [name for name in ("accuracy",) if name in frame]
    frame = frame.dropna(subset=measured) if measured else frame
    alike = [name for name in frame.columns if len(frame) > 1 and _told_once(frame[name])]
    said = "".join(f", {name} {frame[name].iloc[0]}" for name in alike if str(frame[name].iloc[0]))
    return Table.from_frame(frame.drop(columns=alike), f"{caption}{said}{' in every row' if said else ''}", most=MOST_ROWS)


def _told_once(column: pd.Series) -> bool:
    """Whether a column says the same in every row and is no measured quantity, which are floats."""
    return not pd.api.types.is_float_dtype(column) and len(set(column.astype(str).tolist())) == 1


def _strongest(frame: pd.DataFrame, value: str, maps: tuple[str, ...], of_class: bool) -> tuple[pd.DataFrame, int]:
    """The cells that are drawn, in their order, and how many of each map; 0 where that is all. ``of_class``: over a picture, what the class
    token reads is drawn, where there is one."""
    items = list(dict.fromkeys(frame["batch"].tolist()))[: DRAWN_ITEMS if "batch" in maps else 1]
    shown = np.isin(frame["batch"].to_numpy(), items) & np.isfinite(frame[value].to_numpy(dtype=np.float64))
    if of_class:
        shown &= frame["query_token"].to_numpy() == "class"
    if "is_token" in frame:
        shown &= frame["is_token"].to_numpy(dtype=bool)
    drawn = frame.loc[shown, list(_ASIDE[value])]
    groups = drawn.groupby(list(maps), sort=False)
    each = max(1, MOST_ROWS // max(1, groups.ngroups))
    rank = drawn[value].abs().groupby([drawn[name] for name in maps]).rank(method="first", ascending=False)
    kept = drawn.loc[rank <= each]
    return kept, each if len(kept) < len(drawn) else 0
