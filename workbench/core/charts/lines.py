"""Estimates with their intervals: curves with a band, forest plots, bars. The numbers stand beside the marks."""

from __future__ import annotations

import textwrap
from typing import Any

import pandas as pd

from workbench.core.charts import palette
from workbench.core.charts.frame import Titles, altair, checked, data, estimate, headline, number, title_of, titled
from workbench.core.errors import BadValue

_WIDTH, _LABEL_LETTERS, _LINE = 420, 46, 14


def curve_with_band(
    frame: pd.DataFrame, x: str, y: str, low: str, high: str, colour: str | None = None, *, titles: Titles, reference: float | None = None
) -> Any:  # fmt: skip
    """A line with its interval as a band, for each value of ``colour``; a series has a hue, a dash and a shape.

    ``low`` and ``high`` may hold NaN (no interval there). ``titles`` holds ``title``, words for columns, and ``reference``:
    the words beside the dashed line at that value (chance, a baseline).
    """
    alt = altair()
    points = checked(frame, [colour] if colour else [], [x, y], [low, high])
    _ordered(points, y, low, high)
    series = list(dict.fromkeys(points[colour].astype(str))) if colour else ["one"]
    if len(series) > len(palette.PALETTE):
        raise BadValue("the number of series", len(series), f"at most {len(palette.PALETTE)}", do="Draw fewer in one chart.")
    points = pd.DataFrame(
        {
            "x": points[x], "y": points[y], "low": points[low], "high": points[high],
            "series": points[colour].astype(str) if colour else "one",
            "words": [estimate(*row) for row in zip(points[y], points[low], points[high], strict=True)],
        }
    ).sort_values("x", kind="stable")  # fmt: skip
    legend = alt.Legend(title=titled(titles, colour), orient="bottom", symbolSize=90) if colour else None
    key = lambda channel, chosen: channel("series:N", scale=alt.Scale(domain=series, range=chosen[: len(series)]), legend=legend)  # noqa: E731
    colours, shapes = list(palette.PALETTE), list(palette.SHAPES)
    base = alt.Chart(data(points)).encode(
        x=alt.X(
            "x:Q", title=titled(titles, x), scale=alt.Scale(zero=False, nice=False, padding=8), axis=_counting(alt, points["x"].tolist())
        ),
    )
    up = {"title": titled(titles, y), "scale": alt.Scale(zero=False)}
    layers = [
        *_bands_and_lines(alt, base, series, up),
        base.mark_point(filled=True, size=46, opacity=1).encode(
            y=alt.Y("y:Q", **up), color=key(alt.Color, colours), shape=key(alt.Shape, shapes),
            tooltip=[alt.Tooltip("x:Q", title=titled(titles, x)), alt.Tooltip("words:N", title=titled(titles, y)), "series:N"],
        ),
    ]  # fmt: skip
    if reference is not None:
        layers += _reference(alt, "y", reference, titles.get("reference", ""))
    said = f"{titled(titles, y)} over {titled(titles, x)}, {len(points)} points in {len(series)} series."
    return alt.layer(*layers).properties(width=560, height=280, title=headline(alt, title_of(titles)), description=said)


def _bands_and_lines(alt: Any, base: Any, series: list[str], up: dict[str, Any]) -> list[Any]:
    """All bands, then all lines, in one layer a series: as shared scales they would spoil the legend's symbols."""
    looks = list(zip(series, palette.PALETTE, palette.DASHES, strict=False))
    bands = [
        base.mark_area(opacity=0.18, color=hue, line=False)
        .encode(y=alt.Y("low:Q", **up), y2="high:Q")
        .transform_filter(alt.datum.series == name)
        for name, hue, _ in looks
    ]
    lines = [
        base.mark_line(strokeWidth=2, color=hue, strokeDash=dash).encode(y=alt.Y("y:Q", **up)).transform_filter(alt.datum.series == name)
        for name, hue, dash in looks
    ]
    return bands + lines


def forest(
    frame: pd.DataFrame, label: str, effect: str, low: str, high: str, *, null: float | None, titles: Titles, verdict: str | None = None
) -> Any:  # fmt: skip
    """Effects with their intervals, one row each in the order given, a line at ``null``, the numbers at the right.

    ``low`` and ``high`` may be NaN: the point is then hollow and its numbers say so. With ``verdict`` (a column) each row
    has the verdict's shape and hue and ends in its words. ``titles`` holds ``title``, words for columns, and ``null``.
    """
    return _forest(frame, (label, effect, low, high), null, titles, verdict, log=False)


def forest_of_sizes(frame: pd.DataFrame, label: str, size: str, low: str, high: str, *, titles: Titles) -> Any:
    """The same along a logarithmic axis, for sizes above 0, without a null. Raises BadValue for one that is not."""
    return _forest(frame, (label, size, low, high), None, titles, None, log=True)


def _forest(
    frame: pd.DataFrame, columns: tuple[str, str, str, str], null: float | None, titles: Titles, verdict: str | None, *, log: bool
) -> Any:
    label, effect, low, high = columns
    alt = altair()
    rows = checked(frame, [label, *([verdict] if verdict else [])], [effect], [low, high])
    _ordered(rows, effect, low, high)
    words = rows[verdict].astype(str) if verdict else pd.Series(["effect"] * len(rows))
    looks = [palette.VERDICTS.get(w, (palette.PALETTE[0], "circle")) for w in words]
    rows = pd.DataFrame(
        {
            "label": _labels(rows[label].tolist()), "effect": rows[effect], "low": rows[low], "high": rows[high], "verdict": words,
            "colour": [c for c, _ in looks], "shape": [s for _, s in looks],
            "words": [estimate(*row) for row in zip(rows[effect], rows[low], rows[high], strict=True)],
        }
    )  # fmt: skip
    rows["solid"] = [c if known else "none" for c, known in zip(rows["colour"], rows["low"].notna(), strict=True)]
    base = _rows(alt, rows)
    across = {"title": titled(titles, effect), "scale": alt.Scale(zero=False, padding=10), "axis": alt.Axis(tickCount=6)}
    if log:
        if (rows[["effect", "low"]].min() <= 0).any():
            raise BadValue("the smallest number of a logarithmic axis", float(rows[["effect", "low"]].min().min()), "above 0")
        across["scale"] = alt.Scale(type="log", padding=10)
    colour = alt.Color("colour:N", scale=None)
    known = "isValid(datum.low)"
    layers = [] if null is None else _reference(alt, "x", null, titles.get("null", f"null: {number(null)}"))
    bounded = base.transform_filter(known)
    layers += [
        bounded.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", **across), x2="high:Q", color=colour),
        *(
            bounded.mark_tick(thickness=2, opacity=1, size=9, orient="vertical").encode(x=alt.X(f"{end}:Q", **across), color=colour)
            for end in ("low", "high")
        ),
        base.mark_point(size=80, opacity=1, strokeWidth=2).encode(
            x=alt.X("effect:Q", **across), shape=alt.Shape("shape:N", scale=None), stroke=alt.Stroke("colour:N", scale=None),
            fill=alt.Fill("solid:N", scale=None), tooltip=["label:N", "words:N", *(["verdict:N"] if verdict else [])],
        ),
        *_names(alt, base, rows),
        _beside(alt, base, "words", 14, 12),
    ]  # fmt: skip
    if verdict:
        layers.append(_beside(alt, base, "verdict", 24 + 6.4 * max(map(len, rows["words"])), 12))
    return alt.layer(*layers).properties(
        width=_WIDTH, height=_row_height(alt, rows), title=headline(alt, title_of(titles)), description=_said(rows, titled(titles, effect))
    )


def bars_with_interval(
    frame: pd.DataFrame, label: str, value: str, low: str, high: str, *, titles: Titles, reference: float | None = None
) -> Any:  # fmt: skip
    """Horizontal bars from zero in the order given, each with its interval and its numbers at the right; NaN bounds: no interval."""
    alt = altair()
    rows = checked(frame, [label], [value], [low, high])
    _ordered(rows, value, low, high)
    rows = pd.DataFrame(
        {
            "label": _labels(rows[label].tolist()), "effect": rows[value], "low": rows[low], "high": rows[high], "zero": 0.0,
            "words": [estimate(*row) for row in zip(rows[value], rows[low], rows[high], strict=True)],
        }
    )  # fmt: skip
    base = _rows(alt, rows)
    across = {"title": titled(titles, value), "scale": alt.Scale(zero=True), "axis": alt.Axis(tickCount=6)}
    known = "isValid(datum.low)"
    layers = [
        base.mark_bar(height=16, color=palette.PALETTE[0], opacity=1).encode(
            x=alt.X("zero:Q", **across), x2="effect:Q", tooltip=["label:N", "words:N"]
        ),
        base.mark_rule(strokeWidth=2, style="ink").encode(x=alt.X("low:Q", **across), x2="high:Q").transform_filter(known),
        *(
            base.mark_tick(thickness=2, opacity=1, size=9, orient="vertical", style="ink")
            .encode(x=alt.X(f"{end}:Q", **across))
            .transform_filter(known)
            for end in ("low", "high")
        ),
        *_names(alt, base, rows),
        _beside(alt, base, "words", 14, 12),
    ]
    if reference is not None:
        layers += _reference(alt, "x", reference, titles.get("reference", ""))
    return alt.layer(*layers).properties(
        width=_WIDTH, height=_row_height(alt, rows), title=headline(alt, title_of(titles)), description=_said(rows, titled(titles, value))
    )


def _rows(alt: Any, rows: pd.DataFrame) -> Any:
    hidden = alt.Axis(grid=False, ticks=False, domain=False, labels=False, title=None)
    return alt.Chart(data(rows)).encode(y=alt.Y("label:N", sort=rows["label"].tolist(), axis=hidden))


def _names(alt: Any, base: Any, rows: pd.DataFrame) -> list[Any]:
    """The rows' names at the left as marks: an axis would hang a name of several lines from its first line."""
    counts = sorted({label.count("\n") for label in rows["label"].tolist()})
    looks = {"align": "right", "fontSize": 12, "lineHeight": _LINE, "lineBreak": "\n", "style": "ink"}
    return [
        base.mark_text(dy=-breaks * _LINE / 2, **looks)
        .encode(x=alt.value(-10), text="label:N")
        .transform_filter(f"length(split(datum.label, '\\n')) == {breaks + 1}")
        for breaks in counts
    ]


def _beside(alt: Any, base: Any, column: str, offset: float, size: int) -> Any:
    return base.mark_text(align="left", fontSize=size, style="ink").encode(x=alt.value(_WIDTH + offset), text=f"{column}:N")


def _reference(alt: Any, axis: str, value: float, words: str) -> list[Any]:
    """A dashed line across the plot, with its words at the end of it."""
    at = alt.Chart(alt.InlineData(values=[{"at": value, "words": words}]))
    line = at.mark_rule(strokeDash=[5, 4], strokeWidth=1.5, style="quiet")
    text = at.mark_text(style="quiet", fontSize=11)
    if axis == "x":
        return [line.encode(x="at:Q"), *([text.copy().encode(x="at:Q", y=alt.value(-8), text="words:N")] if words else [])]
    place = at.mark_text(style="quiet", fontSize=11, align="left", dx=6)
    return [line.encode(y="at:Q"), *([place.encode(y="at:Q", x=alt.value(560), text="words:N")] if words else [])]


def _counting(alt: Any, values: list[float]) -> Any:
    """Whole-number ticks for layers and steps."""
    whole = all(v == round(v) for v in values)
    return alt.Axis(grid=False, tickMinStep=1, format=",d") if whole else alt.Axis(grid=False)


def _ordered(rows: pd.DataFrame, value: str, low: str, high: str) -> None:
    if bad := int((rows[low].isna() != rows[high].isna()).to_numpy().sum()):
        raise BadValue("the count of rows with one bound only", bad, "0")
    outside = (rows[low] > rows[value] + 1e-9) | (rows[value] > rows[high] + 1e-9)
    if bad := int(outside.to_numpy().sum()):
        raise BadValue("the count of rows whose value lies outside its interval", bad, "0", do="Are the columns in the right order?")


def _labels(names: list[Any]) -> list[str]:
    """The names of the rows, broken into lines rather than cut; each must be its own."""
    lines = ["\n".join(textwrap.wrap(str(name), _LABEL_LETTERS)) or "(no name)" for name in names]
    if repeated := len(lines) - len(set(lines)):
        raise BadValue("the count of repeated labels", repeated, "0: rows with one label would be drawn on one another")
    return lines


def _row_height(alt: Any, rows: pd.DataFrame) -> Any:
    return alt.Step(14 + _LINE * max(label.count("\n") + 1 for label in rows["label"].tolist()))


def _said(rows: pd.DataFrame, unit: str) -> str:
    lines = [
        f"{r['label'].replace(chr(10), ' ')}: {r['words']}{', ' + r['verdict'] if r.get('verdict', 'effect') != 'effect' else ''}"
        for r in rows.to_dict("records")
    ]
    return f"{unit} in {len(lines)} rows. " + "; ".join(lines[:30]) + (f"; and {len(lines) - 30} more." if len(lines) > 30 else ".")
