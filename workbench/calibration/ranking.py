"""What a tool is worth that ranks things of which one was planted: how far it stands above the others, item by item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from workbench.calibration.exam import Reading
from workbench.core.stats.counts import reaches


@dataclass(frozen=True)
class Standing:
    """Of one item: the share of the others that the planted thing stands above (ties half), and its rank (ties against it)."""

    above: float
    rank: int

    @classmethod
    def of(cls, own: float, others: ArrayLike) -> Standing:
        """From the strengths a tool gives. Raises ValueError where one is no number: an instrument has refused before this."""
        rivals = np.asarray(others)
        if not np.isfinite(own) or np.isnan(rivals).any():
            raise ValueError("a strength that is not finite")
        level = np.greater_equal(rivals, own)
        return cls(float(1 - level.mean() + 0.5 * np.equal(rivals, own).mean()), 1 + int(level.sum()))


def reading(each: list[Standing]) -> Reading:
    """Of a set of items: the mean share, whether the exact one-sided test claims that it stands above most others more often than not, how
    often it is first, and the average precision, which with one planted thing is one over its rank."""
    above, ranks = np.array([one.above for one in each]), np.array([one.rank for one in each])
    decided = above != 0.5
    claims = bool(decided.any()) and reaches(int((above > 0.5).sum()), int(decided.sum()), 0.5).reached
    extras = {"planted part first": float((ranks == 1).mean()), "average precision": float((1 / ranks).mean())}
    return Reading(float(above.mean()), claims, extras)
