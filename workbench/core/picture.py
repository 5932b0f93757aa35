"""What a stack's positions are parts of, where that can be looked at: an image, or a spectrogram drawn as one."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Picture:
    """``pixels`` of any range, row 0 on top (a spectrogram has its highest band there). ``boxes`` ``[pos, 4]`` say which pixels a position
    shows: its first row, the row after its last, its first column, the column after its last; four zeros where it shows none, as a class
    token does. ``axes`` says what rows and columns are; ``square``: a row is as high as a column is wide."""

    pixels: Float[Tensor, "batch channel height width"]
    boxes: Int[Tensor, "pos 4"]
    axes: str = "pixels"
    square: bool = True
