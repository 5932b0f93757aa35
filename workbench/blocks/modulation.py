"""Adaptive norm: a condition decides how a layer reads and how much it adds (Peebles and Xie 2022, adaLN-Zero).

    shift, scale, gate = SiLU(condition) W + b          (three vectors a sublayer)
    a sublayer reads  norm(x) (1 + scale) + shift       and adds  gate * its output

W and b begin at zero, so an untrained layer adds nothing and passes its stream on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from workbench.blocks.init import linear
from workbench.blocks.listen import Listener, hear

WORDS = ("shift", "scale", "gate")


@dataclass(frozen=True)
class Turn:
    """What one sublayer is told: shift, scale and gate ``[batch, 1, d_model]``."""

    shift: Float[Tensor, "batch 1 d_model"]
    scale: Float[Tensor, "batch 1 d_model"]
    gate: Float[Tensor, "batch 1 d_model"]

    def read(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """The normed stream as the sublayer reads it."""
        return x * (1 + self.scale) + self.shift

    def scaled(self, change: Float[Tensor, "batch pos reader d_model"]) -> Float[Tensor, "batch pos reader d_model"]:
        """What a change of one reader's normed input becomes; the shift is the same before and after."""
        return change * (1 + self.scale).unsqueeze(1)

    def write(self, out: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """What is added to the stream."""
        return self.gate * out


class Modulation(nn.Module):
    """The turns of one layer's sublayers, in the order given (``attn``, ``cross_attn``, ``mlp``)."""

    def __init__(self, d_condition: int, d_model: int, sublayers: Sequence[str]) -> None:
        super().__init__()
        self.sublayers, self.d_model = tuple(sublayers), d_model
        self.to_turns = linear(d_condition, 3 * len(self.sublayers) * d_model, True)

    def forward(self, condition: Float[Tensor, "batch d_condition"] | None, listener: Listener | None = None) -> dict[str, Turn]:
        """One turn a sublayer."""
        assert condition is not None, "a modulated layer is given its condition"
        parts = self.to_turns(functional.silu(condition)).unsqueeze(1).split(self.d_model, dim=-1)
        names = [f"hook_{sublayer}_{word}" for sublayer in self.sublayers for word in WORDS]
        heard = [hear(listener, f"modulation.{name}", part) for name, part in zip(names, parts, strict=True)]
        return {sublayer: Turn(*heard[3 * i : 3 * i + 3]) for i, sublayer in enumerate(self.sublayers)}

    def weights(self) -> dict[str, Tensor]:
        """``W`` [d_condition, 3 sublayers d_model] and ``b``."""
        return {"W": self.to_turns.weight.T, "b": self.to_turns.bias}

    def sites(self) -> dict[str, tuple[str, ...]]:
        """Site names and axes in the order of a run."""
        axes = ("batch", "one", "d_model")
        return {f"modulation.hook_{sublayer}_{word}": axes for sublayer in self.sublayers for word in WORDS}
