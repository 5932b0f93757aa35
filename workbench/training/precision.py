"""In what precision a training step is computed. Weights and optimizer state stay as they are (float32, unless the model is wider)."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Literal

import torch

Precision = Literal["float32", "bf16"]


def computing(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass: ``bf16`` is torch's autocast (matrix products in bfloat16, norms and losses in float32)."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
