"""A circuit as a drawing: parts of a model from the embedding up, and the edges between them. What an edge goes into is its hue and its
dash, and its width is its share of the strongest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from workbench.core.charts import palette
from workbench.core.charts.frame import Titles, altair, checked, data, headline, number, title_of
from workbench.core.errors import BadValue

INTO = ("q", "k", "v", "rest")
_WORDS = {"q": "a query", "k": "a key", "v": "a value", "rest": "an MLP or the logits"}
_END = re.compile(r"L(?P<layer>\d+)(?:(?P<mlp>MLP)|(?P<kind>[HG])(?P<number>\d+)(?:\.(?P<port>[qkv]))?)")
_STEP, _ROW = 74, 52
EMBED, LOGITS = "embed", "logits"


def place_of(name: str) -> tuple[str, float, float, str]:
    """A part's own name, how high it stands (layers count two: heads, then MLP), its number in the row, and what of it is entered.

    Raises BadValue for a name that is no part of an edge graph.
    """
    if name in (EMBED, LOGITS):
        return name, (0.0 if name == EMBED else float("inf")), 0.0, "rest"
    match = _END.fullmatch(name)
    if match is None:
        raise BadValue("a part", name, "embed, logits, or written as L0H1, L0MLP or L1H0.q")
    layer = int(match["layer"])
    if match["mlp"]:
        return name, 2.0 * layer + 2, 0.0, "rest"
    return f"L{layer}{match['kind']}{match['number']}", 2.0 * layer + 1, float(match["number"]), match["port"] or "rest"


def wiring(frame: pd.DataFrame, writer: str, reader: str, score: str, *, titles: Titles) -> Any:
    """One row an edge; ``score`` above or below zero (its size is the width). ``titles`` holds ``title`` and ``note``."""
    alt = altair()
    taken = checked(frame, [writer, reader], [score])
    ends = {name: place_of(str(name)) for name in [*taken[writer], *taken[reader]]}
    highest = max((height for _, height, _, _ in ends.values() if height != float("inf")), default=0.0)
    wide = 1 + max(column for _, _, column, _ in ends.values())
    at = {part: (_across(part, column, wide), min(height, highest + 1)) for part, height, column, _ in ends.values()}
    top = max((abs(float(value)) for value in taken[score]), default=0.0) or 1.0
    edges = pd.DataFrame(
        [
            {"x": at[a][0], "y": at[a][1], "x2": at[b][0], "y2": at[b][1], "into": _WORDS[port], "wide": 0.8 + 4.2 * abs(value) / top,
             "words": f"{u} → {v}: {number(float(value))}"}
            for u, v, value in zip(taken[writer], taken[reader], taken[score], strict=True)
            for a, b, port in [(ends[u][0], ends[v][0], ends[v][3])]
        ]
    )  # fmt: skip
    parts = pd.DataFrame([{"x": x, "y": y, "part": part} for part, (x, y) in at.items()])
    used = [_WORDS[port] for port in INTO if _WORDS[port] in set(edges["into"])]
    looks = {_WORDS[port]: (palette.PALETTE[i], list(palette.DASHES[i])) for i, port in enumerate(INTO)}
    axis = {"axis": None, "scale": alt.Scale(nice=False, padding=30)}
    rules = alt.Chart(data(edges)).mark_rule(opacity=0.9).encode(
        x=alt.X("x:Q", **axis), y=alt.Y("y:Q", **axis), x2="x2:Q", y2="y2:Q",
        color=alt.Color("into:N", scale=alt.Scale(domain=used, range=[looks[one][0] for one in used]), legend=_legend(alt)),
        strokeDash=alt.StrokeDash("into:N", scale=alt.Scale(domain=used, range=[looks[one][1] for one in used]), legend=_legend(alt)),
        strokeWidth=alt.StrokeWidth("wide:Q", scale=None), tooltip=alt.Tooltip("words:N", title="edge"),
    )  # fmt: skip
    base = alt.Chart(data(parts)).encode(x=alt.X("x:Q", **axis), y=alt.Y("y:Q", **axis))
    boxes = base.mark_point(shape="square", size=1500, filled=True, opacity=1, color=palette.SEQUENTIAL[1], stroke=palette.EDGE)
    names = base.mark_text(fontSize=11, color=palette.ink_on(palette.SEQUENTIAL[1])).encode(text="part:N")
    said = f"{len(edges)} edges between {len(parts)} parts: {_told(edges['words'].tolist())}."
    return alt.layer(rules, boxes, names).properties(
        width=max(260, round(_STEP * (wide + 1))), height=max(200, round(_ROW * (highest + 2))),
        title=headline(alt, title_of(titles), titles.get("note", "")), description=said,
    )  # fmt: skip


def _across(part: str, column: float, wide: float) -> float:
    """Heads stand side by side, an MLP at their right, embedding and logits in the middle."""
    if part in (EMBED, LOGITS):
        return (wide - 1) / 2
    return wide if part.endswith("MLP") else column


def _legend(alt: Any) -> Any:
    return alt.Legend(title="an edge into", orient="bottom", symbolType="stroke", symbolSize=300)


def _told(words: Sequence[str], most: int = 12) -> str:
    rest = len(words) - most
    return "; ".join(words[:most]) + (f"; and {rest} more" if rest > 0 else "")
