"""Points in rows: before and after a change, and groups beside the whole. Shape and words carry what colour does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from workbench.core.charts import palette
from workbench.core.charts.frame import Titles, altair, checked, data, headline, number, title_of, titled

_WIDTH, _WHEN = 320, ("before", "after")
_HUES = [palette.VERDICTS["inconclusive"][0], palette.PALETTE[0]]


def before_after(
    frame: pd.DataFrame, label: str, before: str, after: str, *, titles: Titles, written: Callable[[float], str] = number
) -> Any:  # fmt: skip
    """A row each: a circle before, a diamond after, and a line between them; the numbers, as ``written``, stand at the right."""
    alt = altair()
    taken = checked(frame, [label], [before, after])
    rows = pd.DataFrame({"label": [f"{i}: {name}" for i, name in enumerate(taken[label])], "before": taken[before], "after": taken[after]})
    rows["words"] = [f"{written(b)} → {written(a)}" for b, a in zip(rows["before"], rows["after"], strict=True)]
    cut = "slice(datum.label, indexof(datum.label, ': ') + 2)"  # names may repeat, so rows are numbered and the numbers not shown
    axis = alt.Axis(grid=False, ticks=False, domain=False, labelPadding=8, labelFontSize=12, labelExpr=cut)
    down = alt.Y("label:N", sort=rows["label"].tolist(), axis=axis, title=titled(titles, label))
    across: dict[str, Any] = {"title": titled(titles, after), "scale": alt.Scale(zero=True), "axis": alt.Axis(tickCount=5)}
    base = alt.Chart(data(rows)).encode(y=down)
    long = pd.concat([rows.assign(when=name, value=rows[name]) for name in _WHEN])
    key = lambda channel, looks: channel("when:N", scale=alt.Scale(domain=list(_WHEN), range=looks), legend=_legend(alt))  # noqa: E731
    points = alt.Chart(data(long)).mark_point(filled=True, size=90, opacity=1).encode(
        y=down, x=alt.X("value:Q", **across), shape=key(alt.Shape, ["circle", "diamond"]), color=key(alt.Color, _HUES),
        tooltip=["label:N", "when:N", "words:N"],
    )  # fmt: skip
    layers = [
        base.mark_rule(strokeWidth=2, style="quiet").encode(x=alt.X("before:Q", **across), x2="after:Q"),
        points,
        base.mark_text(align="left", fontSize=11, style="ink").encode(x=alt.value(_WIDTH + 14), text="words:N"),
    ]
    said = "; ".join(f"{name}: {words}" for name, words in zip(taken[label], rows["words"], strict=True))
    whole = alt.layer(*layers).properties(width=_WIDTH, height=alt.Step(22), title=headline(alt, title_of(titles)))
    return whole.properties(description=f"Before and after: {said}.")


def _legend(alt: Any) -> Any:
    return alt.Legend(title=None, orient="bottom", symbolSize=90)
