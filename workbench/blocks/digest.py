"""What makes two models the same: config, tokenizer and every byte of the weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from workbench.core.protocol import Tokenizer
from workbench.core.spec import Spec


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """sha256 (hex) over names, dtypes, shapes and bytes, in the order of names; the device does not matter."""
    whole = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        whole.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        whole.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def model_digest(family: str, config: Spec, weights: Mapping[str, Tensor], tokenizer: Tokenizer | None) -> str:
    """sha256 (hex) over family, config, weights and tokenizer: unchanged by saving and loading."""
    parts = (family, config.digest(), weights_digest(weights), tokenizer.digest() if tokenizer is not None else "")
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
