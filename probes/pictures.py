"""The picture that a result's positions are parts of, kept with the values so that its chart can be drawn again from what is stored.

``picture`` ``[shown, row, column, channel]`` (uint8, each item from its darkest to its brightest value) are the first items' pictures, at
most ``ROWS`` x ``COLUMNS`` of their pixels; ``box`` ``[pos, edge]`` are the pixels each position shows, in the picture's own units, whose
size and axes are the Dataset's attribute ``picture``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from probes.places import Places
from workbench.core.charts.picture import Extent, laid_over, plain
from workbench.core.picture import Picture
from workbench.core.protocol import HookedModel

SHOWN, ROWS, COLUMNS = 8, 128, 256
AXES = ("shown", "row", "column", "channel", "edge")
"""Axes of what is kept to be drawn; a table of a result has none of them."""


def with_picture(values: xr.Dataset, model: HookedModel, places: Any, along: str = "pos") -> xr.Dataset:
    """``values`` with the picture of the items' stack, where its positions (the axis ``along``) are parts of one."""
    say = getattr(model, "picture", None)
    if say is None or not isinstance(places, Places):
        return values
    found: Picture | None = say(places.batch.rows(slice(0, SHOWN)), places.stack)
    if found is None:
        return values
    pixels = found.pixels.detach().float().cpu().numpy().transpose(0, 2, 3, 1)
    if pixels.shape[3] not in (1, 3):
        pixels = pixels.mean(3, keepdims=True)
    height, width = pixels.shape[1:3]
    low, high = (extreme((1, 2, 3), keepdims=True) for extreme in (pixels.min, pixels.max))
    bright = np.round(255 * (pixels - low) / np.where(high > low, high - low, 1)).astype(np.uint8)
    bright = bright[:, _kept(height, ROWS)][:, :, _kept(width, COLUMNS)]
    facts = {"height": height, "width": width, "axes": found.axes, "square": found.square, "along": along}
    out = values.assign(picture=(AXES[:4], bright), box=((along, "edge"), found.boxes.cpu().numpy().astype(np.int64)))
    return out.assign_attrs(picture=facts)


def _kept(length: int, most: int) -> np.ndarray:
    """Which rows (or columns) are kept: all, or every so many."""
    return np.arange(length) if length <= most else (np.arange(most) * length) // most


def shows_picture(values: xr.Dataset) -> bool:
    """Whether a picture was kept."""
    return "picture" in values.attrs


def picture_alone(values: xr.Dataset, item: int, title: str) -> Any:
    """The picture of an item, as it is."""
    return plain(values.picture.values[item], _extent(values), title=title)


def over_picture(values: xr.Dataset, item: int, numbers: np.ndarray, names: np.ndarray, **words: Any) -> Any:
    """``numbers``, one a position, over an item's picture; positions called '' (padding) are left out."""
    real = names != ""
    boxes, said = values.box.values[real], [str(name) for name in names[real]]
    return laid_over(values.picture.values[item], _extent(values), boxes, numbers[real], said, **words)


def words_of(values: xr.Dataset) -> str:
    """What the picture's axes are."""
    return str(values.attrs["picture"]["axes"])


def _extent(values: xr.Dataset) -> Extent:
    facts = values.attrs["picture"]
    return Extent(int(facts["height"]), int(facts["width"]), bool(facts["square"]))
