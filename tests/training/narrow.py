"""Which operations read 16-bit numbers, heard below autocast."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NARROW = (torch.bfloat16, torch.float16)
WIDE_ONLY = (
    "native_layer_norm", "_fused_rms_norm", "rsqrt", "_softmax", "_log_softmax", "logsumexp", "nll_loss_forward", "linalg_vector_norm",
    "mse_loss", "pow", "exp", "log",
)  # fmt: skip
"""Norms, softmax and what losses are made of, forward."""


class Narrow(TorchDispatchMode):
    """The names of the operations of ``WIDE_ONLY`` that were given a narrow tensor, and of all that were."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.all: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, torch.Tensor)]
        if any(tensor.dtype in NARROW for tensor in tensors):
            name = func.overloadpacket.__name__
            self.all.add(name)
            if name in WIDE_ONLY:
                self.wrong.append(name)
        return func(*args, **(kwargs or {}))
