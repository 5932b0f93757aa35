"""Patches against loops over pixels and against the published convolution; which pixels a position is; bad pixels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from workbench.blocks.frontends import Grid, Patches, check_pixels, patches
from workbench.blocks.init import initialise
from workbench.core.errors import BadValue
from workbench.core.tolerance import agree

GRID = Grid(height=4, width=6, patch=2)


def images(count: int = 2, channels: int = 3, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(count, channels, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def front(dtype: torch.dtype = torch.float64, *, bias: bool = True) -> Patches:
    made = Patches(GRID, 3, 5, bias=bias)
    initialise(made, 0, writes=1, std=0.5)
    with torch.no_grad():
        if bias:
            made.map.bias.normal_(generator=torch.Generator().manual_seed(1))
    return made.to(dtype)


def loops(pixels: torch.Tensor, patch: int) -> torch.Tensor:
    """One pixel at a time: patches row by row; in a patch channels, then rows, then columns."""
    batch, channels, height, width = pixels.shape
    out = torch.empty(batch, (height // patch) * (width // patch), channels * patch * patch, dtype=pixels.dtype)
    for b in range(batch):
        for c in range(channels):
            for y in range(height):
                for x in range(width):
                    number = (y // patch) * (width // patch) + x // patch
                    out[b, number, c * patch * patch + (y % patch) * patch + x % patch] = pixels[b, c, y, x]
    return out


@pytest.mark.parametrize("patch", [1, 2])
def test_patches_equal_the_loops(patch: int) -> None:
    assert torch.equal(patches(images(), patch), loops(images(), patch))
    assert not torch.equal(patches(images().transpose(2, 3), patch), loops(images(), patch))  # columns first is another order


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("bias", [True, False])
def test_the_map_is_a_strided_convolution(dtype: torch.dtype, bias: bool) -> None:
    part = front(dtype, bias=bias)
    pixels = images(dtype=dtype)
    kernel = part.map.weight.reshape(5, 3, 2, 2)
    theirs = functional.conv2d(pixels, kernel, part.map.bias, stride=2).flatten(2).transpose(1, 2)
    by_loops = loops(pixels, 2) @ part.weights()["W_E"] + part.weights()["b_E"]
    out = part(pixels) - part.weights()["W_pos"]
    assert out.shape == (2, GRID.positions, 5)
    assert agree(out[:, 1:], theirs, "activation")
    assert agree(out[:, 1:], by_loops, "activation")
    assert agree(out[:, 0], part.weights()["W_class"].expand(2, -1), "activation")
    turned = functional.conv2d(pixels, kernel.transpose(2, 3), part.map.bias, stride=2).flatten(2).transpose(1, 2)
    assert not agree(out[:, 1:], turned, "activation")


def test_a_position_is_the_pixels_it_shows() -> None:
    assert (GRID.rows, GRID.columns, GRID.positions) == (2, 3, 7)
    assert GRID.window(1) == (slice(0, 2), slice(0, 2))
    assert GRID.window(3) == (slice(0, 2), slice(4, 6))
    assert GRID.window(4) == (slice(2, 4), slice(0, 2))
    part, pixels = front(), images()
    for pos in range(1, GRID.positions):
        moved = pixels.clone()
        moved[(..., *GRID.window(pos))] += 1.0
        changed = (part(moved) != part(pixels)).any(-1).any(0)
        assert changed.tolist() == [at == pos for at in range(GRID.positions)]
    for pos in (0, 7):
        with pytest.raises(BadValue, match="within 1 to 6: 0 is the class token"):
            GRID.window(pos)


def test_positions_without_a_class_token_are_one_fewer() -> None:
    bare = Grid(4, 6, 2, classed=False)
    assert bare.positions == 6
    assert bare.names() == GRID.names()[1:] == ["0,0", "0,1", "0,2", "1,0", "1,1", "1,2"]
    assert torch.equal(bare.boxes(), GRID.boxes()[1:])
    assert GRID.boxes()[[0, 3, 4]].tolist() == [[0, 0, 0, 0], [0, 2, 4, 6], [2, 4, 0, 2]]
    assert bare.window(0) == GRID.window(1)
    values = torch.rand(6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(bare.painted(values), GRID.painted(torch.cat([torch.ones(1), values])))
    with pytest.raises(BadValue, match="within 0 to 5"):
        bare.window(6)
    with pytest.raises(BadValue, match="one a position"):
        bare.painted(torch.zeros(7))


def test_values_are_painted_where_their_patches_are() -> None:
    values = torch.arange(2.0 * 7).reshape(2, 7)
    shown = GRID.painted(values)
    assert shown.shape == (2, 4, 6)
    for pos in range(1, GRID.positions):
        assert torch.equal(shown[(..., *GRID.window(pos))], values[:, pos, None, None].expand(2, 2, 2))
    assert torch.equal(GRID.painted(values[0]), shown[0])
    with pytest.raises(BadValue, match=r"the values to paint is \(2, 6\), but it must be \[…, 7\]"):
        GRID.painted(values[:, 1:])


def test_pixels_that_do_not_fit_say_so() -> None:
    like = torch.zeros(1)
    good = images()
    assert check_pixels(good, 3, GRID, like).dtype == torch.float32
    broken = good.clone()
    broken[0, 0, 0, 0], broken[1, 2, 3, 5] = float("nan"), float("inf")
    cases = [
        (good[0], r"shape of the pixels is \(3, 4, 6\), but it must be \[batch, 3, 4, 6\]"),
        (good[:, :2], r"\(2, 2, 4, 6\)"),
        (good.transpose(2, 3), r"\(2, 3, 6, 4\)"),
        (good[:0], "at least one image"),
        ((good * 255).to(torch.uint8), "dtype of the pixels is 'torch.uint8', but it must be a float dtype"),
        (broken, "2 values that are infinite or no number"),
    ]
    for pixels, words in cases:
        with pytest.raises(BadValue, match=words):
            check_pixels(pixels, 3, GRID, like)
