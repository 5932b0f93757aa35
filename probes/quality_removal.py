"""Does taking away what an attribution puts first change the answer, and is what it puts first enough?

An attribution orders an item's candidates. With f the scalar, x the item and n its candidates:

    comprehensiveness = mean over shares q of  f(x) - f(x without the first ceil(q n))         high is good
    sufficiency       = mean over shares q of  f(x) - f(x with only the first ceil(q n))       low is good
    deletion(s)       = f(x without the first round(s n)),  its area: the mean over s          low is good
    insertion(s)      = f(x with only the first round(s n)), its area                          high is good

Sources: DeYoung et al., ERASER, ACL 2020 (arXiv:1911.03429), section 4; Petsiuk, Das and Saenko, RISE, BMVC 2018 (arXiv:1806.07421).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.asked import Asked


@dataclass(frozen=True)
class Removed:
    """Of each attribution and item ``[scored, batch]``, and the two curves ``[scored, batch, share]``, in units of the scalar."""

    comprehensiveness: Float[np.ndarray, "scored batch"]
    sufficiency: Float[np.ndarray, "scored batch"]
    deletion: Float[np.ndarray, "scored batch share"]
    insertion: Float[np.ndarray, "scored batch share"]
    share: Float[np.ndarray, " share"]

    def area(self, curve: Float[np.ndarray, "scored batch share"]) -> Float[np.ndarray, "scored batch"]:
        """The area under a curve over shares 0 to 1 (trapezoids)."""
        return np.trapezoid(curve, self.share, axis=-1)


def placed(
    strength: Float[np.ndarray, "scored batch pos"], candidate: Bool[np.ndarray, "batch pos"], rng: np.random.Generator
) -> Int[np.ndarray, "scored batch pos"]:
    """The place of every candidate in its item's order, 0 the strongest; equal ones in random order. Others stand behind all."""
    behind = np.where(candidate, -strength, np.inf)
    order = np.lexsort((rng.random(strength.shape), behind), axis=-1)
    return np.argsort(order, axis=-1)


def removed(
    asked: Asked,
    start: Float[Tensor, "batch pos d_model"],
    place: Int[np.ndarray, "scored batch pos"],
    candidate: Bool[np.ndarray, "batch pos"],
    shares: Sequence[float],
    points: int,
) -> Removed:
    """Both measures and both curves of every order. All edited versions of all items run together, equal ones once."""
    scored, batch, width = place.shape
    count = candidate.sum(1)  # batch
    share = np.linspace(0, 1, points + 1)
    binned = np.ceil(np.asarray(shares)[:, None] * count).astype(int)  # cut batch
    curved = np.floor(share[:, None] * count + 0.5).astype(int)
    cuts = np.concatenate([binned, curved])
    first = place[:, None] < cuts[None, :, :, None]  # scored cut batch pos
    kept = np.stack([~first | ~candidate, first | ~candidate])  # without them, with only them
    rows = np.broadcast_to(np.arange(batch), kept.shape[:-1])
    found = asked.kept_values(torch.from_numpy(rows.reshape(-1).copy()), torch.from_numpy(kept.reshape(-1, width)), start)
    without, alone = found.numpy().reshape(2, scored, len(cuts), batch)
    value, bins = asked.value.numpy(), len(binned)
    return Removed(
        (value - without[:, :bins]).mean(1),
        (value - alone[:, :bins]).mean(1),
        without[:, bins:].transpose(0, 2, 1),
        alone[:, bins:].transpose(0, 2, 1),
        share,
    )
