"""The numbers beside a chart of an instrument: those that it draws, in rows that a reader can use. The stored result holds all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from probes.attention_pattern import MOST_MAPS
from probes.generation_result import MOST_PANELS
from workbench.core.result import Result
from workbench.reports.report import Table

MOST_ROWS = 60
DRAWN_ITEMS = 8
"""Items that a chart of attributions draws at most."""
_STRENGTHS = {
    "attribution": (("batch",), "each item"), "pattern": (("layer", "head"), "each layer and head"),
    "rollout": (("layer",), "the last layer"), "flow": (("layer",), "the last layer"),
}  # fmt: skip
"""What is drawn as colours, by what its maps are divided, and that in words."""
_LAST = ("rollout", "flow")
"""Of these the last layer is drawn."""
_ASIDE = {
    "attribution": ("batch", "pos", "token", "attribution"),
    "pattern": ("layer", "head", "query", "query_token", "key", "key_token", "pattern"),
    "rollout": ("layer", "query", "query_token", "key", "key_token", "rollout"),
    "flow": ("layer", "query", "query_token", "key", "key_token", "flow"),
}
"""The columns that say which cell of a map it is, and how strong."""
_WRITTEN = ("generated", "generated_token")
"""Of an attribution of what a model wrote, the written token that was asked about."""


def drawn_table(result: Result, title: str) -> Table:
    """The table of ``result``'s own chart. Of maps the strongest cells of each, as many as leave room for all; of anything else its rows.
    A whole number or a word that is the same in all of them is told once, in the caption; what was measured keeps its column."""
    frame = result.to_frame()
    caption = f"The numbers of: {title}"
    for value, (maps, of) in _STRENGTHS.items():
        if value in frame and set(_ASIDE[value]) <= set(frame.columns):
            of_class = value == "pattern" and "picture" in result.values.attrs and bool((frame["query_token"] == "class").any())
            frame, each = _strongest(frame, value, maps, of_class)
            return Table.from_frame(frame, f"{caption}{f', the {each} strongest of {of}' if each else ''}", most=MOST_ROWS)
    measured = [name for name in ("accuracy",) if name in frame]
    frame = frame.dropna(subset=measured) if measured else frame
    alike = [name for name in frame.columns if len(frame) > 1 and _told_once(frame[name])]
    said = "".join(f", {name} {frame[name].iloc[0]}" for name in alike if str(frame[name].iloc[0]))
    return Table.from_frame(frame.drop(columns=alike), f"{caption}{said}{' in every row' if said else ''}", most=MOST_ROWS)


def _told_once(column: Any) -> bool:
    """Whether a column says the same in every row and is no measured quantity, which are floats."""
    return not pd.api.types.is_float_dtype(column) and len(set(column.astype(str).tolist())) == 1


def _strongest(frame: pd.DataFrame, value: str, maps: tuple[str, ...], of_class: bool) -> tuple[pd.DataFrame, int]:
    """The cells that are drawn, in their order, and how many of each map; 0 where that is all. ``of_class``: over a picture, what the class
    token reads is drawn, where there is one."""
    written = [name for name in _WRITTEN if value == "attribution" and name in frame]
    most = 1 if "batch" not in maps else MOST_PANELS if written else DRAWN_ITEMS
    items = list(dict.fromkeys(frame["batch"].tolist()))[:most]
    shown = np.isin(frame["batch"].to_numpy(), items) & np.isfinite(frame[value].to_numpy(dtype=np.float64))
    if value in _LAST:
        shown &= frame["layer"].to_numpy() == frame["layer"].max()
    if value == "pattern":
        heads = list(zip(frame["layer"].tolist(), frame["head"].tolist(), strict=True))
        first = set(list(dict.fromkeys(heads))[:MOST_MAPS])
        shown &= np.array([head in first for head in heads])
    if of_class:
        shown &= frame["query_token"].to_numpy() == "class"
    if "is_token" in frame:
        shown &= frame["is_token"].to_numpy(dtype=bool)
    drawn = frame.loc[shown, [_ASIDE[value][0], *written, *_ASIDE[value][1:]]]
    groups = drawn.groupby(list(maps), sort=False)
    each = max(1, MOST_ROWS // max(1, groups.ngroups))
    rank = drawn[value].abs().groupby([drawn[name] for name in maps]).rank(method="first", ascending=False)
    kept = drawn.loc[rank <= each]
    return kept, each if len(kept) < len(drawn) else 0
