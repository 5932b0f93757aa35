"""Does the sum of the attributions of what is taken away say how far the answer moves?

For subsets S of an item's candidates, each candidate in S with probability one half,

    infidelity = mean over S of (sum_{j in S} attribution_j - (f(x) - f(x without S)))^2

in squared units of the scalar; and, since some methods promise no scale, the same with each item's attributions times the one factor that
serves it best, divided by the mean square of what is to be told: 0 tells all of it, 1 none.

Source: Yeh, Hsieh, Suggala, Inouye and Ravikumar, On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019 (arXiv:1901.09392),
definition 2.1 with a random subset of the features taken to the baseline, and section 2.3 on the factor.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.asked import Asked


def subsets(candidate: Bool[np.ndarray, "batch pos"], draws: int, rng: np.random.Generator) -> Bool[np.ndarray, "draw batch pos"]:
    """``draws`` subsets of each item's candidates, none empty where there is one."""
    drawn = rng.random((draws, *candidate.shape))
    taken = np.logical_and(drawn < 0.5, candidate)
    least = np.where(candidate, drawn, np.inf)
    empty = np.logical_and(~taken.any(-1, keepdims=True), candidate.any(-1, keepdims=True))
    return taken | (empty & (least == least.min(-1, keepdims=True)))


def infidelity(
    asked: Asked,
    start: Float[Tensor, "batch pos d_model"],
    attribution: Float[np.ndarray, "scored batch pos"],
    taken: Bool[np.ndarray, "draw batch pos"],
) -> tuple[Float[np.ndarray, "scored batch"], Float[np.ndarray, "scored batch"]]:
    """Infidelity as it is, and with the best factor as a share (NaN where no subset moves the answer)."""
    draws, batch, width = taken.shape
    rows = torch.arange(batch).repeat(draws)
    found = asked.kept_values(rows, torch.from_numpy(~taken.reshape(-1, width)), start).numpy().reshape(draws, batch)
    moved = asked.value.numpy() - found  # draw batch
    told = np.einsum("dbp,kbp->kdb", taken.astype(float), np.nan_to_num(attribution))
    plain = ((told - moved) ** 2).mean(1)
    square, both, size = (moved**2).mean(0), (told * moved).mean(1), (told**2).mean(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        explained = np.where(size > 0, both**2 / size, 0.0)
        return plain, np.where(square > 0, np.maximum(1 - explained / square, 0.0), np.nan)
