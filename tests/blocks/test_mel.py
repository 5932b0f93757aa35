"""The mel front end: its convolutions against loops over cells, its positions, what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from workbench.blocks.init import initialise
from workbench.blocks.mel import MelFrontEnd, sinusoids
from workbench.core.errors import BadValue
from workbench.core.tolerance import agree, gap


def made(*, fixed: bool = False, dtype: torch.dtype = torch.float64) -> MelFrontEnd:
    front = MelFrontEnd(3, 4, 5, fixed=fixed)
    initialise(front, 0, writes=1, std=0.5)
    with torch.no_grad():
        for conv in (front.conv1, front.conv2):
            assert conv.bias is not None
            conv.bias.normal_(generator=torch.Generator().manual_seed(1))
    return front.to(dtype)


def frames(count: int, rows: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(rows, 3, count, generator=torch.Generator().manual_seed(2), dtype=dtype)


def convolved(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """One cell at a time; a place before the first or after the last frame holds zeros."""
    n_out, n_in, width = weight.shape
    count = -(-x.shape[2] // stride)
    out = torch.zeros(x.shape[0], n_out, count, dtype=x.dtype)
    for row in range(x.shape[0]):
        for channel in range(n_out):
            for place in range(count):
                total = float(bias[channel])
                for tap in range(width):
                    at = place * stride + tap - 1
                    if 0 <= at < x.shape[2]:
                        total += sum(float(weight[channel, c, tap]) * float(x[row, c, at]) for c in range(n_in))
                out[row, channel, place] = 0.5 * total * (1 + math.erf(total / math.sqrt(2)))
    return out


def twin(front: MelFrontEnd, x: Tensor) -> Tensor:
    weights = {name: value.detach() for name, value in front.weights().items()}
    x = convolved(x, weights["W_conv1"], weights["b_conv1"], 1)
    return convolved(x, weights["W_conv2"], weights["b_conv2"], 2).transpose(1, 2)


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("count", [1, 2, 7, 10])
def test_it_equals_the_loops(count: int, fixed: bool) -> None:
    front = made(fixed=fixed)
    x = frames(count)
    expected = twin(front, x) + front.weights()["W_pos"][: -(-count // 2)]
    assert front.positions(x) == expected.shape[1] == -(-count // 2)
    assert agree(front(x), expected, "activation")


def test_the_comparison_catches_a_shifted_stride() -> None:
    """Positions centred on odd frames instead of even ones: every shape is as it was."""
    front = made()
    x = frames(10)
    assert gap(front(torch.roll(x, 1, 2)), twin(front, x) + front.weights()["W_pos"]) > 1e-2


def test_fixed_positions_are_the_sinusoids_and_no_parameter() -> None:
    front = made(fixed=True)
    table = sinusoids(5, 4)
    assert "position" in front.state_dict()
    assert "position" not in dict(front.named_parameters())
    assert torch.equal(front.position, table.double())
    expected = torch.tensor([[f(p * 10_000.0**-k) for f in (math.sin, math.cos) for k in (0, 1)] for p in range(5)])
    assert agree(table, expected, "activation")
    learned = made(fixed=False)
    assert "position" in dict(learned.named_parameters())
    assert not torch.equal(learned.position, table.double())


@pytest.mark.parametrize(
    ("mel", "words"),
    [
        (frames(11), "the number of frames is 11, but it must be at most 10"),
        (torch.zeros(2, 4, 6), "the number of mels is 4, but it must be 3"),
        (torch.zeros(3, 6), "the mel frames"),
        (torch.zeros(2, 3, 0), "at least one frame"),
        (torch.zeros(2, 3, 4, dtype=torch.long), "floats"),
        (torch.full((1, 3, 4), float("nan")), "not finite everywhere"),
        (torch.full((1, 3, 4), float("inf")), "not finite everywhere"),
    ],
)
def test_frames_that_do_not_fit_say_so(mel: Tensor, words: str) -> None:
    with pytest.raises(BadValue, match=words):
        made().read(mel)


def test_frames_are_read_in_the_models_dtype() -> None:
    read: Any = made(dtype=torch.float64).read(frames(10, dtype=torch.float32))
    assert read.dtype == torch.float64
