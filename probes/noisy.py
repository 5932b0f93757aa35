"""Random draws of one item that do not depend on the batch it comes in, and means over them with their standard errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.asked import Asked
from workbench.core.protocol import Progress


def size_of(asked: Asked, share: float) -> Float[np.ndarray, " batch"]:
    """``share`` of the root mean square of each item's embeddings (positions that are no control tokens)."""
    features = asked.features
    out = np.zeros(len(asked))
    for row in range(len(asked)):
        out[row] = share * float(asked.x[row][features[row].to(asked.x.device)].double().square().mean().sqrt())
    return np.nan_to_num(out)


def drawn(seed: int, row: int, sample: int) -> np.random.Generator:
    """The generator of one sample of one item."""
    return np.random.default_rng([seed, row, sample])


def noise_like(asked: Asked, row: int, size: float, rng: np.random.Generator) -> Float[Tensor, "pos d_model"]:
    """Normal noise of spread ``size`` on an item's positions that are no control tokens, 0 elsewhere."""
    kept = asked.features[row]
    out = torch.zeros(asked.x.shape[1:], dtype=torch.float64)
    out[kept] = torch.from_numpy(size * rng.standard_normal((int(kept.sum()), asked.x.shape[2])))
    return out.to(asked.x)


@dataclass(frozen=True)
class Averaged:
    """Mean over samples and its standard error ``[batch, pos]``."""

    mean: Float[np.ndarray, "batch pos"]
    error: Float[np.ndarray, "batch pos"]


def averaged(asked: Asked, samples: int, one: Callable[[Tensor, Tensor], Float[Tensor, "n pos"]], progress: Progress) -> Averaged:
    """The mean of ``one(rows, samples)`` over the samples of every item; (item, sample) pairs share passes."""
    pairs = torch.cartesian_prod(torch.arange(samples), torch.arange(len(asked)))
    total = torch.zeros(len(asked), asked.items.width, dtype=torch.float64)
    square = torch.zeros_like(total)
    for part in asked.passes(len(pairs)):
        sample, rows = pairs[part].unbind(1)
        found = one(rows, sample).double().cpu()
        total.index_add_(0, rows, found)
        square.index_add_(0, rows, found**2)
        progress(part.stop, len(pairs), "samples")
    mean = total / samples
    spread = (square / samples - mean**2).clamp_min(0) * samples / max(samples - 1, 1)
    return Averaged(mean.numpy(), (spread / samples).sqrt().numpy())


def each(rows: Tensor, samples: Tensor) -> Iterator[tuple[int, int]]:
    """The pairs as numbers."""
    yield from zip(rows.tolist(), samples.tolist(), strict=True)
