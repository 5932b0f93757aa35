"""Showing that an effect is small: two one-sided tests (Schuirmann 1987) and the interval that says the same.

Failing to reject "no effect" shows nothing; an effect is equivalent to ``null`` within ``margin`` when both "it is at
or below null - margin" and "it is at or above null + margin" are rejected at ``alpha``. That holds exactly when the
1 - 2·alpha interval lies strictly inside the margin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from numpy.typing import ArrayLike
from scipy import stats

from workbench.core.errors import BadValue
from workbench.core.finding import Interval
from workbench.core.stats.checks import all_equal, finite, inside, numbers, positive


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests: ``p`` is the larger of ``p_below`` (the effect is not too low) and ``p_above`` (not too high)."""

    estimate: float
    se: float
    df: float
    null: float
    margin: float
    p_below: float
    p_above: float
    p: float
    alpha: float
    interval: Interval
    equivalent: bool


def tost_estimate(estimate: float, se: float, df: float, margin: float, *, null: float = 0.0, alpha: float = 0.05) -> Equivalence:
    """Equivalence of an ``estimate`` with standard error ``se`` (> 0) to ``null`` within ±``margin`` (> 0).

    ``df`` are the degrees of freedom of ``se``; ``math.inf`` gives the normal form. ``interval`` has level 1 - 2·alpha.
    """
    interval = equivalence_interval(estimate, se, df, alpha=alpha)
    positive("margin", margin)
    finite("null", null)
    p_below = float(stats.t.sf((estimate - (null - margin)) / se, df))
    p_above = float(stats.t.cdf((estimate - (null + margin)) / se, df))
    p = max(p_below, p_above)
    return Equivalence(
        estimate=float(estimate), se=float(se), df=float(df), null=float(null), margin=float(margin), p_below=p_below,
        p_above=p_above, p=p, alpha=float(alpha), interval=interval, equivalent=p < alpha,
    )  # fmt: skip


def tost(values: ArrayLike, margin: float, *, null: float = 0.0, alpha: float = 0.05) -> Equivalence:
    """Equivalence of the mean of ``values [n]`` (n >= 2, not all equal; paired: the differences) to ``null`` within ±``margin``."""
    x = numbers("values", values, least=2)
    if all_equal(x):
        raise BadValue(
            "values", f"{x[0]:g} in all {len(x)} items", "of at least two different values",
            do="Equal values have no standard error; use mean_interval with bounds.",
        )  # fmt: skip
    return tost_estimate(float(x.mean()), float(stats.sem(x)), len(x) - 1, margin, null=null, alpha=alpha)


def equivalence_interval(estimate: float, se: float, df: float, *, alpha: float = 0.05) -> Interval:
    """The two-sided 1 - 2·alpha interval: equivalent at ``alpha`` exactly when it lies strictly inside the margin."""
    inside("alpha", alpha, 0.0, 0.5)
    centre, half = finite("estimate", estimate), float(stats.t.ppf(1 - alpha, _freedom(df))) * positive("se", se)
    return Interval(low=centre - half, high=centre + half, level=1 - 2 * alpha, method="Student t, 1 - 2·alpha")


def _freedom(df: float) -> float:
    return df if df == math.inf else positive("df", df)
