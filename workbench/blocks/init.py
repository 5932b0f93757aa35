"""Modules made without touching the global random state, and their first values.

Every parameter is filled from a generator of its own, seeded by (seed, parameter name), so a model's first values depend on
its seed and shapes alone: not on what ran before, and not on which other parameters there are.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import nn

STD = 0.02
"""Standard deviation of all matrices unless another is asked for, as in GPT-2 (Radford et al. 2019)."""

ZERO = ("modulation.to_turns.weight",)
"""Matrices that begin at zero: a modulated layer first passes its stream on."""

UP = ("embed.up.weight",)
"""The second factor of an embedding: its deviation is d_embed ** -0.5, so the product has the deviation asked for."""

INTO_RESIDUAL = ("attn.o.weight", "mlp.out.weight")
"""Matrices that write to the residual stream: their deviation is divided by sqrt(number of writes), as in GPT-2."""


def linear(n_in: int, n_out: int, bias: bool) -> nn.Linear:
    """A linear map with uninitialised parameters (nn.Linear would draw them from the global generator)."""
    made = nn.utils.skip_init(nn.Linear, n_in, n_out, bias=bias)
    assert isinstance(made, nn.Linear)
    return made


def table(n_rows: int, width: int) -> nn.Embedding:
    """A lookup table with uninitialised parameters."""
    made = nn.utils.skip_init(nn.Embedding, n_rows, width)
    assert isinstance(made, nn.Embedding)
    return made


def initialise(module: nn.Module, seed: int, *, writes: int, std: float = STD) -> None:
    """Fill every parameter: matrices normal (``std``; those of ``INTO_RESIDUAL`` over sqrt(writes), ``UP`` its own), other weights 1,
    biases 0.

    ``writes`` is how many sublayers add to one residual stream (two a layer: GPT-2's 1/sqrt(2 n_layers)).
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("bias") or name.endswith(ZERO):
                parameter.zero_()
            elif parameter.ndim < 2:
                parameter.fill_(1.0)
            else:
                scale = std / math.sqrt(writes) if name.endswith(INTO_RESIDUAL) else std
                scale = parameter.shape[1] ** -0.5 if name.endswith(UP) else scale
                parameter.normal_(0.0, scale, generator=generator_of(seed, name))


def generator_of(*parts: object) -> torch.Generator:
    """A CPU generator seeded by ``parts`` through sha256."""
    number = int.from_bytes(hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()[:8], "little")
    return torch.Generator().manual_seed(number >> 1)
