"""Curves of something that goes on: many points, few series worth a colour, the rest in the background."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from workbench.core.charts import palette
from workbench.core.charts.frame import Titles, altair, checked, headline, number, title_of, titled
from workbench.core.errors import BadValue, UnknownName

MOST = len(palette.PALETTE)
Rows = list[dict[str, Any]]
_MARKED, _WIDTH, _HEIGHT = 60, 560, 240


def curves(
    frame: pd.DataFrame, x: str, y: str, of: str, *, titles: Titles, named: Sequence[str] | None = None,
    levels: Mapping[str, float] = {}, zero: bool = False,
) -> Any:  # fmt: skip
    """A line for each value of ``of``; those in ``named`` (None: all; at most six) have a hue, a dash and a place in the legend, the
    others are thin and grey. ``levels``: dashed lines across, by the words beside them. ``zero``: the axis begins at 0 or below. Series of
    few points have their points marked.

    ``y`` may hold NaN: there the line is left out, and a series without any value has none. ``titles`` holds ``title`` and words for
    columns. Raises BadValue and UnknownName.
    """
    alt = altair()
    points = checked(frame, [of], [x], [y])
    series = list(dict.fromkeys(points[of].astype(str)))
    chosen = series if named is None else list(named)
    if odd := [name for name in chosen if name not in series]:
        raise UnknownName("series", odd[0], series, where="in the chart's frame")
    if len(chosen) > MOST:
        raise BadValue("the number of named series", len(chosen), f"at most {MOST}", do="Name fewer; the others are drawn without a name.")
    each = zip(points[x].tolist(), points[y].tolist(), points[of].astype(str), strict=True)
    rows = [{"x": at, "y": value, "series": name, "words": number(value)} for at, value, name in each if not math.isnan(value)]
    across = alt.X(
        "x:Q", title=titled(titles, x), scale=alt.Scale(zero=False, nice=False, padding=8), axis=alt.Axis(grid=False, tickCount=6)
    )
    up = {"title": titled(titles, y), "scale": alt.Scale(zero=zero)}
    other = [row for row in rows if row["series"] not in chosen]
    layers = [_background(alt, other, across, up)] if other else []
    layers += [_series(alt, [row for row in rows if row["series"] == name], place, across, up) for place, name in enumerate(chosen)]
    layers += [
        _marks(
            alt,
            [row for row in rows if row["series"] in chosen],
            chosen,
            across,
            up,
            titles=(titled(titles, x), titled(titles, y), titled(titles, of)),
        )
    ]
    layers += [layer for words, value in levels.items() for layer in _level(alt, words, value)]
    said = f"{titled(titles, y)} over {titled(titles, x)}, {len(rows)} points in {len(series)} series."
    return alt.layer(*layers).properties(width=_WIDTH, height=_HEIGHT, title=headline(alt, title_of(titles)), description=said)


def _background(alt: Any, rows: Rows, across: Any, up: dict[str, Any]) -> Any:
    lines = alt.Chart(_inline(alt, rows)).mark_line(strokeWidth=1, opacity=0.45, color=palette.EDGE)
    return lines.encode(x=across, y=alt.Y("y:Q", **up), detail="series:N")


def _series(alt: Any, rows: Rows, place: int, across: Any, up: dict[str, Any]) -> Any:
    """One line in a layer of its own: as a shared scale the dashes would spoil the legend's symbols."""
    look = {"strokeWidth": 2, "color": palette.PALETTE[place], "strokeDash": palette.DASHES[place]}
    line = alt.Chart(_inline(alt, rows)).mark_line(**look)
    return line.encode(x=across, y=alt.Y("y:Q", **up))


def _marks(alt: Any, rows: Rows, chosen: list[str], across: Any, up: dict[str, Any], *, titles: tuple[str, str, str]) -> Any:
    """The points, which carry legend and tooltip; of a long series they are there to be pointed at, and not drawn."""
    counts = Counter(row["series"] for row in rows)
    rows = [row | {"shown": int(counts[row["series"]] <= _MARKED)} for row in rows]
    legend = alt.Legend(title=titles[2] or None, orient="bottom", symbolSize=90, symbolOpacity=1, columns=3) if len(chosen) > 1 else None
    key = lambda channel, looks: channel("series:N", scale=alt.Scale(domain=chosen, range=list(looks)[: len(chosen)]), legend=legend)  # noqa: E731
    return (
        alt.Chart(_inline(alt, rows))
        .mark_point(filled=True, size=40)
        .encode(
            x=across, y=alt.Y("y:Q", **up), opacity=alt.Opacity("shown:Q", scale=None, legend=None),
            color=key(alt.Color, palette.PALETTE), shape=key(alt.Shape, palette.SHAPES),
            tooltip=[alt.Tooltip("x:Q", title=titles[0]), alt.Tooltip("words:N", title=titles[1]), "series:N"],
        )
    )  # fmt: skip


def _inline(alt: Any, rows: Rows) -> Any:
    return alt.InlineData(values=rows)


def _level(alt: Any, words: str, value: float) -> list[Any]:
    at = alt.Chart(alt.InlineData(values=[{"at": value, "words": words}]))
    line = at.mark_rule(strokeDash=[5, 4], strokeWidth=1.5, style="quiet").encode(y="at:Q")
    text = at.mark_text(style="quiet", fontSize=11, align="left", dx=6)
    return [line, text.encode(y="at:Q", x=alt.value("width"), text="words:N")]
