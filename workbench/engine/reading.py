"""What is read of logits: log-probabilities of targets, and on request their rank and the moments of the whole distribution.

Everything is taken in float32 at least, whatever the model's dtype: in bfloat16 one step is 0.125 at a log-likelihood of −21, which makes
false ties. No second copy of the logits is made: the vocabulary is passed a slice at a time.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

CELLS = 1 << 25
"""Most logits held at once (128 MiB in float32)."""
NEAR = 1 << 18
"""Logits whose exponentials are summed at once: 1 MiB in float32, which stays in the processor's caches."""
SLICE = 4096
"""Entries of the vocabulary taken at once."""

Wanted = Literal["logprob", "rank", "all"]
"""``logprob``: log p of the target. ``rank``: also how many tokens are likelier (of equal ones, those with a lower id): 0 is what greedy
decoding takes. ``all``: also the entropy and the variance of log p under the distribution (both in nats, of the whole vocabulary)."""
COLUMNS: dict[Wanted, int] = {"logprob": 1, "rank": 2, "all": 4}

Values = Float64[np.ndarray, "_edge _column"]


def read(
    logits: Float[Tensor, "place d_vocab"], places: Int[Tensor, " edge"], targets: Int[Tensor, " edge"], wanted: Wanted = "logprob"
) -> Values:
    """One row an edge (place, target), with the columns of ``wanted``: log p, rank, entropy, variance."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    places, targets = places.to(logits.device), targets.to(logits.device)
    normal, own = _normals(logits, dtype), logits[places, targets].to(dtype)
    columns = [own - normal[places]]
    if wanted != "logprob":
        columns.append(_ranks(logits, places, targets, own))
    if wanted == "all":
        columns += [moment[places] for moment in _moments(logits, normal)]
    return torch.stack([column.double() for column in columns], dim=1).cpu().numpy()


def _normals(logits: Float[Tensor, "place d_vocab"], dtype: torch.dtype) -> Float[Tensor, " place"]:
    """The logarithm of the sum of exponentials of each row."""
    out = torch.empty(len(logits), dtype=dtype, device=logits.device)
    step = max(8, NEAR // max(1, logits.shape[1]))
    for first in range(0, len(logits), step):
        out[first : first + step] = logits[first : first + step].to(dtype).logsumexp(dim=-1)
    return out


def _ranks(
    logits: Float[Tensor, "place d_vocab"], places: Int[Tensor, " edge"], targets: Int[Tensor, " edge"], own: Float[Tensor, " edge"]
) -> Int[Tensor, " edge"]:
    rank, ids = torch.zeros_like(targets), torch.arange(logits.shape[1], device=logits.device)
    for first in range(0, logits.shape[1], SLICE):
        at = slice(first, first + SLICE)
        part = logits[:, at].to(own.dtype)[places]
        rank += ((part > own[:, None]) | ((part == own[:, None]) & (ids[at] < targets[:, None]))).sum(1)
    return rank


def _moments(
    logits: Float[Tensor, "place d_vocab"], normal: Float[Tensor, " place"]
) -> tuple[Float64[Tensor, " place"], Float64[Tensor, " place"]]:
    """Entropy −Σ p log p and variance Σ p (log p + entropy)²; the mean of log p is minus the entropy."""
    entropy = torch.zeros(len(logits), dtype=torch.float64, device=logits.device)
    variance = torch.zeros_like(entropy)
    parts = [slice(first, first + SLICE) for first in range(0, logits.shape[1], SLICE)]
    for at in parts:
        logp = logits[:, at].to(normal.dtype) - normal[:, None]
        entropy -= _weighted(logp, logp).double().sum(1)
    for at in parts:  # a second time: the difference of two large sums would lose what is small
        logp = logits[:, at].to(normal.dtype) - normal[:, None]
        variance += _weighted(logp, (logp + entropy.to(logp.dtype)[:, None]).square()).double().sum(1)
    return entropy, variance


def _weighted(logp: Tensor, value: Tensor) -> Tensor:
    """``p · value``, and 0 where p is 0 whatever the value."""
    p = logp.exp()
    return torch.where(p > 0, p * value, torch.zeros_like(p))


def picked(
    logits: Float[Tensor, "batch pos d_vocab"], rows: Int[Tensor, " edge"], places: Int[Tensor, " edge"], targets: Int[Tensor, " edge"]
) -> list[float]:
    """log p of ``targets`` at (row, place)."""
    flat = rows * logits.shape[1] + places
    return read(logits.flatten(0, 1), flat, targets)[:, 0].tolist()
