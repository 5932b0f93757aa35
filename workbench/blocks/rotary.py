"""Rotary positions (Su et al. 2021), in the half-split layout: dimension i turns together with i + d_head/2.

Angles are computed in float64 and rounded once to the dtype of the model, so a float64 model has float64 angles.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Rotary:
    """The turns of one pass: cosines and sines ``[batch or 1, pos, 1, d_head/2]``."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def at(cls, positions: Int[Tensor, "rows pos"], d_head: int, *, n_ctx: int, base: float, dtype: torch.dtype) -> Rotary:
        """The turns at ``positions`` (each below ``n_ctx``); ``rows`` is the batch, or 1 where all rows share them."""
        cos, sin = _table(n_ctx, d_head, base, dtype, positions.device)
        return cls(cos[positions].unsqueeze(2), sin[positions].unsqueeze(2))

    def turn(self, x: Float[Tensor, "batch pos heads d_head"]) -> Float[Tensor, "batch pos heads d_head"]:
        """``x`` turned by position: queries and keys then meet at the difference of their positions."""
        left, right = x.chunk(2, dim=-1)
        return torch.cat((left * self.cos - right * self.sin, right * self.cos + left * self.sin), dim=-1)


@functools.lru_cache(maxsize=64)
def _table(n_ctx: int, d_head: int, base: float, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    # Made outside inference mode: a table first needed there must still serve a later run with gradients.
    with torch.inference_mode(False), torch.no_grad():
        rates = base ** (-torch.arange(0, d_head, 2, dtype=torch.float64) / d_head)
        angles = torch.arange(n_ctx, dtype=torch.float64).unsqueeze(1) * rates
        return angles.cos().to(device, dtype), angles.sin().to(device, dtype)
