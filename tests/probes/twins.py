"""Items with corrupt twins, for instruments that put activations of one into the other."""

from __future__ import annotations

from typing import Any

import torch

from tests.families.models import tokens
from workbench.core.protocol import Inputs
from workbench.families.gpt import GPT


def pair(model: GPT, rows: int = 3, length: int = 7, since: int = 2) -> Inputs:
    """Items and corrupt twins that differ from position ``since`` on."""
    ids, corrupt = tokens(model, rows, length), tokens(model, rows, length, seed=9)
    corrupt[:, :since] = ids[:, :since]
    return Inputs(ids, reference=corrupt, targets=torch.arange(rows), foils=torch.arange(rows) + rows)


def noisy(batch: Any) -> Any:
    """Other content of the same shape: images with noise, tokens turned round."""
    draw = torch.Generator().manual_seed(5)
    out = {}
    for name, value in vars(batch).items():
        if value is None or name in ("mask", "step", "types", "positions", "segments", "targets"):
            out[name] = value
        elif value.is_floating_point():
            out[name] = value + torch.randn(value.shape, generator=draw, dtype=value.dtype)
        else:
            out[name] = value.flip(1) if value.ndim == 2 else value
    return type(batch)(**out)
