"""The limit of detection: the dose from which on a planted thing is found with a stated power, where nothing is found too often.

The share found rises with the logarithm of the dose as a probit curve over a floor, the share of false alarms (Finney 1971, Probit
Analysis, with natural response): P(found at d) = c + (1 - c) Φ(z + b (ln d - ln L)), where z is chosen so that P = ``power`` at d = L.
L and the slope b are found on a fine grid, so that a complete separation (found always above some dose and never below) has an answer
like any other. The interval is by profile likelihood; models of one dose that differ by more than chance (each is a cluster of cases)
widen it by Finney's heterogeneity factor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from workbench.core.errors import BadValue
from workbench.core.finding import Interval
from workbench.core.stats.checks import Floats, inside, numbers, same_length

Where = Literal["within the range", "below the lowest dose", "above the highest dose"]
POINTS, SLOPES, MARGIN = 400, 60, 4.0
"""Grid points of the limit (from the lowest dose / ``MARGIN`` to the highest · ``MARGIN``) and of the slope."""


@dataclass(frozen=True)
class Limit:
    """``value``: the dose found with ``power``, or None outside the tested doses, where ``where`` says on which side it lies. ``interval``
    is cut at the grid's ends; ``slope`` is b; ``heterogeneity`` the factor (1 where models of one dose differ by chance alone)."""

    value: float | None
    interval: Interval | None
    where: Where
    slope: float
    heterogeneity: float
    power: float
    cells: int


def limit_of_detection(
    doses: ArrayLike, found: ArrayLike, cases: ArrayLike, *, false_positive: float = 0.05, power: float = 0.8, level: float = 0.95
) -> Limit:
    """The limit from one row a model (cluster): its dose (above 0), how many of its cases were found, and how many there were.

    Needs three doses and four rows. Raises BadValue otherwise, and for counts that cannot be.
    """
    d, k, n = (numbers(name, values, least=4) for name, values in (("doses", doses), ("found", found), ("cases", cases)))
    same_length("doses", d, "found", k)
    same_length("doses", d, "cases", n)
    if (d <= 0).any():
        raise BadValue("doses", float(d.min()), "above 0: the clean twins are the null, not a dose")
    if len(np.unique(d)) < 3:
        raise BadValue("the number of different doses", len(np.unique(d)), "at least 3")
    if (n < 1).any() or (k < 0).any() or (k > n).any() or (k % 1).any() or (n % 1).any():
        raise BadValue("found and cases", "counts that cannot be", "whole numbers, 0 <= found <= cases and cases at least 1")
    inside("false_positive", false_positive)
    inside("power", power, false_positive, 1.0)
    limits = np.exp(np.linspace(np.log(d.min() / MARGIN), np.log(d.max() * MARGIN), POINTS))
    slopes = np.exp(np.linspace(np.log(0.3), np.log(60.0), SLOPES))
    likelihood = _likelihood(d, k, n, limits, slopes, false_positive, power)
    best, steepest = (int(i) for i in np.unravel_index(likelihood.argmax(), likelihood.shape))
    heterogeneity = _heterogeneity(d, k, n, limits[best], slopes[steepest], false_positive, power)
    profile = likelihood.max(1)
    enough = profile >= profile[best] - 0.5 * heterogeneity * float(stats.chi2.ppf(level, 1))
    within = Interval(low=float(limits[enough].min()), high=float(limits[enough].max()), level=level, method="profile likelihood")
    where: Where = "within the range"
    if limits[best] < d.min():
        where = "below the lowest dose"
    elif limits[best] > d.max():
        where = "above the highest dose"
    inside_range = where == "within the range"
    return Limit(
        float(limits[best]) if inside_range else None, within if inside_range else None, where, float(slopes[steepest]), heterogeneity,
        power, len(d),
    )  # fmt: skip


def found_at(dose: ArrayLike, limit: float, slope: float, false_positive: float, power: float) -> Floats:
    """The share found at doses, by the curve."""
    z = float(special.ndtri((power - false_positive) / (1 - false_positive)))
    return np.asarray(false_positive + (1 - false_positive) * special.ndtr(z + slope * (np.log(np.asarray(dose)) - np.log(limit))))


def _likelihood(d: Floats, k: Floats, n: Floats, limits: Floats, slopes: Floats, c: float, power: float) -> Floats:
    """Log-likelihood ``[limit, slope]`` of all rows."""
    z = float(special.ndtri((power - c) / (1 - c)))
    total = np.zeros((len(limits), len(slopes)))
    for dose, hits, count in zip(d, k, n, strict=True):
        p = c + (1 - c) * special.ndtr(z + slopes[None] * (np.log(dose) - np.log(limits))[:, None])
        total += special.xlogy(hits, p) + special.xlogy(count - hits, 1 - p)
    return total


def _heterogeneity(d: Floats, k: Floats, n: Floats, limit: float, slope: float, c: float, power: float) -> float:
    """Pearson's statistic over its degrees of freedom, at least 1. Expected counts under one half are no evidence either way: a cell
    counts only where both outcomes were to be expected at least so often."""
    p = found_at(d, limit, slope, c, power)
    spread = n * p * (1 - p)
    counted = np.minimum(n * p, n * (1 - p)) >= 0.5
    freedom = int(counted.sum()) - 2
    if freedom < 1:
        return 1.0
    return max(1.0, float(((k - n * p) ** 2 / np.where(spread > 0, spread, 1.0))[counted].sum() / freedom))
