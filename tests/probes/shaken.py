"""Every family's tiny model with weights large enough that each part matters, and a batch of it."""

from __future__ import annotations

from typing import Any

import torch

from workbench.core.batch import TokenBatch
from workbench.families import FAMILIES

READABLE = ("gpt", "clip", "dalle", "seq2seq", "vit", "whisper")
"""Families whose answers are linear in a stream that is a sum."""


def shake(model: Any, seed: int = 0) -> Any:
    """``model`` in float64, every parameter moved by noise of spread 0.3."""
    draw = torch.Generator().manual_seed(seed)
    model = model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64), alpha=0.3)
    return model.eval()


def shaken(name: str) -> tuple[Any, Any]:
    """The model and a batch that its instruments take: ids for gpt, else the family's own."""
    model, batch = FAMILIES.load(name).tiny(0)
    return shake(model), batch.tokens if isinstance(batch, TokenBatch) else batch


def rows_of(batch: Any) -> int:
    """How many items a batch has."""
    return len(batch) if isinstance(batch, torch.Tensor) else len(next(value for value in vars(batch).values() if value is not None))
