"""Next-token cross-entropy, as a sum and a count, so that any grouping of batches can be normalised exactly."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from workbench.core.batch import IGNORE
from workbench.core.errors import BadValue

CELLS = 1 << 24
"""Most logits held at once (64 MiB in float32); beyond it they are made in pieces and made again in the backward pass."""


def next_token_nll(
    x: Float[Tensor, "batch pos d_model"],
    matrix: Float[Tensor, "d_vocab d_model"],
    targets: Int[Tensor, "batch pos"],
    *,
    bias: Float[Tensor, " d_vocab"] | None = None,
    cells: int = CELLS,
) -> tuple[Float[Tensor, ""], int]:
    """The summed negative log-likelihood (nats) of ``targets`` under ``softmax(x matrixᵀ + bias)``, and how many there are.

    Targets equal to ``IGNORE`` are left out, and where they are many no logits are made for them. Computed in at least
    float32. Targets are looked at where they are and moved then: those in the host's memory cost no wait for a device. Raises BadValue for
    a target outside the vocabulary.
    """
    flat, wanted = x.flatten(0, 1), targets.flatten()
    known = wanted != IGNORE
    count = int(known.sum())
    if count < 0.9 * wanted.numel():
        flat, wanted = flat[known], wanted[known]
    if count == 0:  # everything has a gradient, of zeros: processes that share a batch's rows agree on which weights have one
        read = [flat, matrix[:1]] if bias is None else [flat, matrix[:1], bias[:1]]
        return torch.stack([part.sum() for part in read]).sum() * 0.0, 0
    asked = torch.where(wanted == IGNORE, 0, wanted)
    if int(asked.min()) < 0 or int(asked.max()) >= matrix.shape[0]:
        raise BadValue(
            "a target", [int(asked.min()), int(asked.max())], f"within 0 to {matrix.shape[0] - 1}, or {IGNORE} for 'not predicted'"
        )
    wanted, rows = wanted.to(x.device), max(1, cells // matrix.shape[0])
    if len(flat) <= rows:
        return _nll(flat, matrix, bias, wanted), count
    pieces = zip(flat.split(rows), wanted.split(rows))
    parts = [checkpoint(_nll, piece, matrix, bias, goal, use_reentrant=False, preserve_rng_state=False) for piece, goal in pieces]
    return torch.stack([part for part in parts if isinstance(part, Tensor)]).sum(), count


def contrastive_nll(logits: Float[Tensor, "row row"]) -> tuple[Float[Tensor, ""], int]:
    """The summed loss of ``row`` pairs and their number, where the diagonal holds each pair's own logit: the mean of the cross-entropies
    (nats) along the rows and along the columns (Radford et al. 2021), in at least float32."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    own = torch.arange(len(wide), device=wide.device)
    along, down = (functional.cross_entropy(way, own, reduction="sum") for way in (wide, wide.T))
    return (along + down) / 2, len(wide)


def _nll(
    x: Float[Tensor, "row d_model"], matrix: Float[Tensor, "d_vocab d_model"], bias: Float[Tensor, " d_vocab"] | None, targets: Tensor
) -> Float[Tensor, ""]:
    logits = functional.linear(x, matrix, bias)
    wide = torch.promote_types(logits.dtype, torch.float32)
    return functional.cross_entropy(logits.to(wide), targets, ignore_index=IGNORE, reduction="sum")
