"""Intervals with a formula: rates (Wilson, Clopper-Pearson) and means (Student's t).

All return ``core.finding.Interval``; ``level`` 0.95 means 95 %, two-sided, with equal tails.
"""

from __future__ import annotations

import math

from numpy.typing import ArrayLike
from scipy import stats

from workbench.core.errors import BadValue
from workbench.core.finding import Interval
from workbench.core.stats.checks import all_equal, counted, finite, inside, numbers


def wilson(k: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval for a rate of ``k`` of ``n`` (Wilson 1927; Newcombe 1998, method 3).

    Covers close to its level on average over rates, at any n >= 1. Raises BadValue unless 0 <= k <= n and n >= 1.
    """
    return _rate(k, n, level, "wilson")


def clopper_pearson(k: int, n: int, level: float = 0.95) -> Interval:
    """The exact interval for a rate of ``k`` of ``n`` (Clopper and Pearson 1934): covers at least ``level`` at every rate."""
    return _rate(k, n, level, "exact")


def _rate(k: int, n: int, level: float, method: str) -> Interval:
    k, n = counted(k, n)
    inside("level", level)
    found = stats.binomtest(k, n).proportion_ci(level, method=method)
    # the bounds at k = 0 and k = n are exactly 0 and 1, which rounding in the formula can miss by 1e-17
    low, high = (0.0 if k == 0 else float(found.low)), (1.0 if k == n else float(found.high))
    return Interval(low=low, high=high, level=level, method={"wilson": "Wilson", "exact": "Clopper-Pearson"}[method])


def mean_interval(values: ArrayLike, level: float = 0.95, *, bounds: tuple[float, float] | None = None) -> Interval:
    """Student's t interval for the mean of ``values [n]``, n >= 2.

    Values that are all equal carry no spread: with ``bounds`` (the smallest and largest value possible) see
    ``constant_interval``, without them it is a BadValue.
    """
    x = numbers("values", values, least=2)
    inside("level", level)
    if all_equal(x):
        return constant_interval(float(x[0]), len(x), level, bounds)
    centre, half = float(x.mean()), float(stats.t.ppf((1 + level) / 2, len(x) - 1) * stats.sem(x))
    return Interval(low=centre - half, high=centre + half, level=level, method="Student t")


def constant_interval(value: float, n: int, level: float, bounds: tuple[float, float] | None) -> Interval:
    """The interval for the mean when all ``n`` values seen equal ``value`` and no value lies outside ``bounds``.

    At confidence ``level`` at most a share s = 1 - (1 - level)^(1/n) of the population differs from what was seen
    n times (the binomial bound behind the "rule of three", Hanley and Lippman-Hand 1983); the mean is furthest off
    when that share sits at a bound. Raises BadValue without bounds: a width of zero would be a claim of certainty.
    """
    inside("level", level)
    if bounds is None:
        raise BadValue(
            "values", f"{value:g} in all {n} items", "of at least two different values",
            do="Use wilson for rates, or give bounds=(smallest, largest possible value).",
        )  # fmt: skip
    low, high = finite("bounds[0]", bounds[0]), finite("bounds[1]", bounds[1])
    if not low <= value <= high or low == high:
        raise BadValue("bounds", (low, high), f"two different numbers around the value {value:g}")
    share = -math.expm1(math.log1p(-level) / n)
    return Interval(low=value - share * (value - low), high=value + share * (high - value), level=level, method="exact for equal values")
