"""The mean of values that share two things at once: a question and a person, a scenario and a wording.

Each value lies in a cell of two crossed factors, and both make values alike. Drawing items, or one factor alone, gives an interval that
is too narrow. The variance is that of Cameron, Gelbach and Miller (2011, J. Business and Economic Statistics 29:238): by the first
factor, plus by the second, less by both together; at least the larger of the two, since their difference can fall below it by chance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from workbench.core.errors import BadValue
from workbench.core.finding import Interval
from workbench.core.stats.checks import Floats, grouped, inside, numbers
from workbench.core.stats.intervals import constant_interval
from workbench.core.stats.resampling import fewest


@dataclass(frozen=True)
class Crossed:
    """The mean with its standard error and interval; ``shares``: of the variance of the mean what each factor alone would give, and what
    items as independent would."""

    value: float
    se: float
    interval: Interval
    n: int
    first: int
    second: int
    shares: tuple[float, float, float]


def crossed_mean(
    values: ArrayLike, first: ArrayLike, second: ArrayLike, *, level: float = 0.95, bounds: tuple[float, float] | None = None
) -> Crossed:  # fmt: skip
    """The mean of ``values [n]`` in the cells of ``first [n]`` and ``second [n]``, with Student's t on the levels of the smaller factor
    less one.

    Raises BadValue for a factor of fewer levels than an interval can be honest with, and for equal values without ``bounds``.
    """
    x = numbers("values", values, least=2)
    inside("level", level)
    a, b = grouped(first, len(x)), grouped(second, len(x))
    levels = int(a.max()) + 1, int(b.max()) + 1
    if min(levels) < fewest(level):
        raise BadValue("the levels of the two factors", levels, f"at least {fewest(level)} of each at level {level:g}")
    value = float(x.mean())
    rest = x - value
    both = np.unique(a.astype(np.int64) * (levels[1] + 1) + b, return_inverse=True)[1]
    parts = [_variance(rest, codes) for codes in (a, b, both)]
    variance = max(parts[0] + parts[1] - parts[2], parts[0], parts[1])
    alone = float(rest.var(ddof=1)) / len(x)
    if variance <= 1e-24 * max(1.0, value * value):
        interval = constant_interval(value, min(levels), level, bounds)
        return Crossed(value, 0.0, interval, len(x), *levels, (0.0, 0.0, 0.0))
    se = math.sqrt(variance)
    half = float(stats.t.ppf((1 + level) / 2, min(levels) - 1)) * se
    interval = Interval(
        low=value - half,
        high=value + half,
        level=level,
        method=f"Student t, {levels[0]} and {levels[1]} crossed clusters (Cameron et al. 2011)",
    )
    return Crossed(value, se, interval, len(x), *levels, (parts[0] / variance, parts[1] / variance, alone / variance))


def _variance(rest: Floats, codes: np.ndarray) -> float:
    """Of the mean, from the sums of deviations within each cluster, with the correction G / (G − 1)."""
    sums = np.bincount(codes, rest)
    return float((sums**2).sum()) / len(rest) ** 2 * len(sums) / (len(sums) - 1)
