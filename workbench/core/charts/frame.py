"""What every chart shares: altair taken late, columns checked, numbers written for people, and the theme."""

from __future__ import annotations

import importlib
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from workbench.core.charts import palette
from workbench.core.errors import BadValue, MissingExtra, UnknownName

Titles = Mapping[str, str]
_TITLE_LETTERS = 84


def altair() -> Any:
    """The altair package; raises MissingExtra where it is not installed."""
    try:
        return importlib.import_module("altair")
    except ImportError:
        raise MissingExtra("altair", "report", "Drawing a chart") from None


def checked(frame: pd.DataFrame, needed: Sequence[str], numeric: Sequence[str] = (), optional: Sequence[str] = ()) -> pd.DataFrame:
    """A copy of ``frame`` with just these columns, not empty; ``numeric`` must be finite, ``optional`` may hold NaN (no value)."""
    wanted = list(dict.fromkeys([*needed, *numeric, *optional]))
    for name in wanted:
        if name not in frame.columns:
            raise UnknownName("column", name, [str(c) for c in frame.columns], where="in the chart's frame")
    if not len(frame):
        raise BadValue("the chart's frame", "empty", "of at least one row")
    out = pd.DataFrame({name: frame[name].to_numpy() for name in wanted})
    for name in (*numeric, *optional):
        try:
            out[name] = out[name].astype(float)
        except (TypeError, ValueError):
            raise BadValue(f"column '{name}'", str(out[name].dtype), "of numbers") from None
        known = name in numeric  # a column may be asked for twice: the stricter rule holds
        bad = int((~np.isfinite(out[name])).sum()) if known else int(np.isinf(out[name]).sum())
        if bad:
            raise BadValue(f"the count of {'NaN or infinite' if known else 'infinite'} numbers in column '{name}'", bad, "0")
    return out


def data(frame: pd.DataFrame) -> Any:
    """``frame`` as inline data: altair's limit of 5,000 rows is for data frames, and NaN becomes null."""
    rows = [{str(name): _plain(value) for name, value in row.items()} for row in frame.to_dict("records")]
    return altair().InlineData(values=rows)


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value


def number(value: float, *, signed: bool = False, digits: int = 3) -> str:
    """``value`` to ``digits`` significant digits with a true minus sign, ``n/a`` for NaN; ``signed`` writes the plus too."""
    if math.isnan(value):
        return "n/a"
    text = f"{value:{'+' if signed else ''}.{digits}g}"
    if "e" in text and 1e-4 <= abs(value) < 1e6:
        text = f"{value:{'+' if signed else ''},.0f}"
    return ("0" if float(text.replace(",", "")) == 0 else text).replace("-", "−")


def estimate(value: float, low: float, high: float) -> str:
    """``value [low, high]`` with the decimals that give the interval's width two significant digits."""
    if math.isnan(low) or math.isnan(high):
        return f"{number(value)} (no interval)"
    width = high - low
    decimals = max(0, 1 - math.floor(math.log10(width))) if width > 0 else 3
    if decimals > 6:
        return f"{number(value)} [{number(low)}, {number(high)}]"
    texts = [f"{v:,.{decimals}f}" for v in (value, low, high)]
    shown = [(t if float(t.replace(",", "")) else t.removeprefix("-")).replace("-", "−") for t in texts]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def short(value: float, *, signed: bool = False) -> str:
    """``value`` in at most five letters where that can be, for cells: two decimals without the leading zero (.12, −.03)."""
    if math.isnan(value):
        return ""
    text = f"{value:.2f}" if abs(value) < 9.995 else f"{value:.0f}" if abs(value) < 99_999 else f"{value:.0e}"
    if value == 0:
        return "0"  # and .00 is what rounds to it
    text = text.replace("-0.", "-.") if text.startswith("-0.") else text.removeprefix("0") if text.startswith("0.") else text
    return ("+" + text if signed and value > 0 else text).replace("-", "−")


def headline(alt: Any, title: str, note: str = "") -> Any:
    """A title that wraps instead of being cut, with an optional note below."""
    if not title.strip():
        raise BadValue("title", title, "a sentence that says what the chart shows")
    lines = {"subtitle": textwrap.wrap(note, int(_TITLE_LETTERS * 1.25))} if note else {}
    return alt.TitleParams(text=textwrap.wrap(title, _TITLE_LETTERS), **lines)


def titled(titles: Titles, column: str) -> str:
    """The words for a column: its entry in ``titles``, else its name with spaces."""
    return titles.get(column, column.replace("_", " "))


def title_of(titles: Titles) -> str:
    if "title" not in titles:
        raise UnknownName("entry", "title", titles, where="in titles", hint="Say in it what the chart shows.")
    return titles["title"]


def ramp(alt: Any, values: np.ndarray, signed: bool) -> tuple[Any, list[str], float, float]:
    """(colour scale, one colour a value, its low end, its high end): symmetric about 0 when ``signed``, else from 0 or the minimum."""
    known = values[np.isfinite(values)]
    top = float(np.abs(known).max()) if signed and known.size else float(known.max()) if known.size else 1.0
    low = -top if signed else min(0.0, float(known.min()) if known.size else 0.0)
    high = top if top > low else low + 1.0
    if signed and top == 0:
        low, high = -1.0, 1.0
    colours = palette.DIVERGING if signed else palette.SEQUENTIAL
    stops = [low + (high - low) * i / (len(colours) - 1) for i in range(len(colours))]
    scale = alt.Scale(type="linear", domain=stops, range=list(colours), interpolate="rgb", clamp=True)
    fills = [palette.blend(colours, (v - low) / (high - low)) if math.isfinite(v) else "none" for v in values.ravel()]
    return scale, fills, low, high


def theme(*, dark: bool = False) -> dict[str, Any]:
    """The Vega-Lite config of every chart: background, fonts, quiet grid; marks of style ``ink`` and ``quiet`` follow the background."""
    ground = palette.DARK if dark else palette.LIGHT
    ink, quiet, grid = palette.INK[ground], palette.QUIET[ground], palette.GRID[ground]
    return {
        "background": ground,
        "font": palette.FONT,
        "padding": 12,
        "view": {"stroke": None},
        "title": {
            "color": ink, "fontSize": 14, "fontWeight": 600, "anchor": "start", "frame": "bounds", "offset": 12,
            "subtitleColor": quiet, "subtitleFontSize": 11, "subtitlePadding": 4,
        },
        "axis": {
            "labelColor": quiet, "titleColor": ink, "labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal",
            "gridColor": grid, "domainColor": quiet, "tickColor": quiet, "labelLimit": 360, "titlePadding": 8, "labelFlush": False,
        },
        "legend": {
            "labelColor": quiet, "titleColor": ink, "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal",
            "labelLimit": 320, "titleLimit": 320, "symbolStrokeWidth": 2,
        },
        "text": {"color": ink, "fontSize": 11},
        "range": {"category": list(palette.PALETTE), "diverging": list(palette.DIVERGING), "ramp": list(palette.SEQUENTIAL),
                  "heatmap": list(palette.SEQUENTIAL)},
        "style": {
            "ink": {"color": ink}, "quiet": {"color": quiet},
        },
    }  # fmt: skip


def themed(chart: Any, *, dark: bool = False) -> Any:
    """A copy of ``chart`` with the theme as its config (for a dashboard); charts stay without one so that they can be joined."""
    copy = chart.copy(deep=True)
    copy.config = altair().Config(**theme(dark=dark))
    return copy
