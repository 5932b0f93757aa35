"""The difference of two means of different items: what is left to compare where nothing can be paired."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from workbench.core.errors import BadValue
from workbench.core.finding import Interval
from workbench.core.stats.checks import Floats, grouped, inside, numbers


def unpaired_interval(
    a: ArrayLike, b: ArrayLike, *, clusters_a: ArrayLike | None = None, clusters_b: ArrayLike | None = None, level: float = 0.95
) -> Interval:
    """Welch's t interval of mean(a) - mean(b) for ``a [n]`` and ``b [m]`` of different items (Welch 1947, with Satterthwaite's degrees).

    With clusters the variance of each mean is that of a ratio of cluster sums, linearised (Cochran 1977, section 6.3), and clusters are
    what is counted. Raises BadValue for fewer than two units on a side, and where neither side has any spread.
    """
    inside("level", level)
    sides = [mean_of_units("a", numbers("a", a), clusters_a), mean_of_units("b", numbers("b", b), clusters_b)]
    spread = [variance for _, variance, _ in sides]
    if sum(spread) <= 0:
        raise BadValue("the spread of both sides", 0, "above 0 on one side at least")
    free = sum(spread) ** 2 / sum(variance**2 / (units - 1) for _, variance, units in sides)
    half = float(stats.t.ppf((1 + level) / 2, free)) * math.sqrt(sum(spread))
    centre = sides[0][0] - sides[1][0]
    of = f" of {sides[0][2]} and {sides[1][2]} clusters" if clusters_a is not None or clusters_b is not None else ""
    return Interval(low=centre - half, high=centre + half, level=level, method=f"Welch t, unpaired{of}")


def mean_of_units(name: str, values: Floats, clusters: ArrayLike | None) -> tuple[float, float, int]:
    """The mean of ``values [n]``, the variance of the mean, and the number of units (clusters, else values). Raises BadValue for fewer
    than two."""
    codes = np.arange(len(values)) if clusters is None else grouped(clusters, len(values))
    units = int(codes.max()) + 1
    if units < 2:
        raise BadValue(f"the number of units of {name}", units, "at least 2")
    sums, sizes = np.bincount(codes, weights=values), np.bincount(codes)
    mean = float(values.mean())
    rest = sums - mean * sizes
    return mean, float(units / (units - 1) * (rest**2).sum() / len(values) ** 2), units
