"""Rotary positions (Su et al. 2021), in the half-split layout: dimension i turns together with i + d_head/2.

    angle[pos, i] = pos * rate[i],    rate[i] = base ** (-2 i / d_head), stretched by ``Scaling`` for longer contexts

Angles are computed in float64 and rounded once to the dtype of the model, so a float64 model has float64 angles; a model whose
published code computes them in float32 says so (``Scaling.precision``) and keeps its own numbers.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from workbench.core.spec import Spec


class Scaling(Spec):
    """How rates are changed for contexts longer than the ``original`` one.

    ``none``; ``linear``: all rates divided by ``factor`` (Chen et al. 2023); ``banded``: slow rates are divided, fast ones kept, those
    whose wave fits ``low`` to ``high`` times into the original context blended (Llama 3.1); ``ramp``: the same by dimension, between
    those that turn ``low`` and ``high`` times, with cosines and sines multiplied by ``magnitude`` (YaRN, Peng et al. 2023).
    """

    kind: Literal["none", "linear", "banded", "ramp"] = "none"
    factor: PositiveFloat = 1.0
    original: PositiveInt = 1
    low: PositiveFloat = 1.0
    high: PositiveFloat = 4.0
    magnitude: PositiveFloat = 1.0
    truncated: bool = True
    precision: Literal["float64", "float32"] = "float64"


PLAIN = Scaling.parse({})


@dataclass(frozen=True)
class Rotary:
    """The turns of one pass: cosines and sines ``[batch or 1, pos, 1, d_head/2]``."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def at(
        cls, positions: Int[Tensor, "rows pos"], d_head: int, *, n_ctx: int, base: float, dtype: torch.dtype, scaling: Scaling = PLAIN
    ) -> Rotary:
        """The turns at ``positions`` (each below ``n_ctx``); ``rows`` is the batch, or 1 where all rows share them."""
        frozen: Any = scaling  # hashable, as a frozen spec is, which the checker cannot see
        cos, sin = _table(n_ctx, d_head, base, dtype, positions.device, frozen)
        return cls(cos[positions].unsqueeze(2), sin[positions].unsqueeze(2))

    def turn(self, x: Float[Tensor, "batch pos heads d_head"]) -> Float[Tensor, "batch pos heads d_head"]:
        """``x`` turned by position: queries and keys then meet at the difference of their positions."""
        left, right = x.chunk(2, dim=-1)
        return torch.cat((left * self.cos - right * self.sin, right * self.cos + left * self.sin), dim=-1)


@functools.lru_cache(maxsize=64)
def _table(
    n_ctx: int,
    d_head: int,
    base: float,
    dtype: torch.dtype,
    device: torch.device,
    scaling: Any,
) -> tuple[Tensor, Tensor]:
    # Made outside inference mode: a table first needed there must still serve a later run with gradients.
    with torch.inference_mode(False), torch.no_grad():
        wide = torch.float64 if scaling.precision == "float64" else torch.float32
        angles = torch.arange(n_ctx, dtype=wide).unsqueeze(1) * rates(d_head, base, scaling, wide)
        cos, sin = ((part * scaling.magnitude).to(device, dtype) for part in (angles.cos(), angles.sin()))
        return cos, sin


def rates(d_head: int, base: float, scaling: Scaling, dtype: torch.dtype) -> Float[Tensor, " half"]:
    """Radians a position for each pair of dimensions ``[d_head/2]``."""
    plain = 1.0 / base ** (torch.arange(0, d_head, 2).to(dtype) / d_head)
    slow = plain / scaling.factor
    if scaling.kind == "linear":
        return slow
    if scaling.kind == "banded":
        waves = scaling.original / (2 * math.pi / plain)  # how often each wave fits into the original context
        blend = ((waves - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
        mixed = (1 - blend) * slow + blend * plain
        return torch.where(waves < scaling.low, slow, torch.where(waves > scaling.high, plain, mixed))
    if scaling.kind == "ramp":
        place = lambda turns: d_head * math.log(scaling.original / (turns * 2 * math.pi)) / (2 * math.log(base))  # noqa: E731
        first, last = place(scaling.high), place(scaling.low)
        if scaling.truncated:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, d_head - 1)
        ramp = ((torch.arange(d_head // 2).to(dtype) - first) / (last - first if last != first else 0.001)).clamp(0, 1)
        return slow * ramp + plain * (1 - ramp)
    return plain
