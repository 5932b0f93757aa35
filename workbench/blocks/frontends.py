"""From pixels to the residual stream (Dosovitskiy et al. 2021): an image is cut into square patches, each one position.

Position 0 is a learned class token; then the patches follow row by row, from the top left. A patch is read channel by channel, each
row by row, so the map ``W_E`` of a patch is the kernel ``[d_model, channel, patch, patch]`` of the strided convolution that
published models write it as.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.blocks.attention import bias_of
from workbench.blocks.embed import RESIDUAL, Axes
from workbench.blocks.init import linear, table
from workbench.blocks.listen import Listener, hear
from workbench.core.errors import BadValue


@dataclass(frozen=True)
class Grid:
    """Which pixels each position is: ``rows`` x ``columns`` patches of ``patch`` x ``patch`` pixels, after the class token where there is
    one (``classed``)."""

    height: int
    width: int
    patch: int
    classed: bool = True

    @property
    def rows(self) -> int:
        """Patches from top to bottom."""
        return self.height // self.patch

    @property
    def columns(self) -> int:
        """Patches from left to right."""
        return self.width // self.patch

    @property
    def positions(self) -> int:
        """The class token, if there is one, and the patches."""
        return self.classed + self.rows * self.columns

    def names(self) -> list[str]:
        """What each position is called: the class token, then the patches by row and column."""
        patches = [f"{row},{column}" for row in range(self.rows) for column in range(self.columns)]
        return ["class", *patches] if self.classed else patches

    def window(self, pos: int) -> tuple[slice, slice]:
        """The rows and the columns of pixels that position ``pos`` shows. Raises BadValue for the class token, which shows none."""
        if not self.classed <= pos < self.positions:
            why = ": 0 is the class token" if self.classed else ""
            raise BadValue("the position of a patch", pos, f"within {int(self.classed)} to {self.positions - 1}{why}")
        top, left = (at * self.patch for at in divmod(pos - self.classed, self.columns))
        return slice(top, top + self.patch), slice(left, left + self.patch)

    def boxes(self) -> Int[Tensor, "pos 4"]:
        """``window`` of every position as first row, row after the last, first column, column after the last; zeros for the class token."""
        shown = [self.window(pos) for pos in range(self.classed, self.positions)]
        boxes = [(rows.start, rows.stop, columns.start, columns.stop) for rows, columns in shown]
        return torch.tensor([(0, 0, 0, 0), *boxes] if self.classed else boxes)

    def painted(self, values: Float[Tensor, "*lead pos"]) -> Float[Tensor, "*lead height width"]:
        """A value a position as a map over the image: each pixel has the value of its patch. The class token's is left out."""
        if values.shape[-1] != self.positions:
            first = " with the class token first" if self.classed else ""
            raise BadValue("the values to paint", tuple(values.shape), f"[…, {self.positions}], one a position{first}")
        by_patch = values[..., int(self.classed) :].unflatten(-1, (self.rows, self.columns))
        return by_patch.repeat_interleave(self.patch, -2).repeat_interleave(self.patch, -1)


def check_pixels(pixels: Tensor, channels: int, grid: Grid, like: Tensor) -> Float[Tensor, "batch channel height width"]:
    """``pixels`` on the device and in the dtype of ``like``, any weight of the model. Raises BadValue unless they are finite floats
    ``[batch, channel, height, width]`` of the model's size, at least one image."""
    shape = f"[batch, {channels}, {grid.height}, {grid.width}]"
    if pixels.ndim != 4 or tuple(pixels.shape[1:]) != (channels, grid.height, grid.width) or len(pixels) == 0:
        raise BadValue("the shape of the pixels", tuple(pixels.shape), f"{shape} (channel, height, width) with at least one image")
    if not pixels.is_floating_point():
        raise BadValue("the dtype of the pixels", str(pixels.dtype), "a float dtype, scaled as the images the model was trained on")
    if not bool(pixels.isfinite().all()):
        raise BadValue("the pixels", f"{int((~pixels.isfinite()).sum())} values that are infinite or no number", "finite")
    return pixels.to(like.device, like.dtype)


def patches(pixels: Float[Tensor, "batch channel height width"], patch: int) -> Float[Tensor, "batch patch pixel"]:
    """The patches of each image row by row; a patch's pixels lie channel by channel, each row by row."""
    return rearrange(pixels, "b c (i p) (j q) -> b (i j) (c p q)", p=patch, q=patch)


class Patches(nn.Module):
    """A linear map of each patch, a class token before them, and a learned vector a position."""

    def __init__(self, grid: Grid, channels: int, d_model: int, *, bias: bool) -> None:
        super().__init__()
        self.grid, self.channels = grid, channels
        self.map = linear(channels * grid.patch**2, d_model, bias)
        self.class_token = table(1, d_model)
        self.position = table(grid.positions, d_model)

    def forward(
        self, pixels: Float[Tensor, "batch channel height width"], listener: Listener | None = None
    ) -> Float[Tensor, "batch pos d_model"]:
        """The stream before the first layer; ``hook_embed`` has the class token at position 0."""
        mapped = self.map(patches(pixels, self.grid.patch))
        first = repeat(self.class_token.weight, "one m -> b one m", b=len(pixels))
        out = hear(listener, "hook_embed", torch.cat([first, mapped], 1))
        return out + hear(listener, "hook_pos_embed", self.position.weight.expand_as(out))

    def weights(self) -> dict[str, Tensor]:
        """``W_E`` [channel * patch * patch, d_model], ``b_E`` [d_model] (zeros where there is none), ``W_class`` [d_model] and ``W_pos``
        [pos, d_model]."""
        w_e, w_class = self.map.weight.T, self.class_token.weight[0]
        return {"W_E": w_e, "b_E": bias_of(self.map), "W_class": w_class, "W_pos": self.position.weight}

    def sites(self) -> dict[str, Axes]:
        """Site names and axes in the order of a run."""
        return dict.fromkeys(("hook_embed", "hook_pos_embed"), RESIDUAL)
