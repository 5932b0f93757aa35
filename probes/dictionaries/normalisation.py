"""What is done to rows before a dictionary reads them, and undone after: one centre and one scale, kept with the weights.

    normalised = (raw - centre) * scale        the mean square of a coordinate is then 1

To normalise in training and to forget it, or half of it, in use is the field's classic silent error: features fire by other amounts and the
reconstruction is of another size. So centre and scale are tensors of the dictionary itself, and nobody else ever applies them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.errors import BadValue


@dataclass(frozen=True)
class Normalisation:
    """``centre`` ``[width]`` and ``scale`` ``[]`` of one site."""

    centre: Float[Tensor, " width"]
    scale: Float[Tensor, ""]

    def __call__(self, rows: Float[Tensor, "*row width"]) -> Float[Tensor, "*row width"]:
        """Raw rows as the dictionary reads them."""
        return (rows - self.centre) * self.scale

    def undo(self, rows: Float[Tensor, "*row width"]) -> Float[Tensor, "*row width"]:
        """Rows as the dictionary gives them, raw."""
        return rows / self.scale + self.centre


def identity(width: int, dtype: torch.dtype = torch.float32) -> Normalisation:
    """The one that changes nothing."""
    return Normalisation(torch.zeros(width, dtype=dtype), torch.ones((), dtype=dtype))


def measured(rows: Float[Tensor, "row width"], how: Literal["none", "scale", "centre-scale"]) -> Normalisation:
    """The normalisation of a sample of rows, computed in float64. Raises BadValue for rows that are not finite or do not vary."""
    finite(rows)
    if how == "none":
        return identity(rows.shape[1], rows.dtype)
    wide = rows.double()
    centre = wide.mean(0) if how == "centre-scale" else torch.zeros_like(wide[0])
    square = (wide - centre).square().mean()
    if not float(square) > 1e-12 * float(wide.square().mean()) or len(rows) < 2:
        raise BadValue("the variance of the activations", float(square), "above nothing, over two rows or more", do="Look at the site.")
    return Normalisation(centre.to(rows.dtype), square.rsqrt().to(rows.dtype))


def finite(rows: Tensor, width: int | None = None, what: str = "the activations") -> None:
    """Raises BadValue for rows of another width or with NaN or infinity in them."""
    if rows.ndim != 2 or (width is not None and rows.shape[1] != width) or not rows.numel() or not rows.is_floating_point():
        expected = f"[row, {width if width is not None else 'width'}] of floating-point numbers, at least one row"
        raise BadValue(f"the shape of {what}", f"{tuple(rows.shape)} of {rows.dtype}", expected)
    if not bool(torch.isfinite(rows).all()):
        number = int((~torch.isfinite(rows)).any(1).sum())
        raise BadValue(what, f"NaN or infinity in {number} of {len(rows)} rows", "finite", do="Look at the weights, or the shard.")
