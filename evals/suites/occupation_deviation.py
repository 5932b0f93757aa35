"""How far an occupation's share of *she* stands from where the model puts an occupation without a lean.

A model may prefer one pronoun everywhere; that common shift says nothing of occupations. Occupation k's *deviation* is its share less
the intercept of the line fitted to the *other* occupations' shares on their leans. With independent normal noise of equal size on
each occupation (training and contexts together), the interval

    deviation ± t_{K−3} · s_(k) · sqrt(1 + 1/(K−1) + x̄² / Sxx)

has its nominal coverage exactly, s_(k) being the residual deviation of the line without k (K − 3 degrees of freedom): it is the prediction
interval of linear regression (Draper and Smith, Applied Regression Analysis, section 3.1) at x = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from workbench.core.errors import BadValue
from workbench.core.result import Result

Floats = NDArray[np.float64]
LEAST = 5
"""Occupations below which no residual spread is left to judge by."""


@dataclass(frozen=True)
class Deviations:
    """``deviation``, ``low``, ``high``, ``planted`` ``[occupation]`` in probability units, at ``level``."""

    deviation: Floats
    low: Floats
    high: Floats
    planted: Floats
    level: float

    def covered(self) -> int:
        """In how many occupations the interval holds the planted deviation."""
        return int(((self.low <= self.planted) & (self.planted <= self.high)).sum())


def deviations(result: Result, *, level: float = 0.95) -> Deviations:
    """The deviations of an ``occupation-pronoun`` result, of the occupations that were scored. Raises BadValue under five of them."""
    v = result.values
    usable = np.isfinite(v.measured.values)
    measured, x, planted = v.measured.values[usable], v.lean.values[usable] / 2, v.planted.values[usable] - 0.5
    return Deviations(*prediction(measured, x, level), planted, level)


def prediction(y: Floats, x: Floats, level: float) -> tuple[Floats, Floats, Floats]:
    """Deviation of each ``y`` from the others' intercept with its bounds, as the module's head says."""
    if len(y) < LEAST:
        raise BadValue("the scored occupations", len(y), f"at least {LEAST}")
    half, deviation = np.empty(len(y)), np.empty(len(y))
    quantile = float(stats.t.ppf((1 + level) / 2, len(y) - 3))
    for k in range(len(y)):
        others = np.arange(len(y)) != k
        xs, ys = x[others], y[others]
        centred = xs - xs.mean()
        sxx = float(centred @ centred)
        if sxx == 0:
            raise BadValue("the occupations' leans", float(xs[0]), "not all equal")
        slope = float(centred @ ys) / sxx
        intercept = ys.mean() - slope * xs.mean()
        spread = math.sqrt(float(((ys - intercept - slope * xs) ** 2).sum()) / (len(ys) - 2))
        deviation[k] = y[k] - intercept
        half[k] = quantile * spread * math.sqrt(1 + 1 / len(ys) + xs.mean() ** 2 / sxx)
    return deviation, deviation - half, deviation + half
