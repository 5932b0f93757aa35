"""Values as coloured cells with their numbers: over tokens, over layers and positions, over queries and keys.

Colour is never alone: a cell shows its number, and a value below zero has a dashed border.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from workbench.core.charts import palette
from workbench.core.charts.frame import Titles, altair, checked, data, headline, number, ramp, short, title_of, titled
from workbench.core.errors import BadValue

_LINE, _ROW_GAP, _CELL_GAP = 40, 8, 3
_VISIBLE = str.maketrans({"\n": "↵", "\t": "⇥", "\r": "␍"})


def shown(token: str) -> str:
    """A token as it can be seen: a leading or trailing space as ``·``, line ends and tabs as signs, nothing as ``∅``."""
    body = token.strip(" ")
    left, right = token[: len(token) - len(token.lstrip(" "))], token[len(token.rstrip(" ")) :] if body else ""
    return ("·" * len(left) + body + "·" * len(right)).translate(_VISIBLE) or "∅"


def width_of(text: str, size: float) -> float:
    """About how many pixels ``text`` takes in Helvetica at ``size``: rounded up, since a cell that is too wide is harmless."""
    total = 0.0
    for letter in text:
        if unicodedata.east_asian_width(letter) in "WF":
            total += 1.05
        elif letter in "iljtfI.,;:'|!()[]·":
            total += 0.36
        else:
            total += 0.9 if letter in "mwMWO@%Q" else 0.74 if letter.isupper() else 0.6
    return total * size


def token_heat(
    tokens: Sequence[Sequence[str]] | Sequence[str], values: Any, *, title: str, signed: bool = True, unit: str = "value", width: int = 720
) -> Any:
    """Running text in which each token's cell carries its value: colour, the number below it, and a tooltip.

    ``tokens`` is one text or several, ``values`` numbers of the same lengths (NaN or None: no value, an empty cell).
    ``signed`` colours about zero, blue below and orange above; otherwise one hue grows from zero.
    """
    alt = altair()
    if width < 200:
        raise BadValue("width", width, "at least 200 pixels")
    texts, numbers = _lines(tokens, values)
    flat = np.array([v for line in numbers for v in line], dtype=float)
    if np.isinf(flat).any():
        raise BadValue("the count of infinite values", int(np.isinf(flat).sum()), "0")
    scale, fills, _, _ = ramp(alt, flat, signed)
    cells = pd.DataFrame(_placed(texts, numbers, width, signed))
    cells["fill"], cells["ink"] = fills, [palette.ink_on(f) if f != "none" else "" for f in fills]
    high = max(cells["y2"].tolist())
    base = alt.Chart(data(cells)).encode(
        x=alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, width], nice=False)),
        y=alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[high, 0], nice=False)),
        tooltip=[alt.Tooltip("whole:N", title="token"), alt.Tooltip("position:Q"), alt.Tooltip("full:N", title=unit)],
    )
    colour = alt.Color("value:Q", scale=scale, legend=legend(alt, unit))
    boxes = bordered(base, {"x2": "x2:Q", "y2": "y2:Q", "color": colour}, signed, strokeWidth=1.2, cornerRadius=3)
    label = base.encode(x=alt.X("mid:Q", axis=None), text="token:N")
    known, empty = alt.datum.ink != "", alt.datum.ink == ""
    inked = _inked(alt)
    layers = [
        *boxes,
        label.mark_text(fontSize=13, dy=15, baseline="middle").encode(color=inked).transform_filter(known),
        label.mark_text(fontSize=10, dy=30, baseline="middle").encode(color=inked, text="written:N").transform_filter(known),
    ]
    if bool((cells["ink"] == "").any()):
        layers.append(label.mark_text(fontSize=13, dy=15, baseline="middle", style="quiet").transform_filter(empty))
    said = f"{len(texts)} text{'s' if len(texts) > 1 else ''}, {len(flat)} tokens, each with its {unit}. {_range_words(flat)}"
    return alt.layer(*layers).properties(width=width, height=high, title=headline(alt, title), description=said)


def _lines(tokens: Any, values: Any) -> tuple[list[list[str]], list[list[float]]]:
    if isinstance(tokens, str) or not len(tokens):
        raise BadValue("tokens", tokens, "a list of tokens, or a list of such lists")
    one = isinstance(tokens[0], str)
    texts = [list(tokens)] if one else [list(line) for line in tokens]
    rows = [values] if one else list(values)
    if len(rows) != len(texts):
        raise BadValue("the number of lines in values", len(rows), f"that of tokens, {len(texts)}")
    numbers = [[float("nan") if v is None else float(v) for v in row] for row in rows]
    for i, (text, row) in enumerate(zip(texts, numbers, strict=True)):
        if len(text) != len(row) or not text:
            raise BadValue(f"the number of values in line {i}", len(row), f"that of its tokens, {len(text)}, and at least 1")
    return texts, numbers


def _placed(texts: list[list[str]], numbers: list[list[float]], width: int, signed: bool) -> list[dict[str, Any]]:
    """Each token's box in pixels, wrapped at ``width``; a new text starts a new line."""
    rows: list[dict[str, Any]] = []
    top = 0.0
    for text, line in zip(texts, numbers, strict=True):
        left = 0.0
        for position, (token, value) in enumerate(zip(text, line, strict=True)):
            seen, written = shown(token), short(value, signed=signed)
            whole = seen
            while width_of(seen, 13) > width - 12:
                seen = seen.rstrip("…")[:-1] + "…"
            wide = max(width_of(seen, 13), width_of(written, 10)) + 10
            if left and left + wide > width:
                left, top = 0.0, top + _LINE + _CELL_GAP
            rows.append(
                {
                    "token": seen, "whole": whole, "value": value, "full": number(value, signed=signed), "written": written,
                    "position": position, "x": left, "x2": left + wide, "mid": left + wide / 2, "y": top, "y2": top + _LINE,
                }
            )  # fmt: skip
            left += wide + _CELL_GAP
        top += _LINE + _ROW_GAP
    return rows


def grid(
    frame: pd.DataFrame, x: str, y: str, value: str, *, titles: Titles, signed: bool = True, x_labels: Sequence[str] | None = None
) -> Any:  # fmt: skip
    """Cells over two ordered axes (layer by position, layer by head), each with its number; one row of ``frame`` a cell.

    Numeric ``y`` grows upward, as the residual stream is drawn. NaN is a cell without value. ``titles`` holds ``title``
    and the words for columns. ``x_labels`` names the values 0 … n-1 of ``x`` (tokens, which may repeat).
    """
    taken = checked(frame, [x, y], optional=[value])
    cells = pd.DataFrame({"x": taken[x], "y": taken[y], "value": taken[value]})
    if repeated := int(cells.duplicated(["x", "y"]).to_numpy().sum()):
        raise BadValue("the count of repeated cells", repeated, "0: one row of the frame for each cell")
    across = _Axis(titled(titles, x), _in_order(cells["x"].tolist()), x_labels)
    down = _Axis(titled(titles, y), _in_order(cells["y"].tolist(), rising=True))
    return _cells(cells, across, down, signed=signed, unit=titled(titles, value), title=title_of(titles))


def attention_map(
    pattern: Any, tokens: Sequence[str], *, title: str, key_tokens: Sequence[str] | None = None, causal: bool = True
) -> Any:  # fmt: skip
    """One head's attention ``pattern [query, key]`` (array or tensor, 0 to 1) with the tokens on both axes.

    Each row is a query and says where it reads from. With ``causal`` the keys after the query are left blank, and a weight
    there is an error. ``key_tokens`` for cross-attention, which is never causal.
    """
    weights = np.asarray(pattern.detach().float().cpu() if hasattr(pattern, "detach") else pattern, dtype=float)
    keys = list(tokens if key_tokens is None else key_tokens)
    if weights.shape != (len(tokens), len(keys)) or not weights.size:
        raise BadValue("the shape of pattern", weights.shape, f"[query, key] = ({len(tokens)}, {len(keys)}), as many as there are tokens")
    if not np.isfinite(weights).all() or weights.min() < 0 or weights.max() > 1 + 1e-4:
        raise BadValue("pattern", "outside 0 … 1 or not finite", "attention weights between 0 and 1")
    hidden = np.triu(np.ones_like(weights, dtype=bool), 1) if causal and key_tokens is None else np.zeros_like(weights, dtype=bool)
    if later := int((weights[hidden] > 0).sum()):
        raise BadValue("the count of weights on later keys", later, "0 when causal", do="Give causal=False.")
    query, key = (axis.tolist() for axis in np.nonzero(~hidden))
    cells = pd.DataFrame({"x": key, "y": query, "value": weights[query, key]})
    return _cells(
        cells, _Axis("key (read from)", list(range(len(keys))), keys), _Axis("query (reads)", list(range(len(tokens))), tokens),
        signed=False, unit="attention weight", title=title,
    )  # fmt: skip


@dataclass(frozen=True)
class _Axis:
    """An axis of a grid: its words, its values in drawing order (left to right, top to bottom), and labels for whole values."""

    title: str
    values: list[Any]
    labels: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and not all(isinstance(v, int) and 0 <= v < len(self.labels) for v in self.values):
            raise BadValue("x_labels", f"{len(self.labels)} labels", f"one for each value from 0 to {max(self.values)}")

    def encoded(self, alt: Any, channel: Any, field: str, step: int, gap: float) -> Any:
        """The channel with labels that do not run into each other in cells ``step`` pixels wide (x) or tall (y)."""
        words = [shown(label) for label in self.labels] if self.labels is not None else [str(v) for v in self.values]
        settings: dict[str, Any] = {"grid": False, "labelOverlap": step < 9, "labelFontSize": 11 if step >= 12 else 9, "ticks": step >= 12}
        if field == "x":
            wide = max(width_of(word, 11) for word in words) > step - 4
            settings["labelAngle"] = 0 if not wide else -45 if step >= 20 else -90
        if self.labels is not None:
            settings["labelExpr"] = f"{json.dumps(words)}[datum.value]"  # the labels are data, quoted as JSON
        return channel(f"{field}:O", sort=self.values, title=self.title, axis=alt.Axis(**settings), scale=alt.Scale(padding=gap))

    def name(self, value: Any) -> str:
        return str(value) if self.labels is None else f"{value}: {shown(self.labels[int(value)])}"


def _in_order(column: list[Any], *, rising: bool = False) -> list[Any]:
    """Numbers sorted (downward on the page where ``rising``, so that they grow upward), names as they come."""
    values = list(dict.fromkeys(column))
    return sorted(values, reverse=rising) if all(isinstance(v, int | float) for v in values) else values


def _cells(cells: pd.DataFrame, across: _Axis, down: _Axis, *, signed: bool, unit: str, title: str) -> Any:
    """The grid of ``cells`` with columns x, y, value."""
    alt = altair()
    values = cells["value"].to_numpy(dtype=float)
    scale, fills, _, _ = ramp(alt, values, signed)
    # a cell is wide enough for its number up to 24 columns; past that colour and tooltip remain, and the note says so
    numbered = len(across.values) <= 24 and len(cells) <= 900
    side = 38 if numbered else max(8, min(24, 860 // len(across.values)))
    gap = 0.06 if numbered else 0.0  # room for each cell's own border
    tall = 24 if numbered else max(8, min(24, 640 // len(down.values)))
    cells = cells.assign(
        ink=[palette.ink_on(f) if f != "none" else "#000000" for f in fills],
        written=[short(v, signed=signed) for v in values],
        full=[number(v, signed=signed) for v in values],
        across=[across.name(v) for v in cells["x"].tolist()],
        down=[down.name(v) for v in cells["y"].tolist()],
    )
    base = alt.Chart(data(cells)).encode(
        x=across.encoded(alt, alt.X, "x", side, gap), y=down.encoded(alt, alt.Y, "y", tall, gap),
        tooltip=[alt.Tooltip("down:N", title=down.title), alt.Tooltip("across:N", title=across.title), alt.Tooltip("full:N", title=unit)],
    )  # fmt: skip
    colour = alt.Color("value:Q", scale=scale, legend=legend(alt, unit))
    layers = bordered(base, {"color": colour}, signed and numbered, strokeWidth=1.0 if numbered else 0.15)
    if numbered:
        layers.append(base.mark_text(fontSize=10).encode(text="written:N", color=_inked(alt)).transform_filter("isValid(datum.value)"))
    if not np.isfinite(values).all():
        layers.append(base.mark_text(text="–", style="quiet").transform_filter("!isValid(datum.value)"))
    note = "" if numbered else f"{len(cells):,} cells: too many to print their numbers."
    said = f"{unit} in {len(down.values)} rows and {len(across.values)} columns. {_range_words(values)}"
    return alt.layer(*layers).properties(
        width=alt.Step(side), height=alt.Step(tall), title=headline(alt, title, note), description=said
    )  # fmt: skip


def legend(alt: Any, unit: str) -> Any:
    return alt.Legend(title=unit, orient="bottom", direction="horizontal", gradientLength=220, gradientThickness=10, tickCount=5)


def _inked(alt: Any) -> Any:
    """Each number in the ink of its cell; a condition and not a scale, since a layer's null scale breaks the cells' own."""
    return alt.condition("datum.ink == '#ffffff'", alt.value("#ffffff"), alt.value("#000000"))


def bordered(base: Any, encodings: dict[str, Any], signed: bool, **settings: Any) -> list[Any]:
    """The cells: a solid border, or a dashed one below zero (Vega-Lite has no dash channel for cells, so two layers)."""
    if not signed:
        return [base.mark_rect(stroke=palette.EDGE, **settings).encode(**encodings).transform_filter("isValid(datum.value)")]
    above = base.mark_rect(stroke=palette.EDGE, **settings).encode(**encodings)
    below = base.mark_rect(stroke=palette.EDGE, strokeDash=[3, 2], **settings).encode(**encodings)
    return [above.transform_filter("datum.value >= 0"), below.transform_filter("isValid(datum.value) && datum.value < 0")]


def _range_words(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    if not known.size:
        return "No value is known."
    return f"From {number(float(known.min()))} to {number(float(known.max()))}, {known.size} of {values.size} known."
