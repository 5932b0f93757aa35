"""Values laid over the picture they are about: patches of an image, frames of a spectrogram.

The picture itself stands beside it or before it (``plain``). Under the values (``laid_over``) it is grey, and each box has the colour of
its value, the stronger the further from zero. Colour is never alone: a box that is large enough shows its number, a value below zero has
a dashed border, and the note names the boxes that stand first.
"""

from __future__ import annotations

import base64
import struct
import textwrap
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from workbench.core.charts.frame import altair, data, headline, number, ramp, short
from workbench.core.charts.heat import bordered, legend
from workbench.core.errors import BadValue

SIDE, WIDE, TALL = 240, 480, 140
"""Pixels on the page: the longer side of an image, and both sides of a spectrogram."""
NAMED, OUTSIDE = 3, 8
"""Boxes that the note names, and values without a box."""


@dataclass(frozen=True)
class Extent:
    """How large a picture is in the units its boxes are in; ``square``: a row is as high as a column is wide, so it keeps its form."""

    height: int
    width: int
    square: bool = True

    def on_page(self) -> tuple[int, int]:
        """Width and height on the page."""
        if not self.square:
            return WIDE, TALL
        longer = max(self.height, self.width)
        return max(1, round(SIDE * self.width / longer)), max(1, round(SIDE * self.height / longer))


def plain(pixels: np.ndarray, extent: Extent, *, title: str) -> Any:
    """The picture ``pixels`` ``[row, column, channel]`` (uint8; one channel or three)."""
    alt = altair()
    wide, tall = extent.on_page()
    return _image(alt, pixels, wide, tall).properties(
        width=wide, height=tall, title=headline(alt, title), description=f"The picture, {extent.height} by {extent.width}."
    )  # fmt: skip


def laid_over(
    pixels: np.ndarray,
    extent: Extent,
    boxes: np.ndarray,
    values: np.ndarray,
    names: Sequence[str],
    *,
    title: str,
    signed: bool = False,
    unit: str = "value",
) -> Any:
    """``values`` ``[box]`` over the picture; ``boxes`` ``[box, 4]`` are first row, row after the last, first column, column after the last.
    A box of no pixels, and a value that is NaN, is not drawn; the title's note says a value that has no box."""
    alt = altair()
    values, boxes = np.asarray(values, dtype=float), np.asarray(boxes)
    if boxes.shape != (len(values), 4) or len(names) != len(values) or not len(values):
        raise BadValue("the boxes, values and names", (boxes.shape, len(values), len(names)), "equally many, at least one")
    if np.isinf(values).any():
        raise BadValue("the count of infinite values", int(np.isinf(values).sum()), "0")
    wide, tall = extent.on_page()
    down, across = tall / extent.height, wide / extent.width
    empty = (boxes[:, 1] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 2])
    kept = ~empty & np.isfinite(values)
    if not kept.any():
        raise BadValue("the boxes with a value", 0, "at least 1")
    scale, _, _, high = ramp(alt, values[kept], signed)
    cells = pd.DataFrame(
        {
            "y": boxes[kept, 0] * down, "y2": boxes[kept, 1] * down, "x": boxes[kept, 2] * across, "x2": boxes[kept, 3] * across,
            "name": [name for name, one in zip(names, kept, strict=True) if one], "value": values[kept],
            "written": [_written(v, high, signed) for v in values[kept]], "full": [number(v, signed=signed) for v in values[kept]],
            "strength": 0.1 + 0.7 * np.abs(values[kept]) / max(abs(high), 1e-30),
        }
    )  # fmt: skip
    base = alt.Chart(data(cells)).encode(
        x=alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, wide], nice=False)),
        y=alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[tall, 0], nice=False)),
        tooltip=[alt.Tooltip("name:N", title="position"), alt.Tooltip("full:N", title=unit)],
    )
    shade = {
        "x2": "x2:Q", "y2": "y2:Q", "color": alt.Color("value:Q", scale=scale, legend=legend(alt, unit)),
        "fillOpacity": alt.FillOpacity("strength:Q", scale=None, legend=None),
    }  # fmt: skip
    widths, heights = (boxes[kept, 3] - boxes[kept, 2]) * across, (boxes[kept, 1] - boxes[kept, 0]) * down
    small = widths.min() < max(26, 6 * max(map(len, cells["written"]))) or heights.min() < 14
    layers = [_image(alt, grey(pixels), wide, tall), *bordered(base, shade, signed, strokeWidth=0.3 if small else 0.8)]
    if not small:
        mid = cells.assign(x=(cells["x"] + cells["x2"]) / 2, y=(cells["y"] + cells["y2"]) / 2)
        text = alt.Chart(data(mid)).encode(x=base.encoding.x, y=base.encoding.y, text="written:N")
        layers += [
            text.mark_text(fontSize=10, stroke="#ffffff", strokeWidth=3, strokeOpacity=0.85, strokeJoin="round"),
            text.mark_text(fontSize=10, color="#000000"),
        ]
    note = _note(cells, [(name, v) for name, v, one in zip(names, values, empty, strict=True) if one and np.isfinite(v)], signed)
    return alt.layer(*layers).properties(
        width=wide, height=tall, title=_headed(alt, title, note, wide), description=f"{unit} of {len(cells)} parts of the picture. {note}"
    )  # fmt: skip


def grey(pixels: np.ndarray) -> np.ndarray:
    """The picture without its colours (luma of ITU-R BT.601), pale enough to lie under others."""
    light = pixels.astype(float) @ (np.array([0.299, 0.587, 0.114]) if pixels.shape[2] == 3 else np.ones(1))
    return (90 + light * 165 / 255).round().astype(np.uint8)[:, :, None]


def png(pixels: np.ndarray) -> bytes:
    """``pixels`` ``[row, column, channel]`` (uint8; one channel or three) as a PNG file: the same bytes for the same pixels."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        raise BadValue("the pixels", f"{pixels.shape} {pixels.dtype}", "uint8 [row, column, channel], one channel or three")
    return _file(pixels, 0 if pixels.shape[2] == 1 else 2)


def indexed_png(shades: np.ndarray, colours: np.ndarray) -> bytes:
    """The same of ``shades`` ``[row, column]`` (uint8), each the number of one of 256 ``colours`` ``[shade, 3]``: a third to compress."""
    if shades.dtype != np.uint8 or shades.ndim != 2 or not shades.size or colours.dtype != np.uint8 or colours.shape != (256, 3):
        rule = "uint8 [row, column] and uint8 [256, 3]"
        raise BadValue("the shades and colours", f"{shades.shape} {shades.dtype}, {colours.shape} {colours.dtype}", rule)
    used = np.bincount(shades.reshape(-1), minlength=len(colours)) > 0  # only these travel: a small picture has few of them
    numbers = (np.cumsum(used) - 1).astype(np.uint8)
    return _file(numbers[shades][..., None], 3, (b"PLTE", colours[used].tobytes()))


def _file(pixels: np.ndarray, kind: int, *between: tuple[bytes, bytes]) -> bytes:
    """A PNG of 8-bit ``pixels`` ``[row, column, channel]`` of a colour type, with chunks between its head and its body."""
    rows, columns, channels = pixels.shape
    body = np.zeros((rows, 1 + columns * channels), dtype=np.uint8)  # each row behind its filter, which is none
    body[:, 1:] = pixels.reshape(rows, -1)
    head = struct.pack(">IIBBBBB", columns, rows, 8, kind, 0, 0, 0)
    parts = ((b"IHDR", head), *between, (b"IDAT", zlib.compress(body.tobytes(), 9)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part)) for name, part in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _image(alt: Any, pixels: np.ndarray, wide: int, tall: int) -> Any:
    """The picture as an image mark that fills the chart, its pixels sharp."""
    source = f"data:image/png;base64,{base64.b64encode(png(pixels)).decode()}"
    mark: dict[str, Any] = {"width": wide, "height": tall, "aspect": False, "align": "left", "baseline": "top", "smooth": False}
    return (
        alt.Chart(alt.InlineData(values=[{"source": source}]))
        .mark_image(**mark)
        .encode(x=alt.value(0), y=alt.value(0), url=alt.Url("source:N"))
    )


def _written(value: float, high: float, signed: bool) -> str:
    """The number in a box: two decimals, or one digit where all are small."""
    return short(value, signed=signed) if abs(high) >= 0.05 else number(value, signed=signed, digits=1)


def _headed(alt: Any, title: str, note: str, wide: int) -> Any:
    """Title and note, wrapped to the picture's width."""
    out = headline(alt, title)
    out.subtitle = textwrap.wrap(note, max(30, wide // 6))
    return out


def _note(cells: pd.DataFrame, outside: Sequence[tuple[str, float]], signed: bool) -> str:
    first = cells.assign(size=cells["value"].abs()).sort_values("size", ascending=False, kind="stable").head(NAMED)
    out = "First: " + ", ".join(f"{name} ({full})" for name, full in zip(first["name"], first["full"], strict=True)) + "."
    if outside:
        out += " Not in the picture: " + ", ".join(f"{name} ({number(v, signed=signed)})" for name, v in outside[:OUTSIDE]) + "."
    return out
