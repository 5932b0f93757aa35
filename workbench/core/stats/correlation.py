"""How closely two quantities, or their ranks, go together, with an interval.

Pearson's r and Spearman's rho through Fisher's z = artanh r, whose standard error is 1 / sqrt(n - 3) for r and
sqrt((1 + rho² / 2) / (n - 3)) for rho (Bonett and Wright, Psychometrika 65, 2000).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from workbench.core.errors import BadValue
from workbench.core.finding import Interval
from workbench.core.stats.checks import all_equal, inside, numbers, same_length


@dataclass(frozen=True)
class Correlation:
    """``value`` in -1 … 1; ``interval`` None where the points lie exactly on a line (or in one order) and say nothing of spread."""

    value: float
    interval: Interval | None
    n: int


def correlation(x: ArrayLike, y: ArrayLike, *, ranks: bool = False, level: float = 0.95) -> Correlation:
    """Of ``x [n]`` and ``y [n]``, n >= 4; ``ranks``: Spearman's, ties sharing ranks. Raises BadValue where either is constant."""
    first, second = numbers("x", x, least=4), numbers("y", y, least=4)
    same_length("x", first, "y", second)
    inside("level", level)
    for name, values in (("x", first), ("y", second)):
        if all_equal(values):
            raise BadValue(name, f"{values[0]:g} in all {len(values)} items", "of at least two different values")
    if ranks:
        first, second = stats.rankdata(first), stats.rankdata(second)
    value = float(np.clip(np.corrcoef(first, second)[0, 1], -1.0, 1.0))
    if 1 - abs(value) < 1e-12:
        return Correlation(math.copysign(1.0, value), None, len(first))
    error = math.sqrt((1 + value**2 / 2 if ranks else 1) / (len(first) - 3))
    half = float(stats.norm.ppf((1 + level) / 2)) * error
    low, high = (math.tanh(math.atanh(value) + side * half) for side in (-1, 1))
    method = "Fisher's z of ranks (Bonett and Wright)" if ranks else "Fisher's z"
    return Correlation(value, Interval(low=low, high=high, level=level, method=method), len(first))
