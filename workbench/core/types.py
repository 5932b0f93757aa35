"""The axis words of the product, and short names for tensors typed with them.

Axis words: ``batch pos query key head kv_head d_model d_head d_mlp d_vocab patch frame channel step``.
Public tensor functions are annotated ``Float[Tensor, "batch pos d_model"]`` and checked with beartype in tests.
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

AXES = (
    "batch", "pos", "query", "key", "head", "kv_head", "d_model", "d_head", "d_mlp",
    "d_vocab", "patch", "frame", "channel", "step", "mel", "height", "width", "one", "class", "pair", "d_joint",
)  # fmt: skip

Tokens = Int[Tensor, "batch pos"]
Residual = Float[Tensor, "batch pos d_model"]
Logits = Float[Tensor, "batch pos d_vocab"]
Pattern = Float[Tensor, "batch head query key"]
Heads = Float[Tensor, "batch pos head d_head"]
KVHeads = Float[Tensor, "batch pos kv_head d_head"]

__all__ = ["AXES", "Bool", "Float", "Heads", "Int", "KVHeads", "Logits", "Pattern", "Residual", "Shaped", "Tensor", "Tokens"]
