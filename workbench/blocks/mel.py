"""From log-mel frames to the residual stream: two convolutions and positions (Radford et al. 2022).

    hook_embed[p] = gelu(conv2(gelu(conv1(mel))))[p],   conv1 of width 3, conv2 of width 3 and stride 2, both with one zero at each end
    resid_pre = hook_embed + hook_pos_embed

Position p is centred on frame 2p; with an odd number of frames the last position reads one zero in place of the frame that is not
there. Positions are a table that is learned, or sinusoids that are kept with the weights and never trained.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from workbench.blocks.embed import RESIDUAL, Axes
from workbench.blocks.listen import Listener, hear
from workbench.core.errors import BadValue

STRIDE = 2
"""Frames a position covers."""


class MelFrontEnd(nn.Module):
    """``n_positions`` is the most that there are; ``fixed``: sinusoidal positions. They are a buffer then: no optimizer moves them."""

    position: Tensor

    def __init__(self, n_mels: int, d_model: int, n_positions: int, *, fixed: bool) -> None:
        super().__init__()
        self.n_mels, self.n_positions = n_mels, n_positions
        self.conv1 = _convolution(n_mels, d_model, stride=1)
        self.conv2 = _convolution(d_model, d_model, stride=STRIDE)
        if fixed:
            self.register_buffer("position", sinusoids(n_positions, d_model))
        else:
            self.position = nn.Parameter(torch.empty(n_positions, d_model))

    def forward(self, mel: Float[Tensor, "batch mel frame"], listener: Listener | None = None) -> Float[Tensor, "batch pos d_model"]:
        """The stream before the first layer, ``pos`` = half of ``frame``, rounded up."""
        x = functional.gelu(self.conv2(functional.gelu(self.conv1(mel)))).transpose(1, 2)
        x = hear(listener, "hook_embed", x)
        return x + hear(listener, "hook_pos_embed", self.position[: x.shape[1]].expand_as(x))

    def read(self, mel: Tensor) -> Float[Tensor, "batch mel frame"]:
        """``mel`` as this model computes. Raises BadValue unless it is finite floats ``[batch, mel, frame]`` with this model's mel count
        and at most its context of frames; nothing is cut short or filled up."""
        most = STRIDE * self.n_positions
        if mel.ndim != 3 or mel.numel() == 0 or not mel.is_floating_point():
            raise BadValue("the mel frames", f"{tuple(mel.shape)} {mel.dtype}", f"floats [batch, {self.n_mels}, frame], at least one frame")
        if mel.shape[1] != self.n_mels:
            raise BadValue("the number of mels", mel.shape[1], f"{self.n_mels}, as the model ([batch, mel, frame])")
        if mel.shape[2] > most:
            raise BadValue("the number of frames", mel.shape[2], f"at most {most}, the model's context", do="Nothing is cut short.")
        if not bool(mel.isfinite().all()):
            raise BadValue("the mel frames", "not finite everywhere", "finite")
        return mel.to(self.conv1.weight)

    def positions(self, mel: Float[Tensor, "batch mel frame"]) -> int:
        """How many positions frames become."""
        return -(-mel.shape[2] // STRIDE)

    def weights(self) -> dict[str, Tensor]:
        """``W_conv1`` [d_model, mel, 3], ``W_conv2`` [d_model, d_model, 3], ``b_conv1``, ``b_conv2`` [d_model] and ``W_pos``
        [n_positions, d_model]."""
        named = {"conv1": self.conv1, "conv2": self.conv2}
        weights = {f"W_{name}": conv.weight for name, conv in named.items()}
        biases = {f"b_{name}": conv.bias for name, conv in named.items() if conv.bias is not None}
        return weights | biases | {"W_pos": self.position}

    def sites(self) -> dict[str, Axes]:
        """Site names and axes in the order of a run."""
        return {"hook_embed": RESIDUAL, "hook_pos_embed": RESIDUAL}


def sinusoids(length: int, width: int) -> Float[Tensor, "length width"]:
    """Sines, then cosines, of the position over wavelengths that grow from 2π to 10,000 · 2π (``width`` even, at least 4)."""
    assert width in range(4, width + 1, 2), "half the width are sines, half cosines, of at least two wavelengths"
    half = width // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(10_000.0) / (half - 1)))
    angles = torch.arange(length, dtype=torch.float64).unsqueeze(1) * rates
    return torch.cat((angles.sin(), angles.cos()), 1).to(torch.float32)


def _convolution(n_in: int, n_out: int, *, stride: int) -> nn.Conv1d:
    """A convolution of width 3 with uninitialised parameters."""
    made = nn.utils.skip_init(nn.Conv1d, n_in, n_out, 3, stride=stride, padding=1)
    assert isinstance(made, nn.Conv1d)
    return made
