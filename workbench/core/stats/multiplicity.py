"""Adjusted p-values for a declared family of tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from workbench.core.errors import BadValue
from workbench.core.stats.checks import Floats, numbers


def holm(p: ArrayLike) -> Floats:
    """Holm's (1979) step-down adjusted p-values ``[m]`` in the order given: reject where <= alpha to bound the chance of
    any false rejection by alpha, under any dependence."""
    values = _probabilities(p)
    order = np.argsort(values, kind="stable")
    # statsmodels has this too, but collects garbage at each call (70 ms); tests compare with it
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def benjamini_hochberg(p: ArrayLike) -> Floats:
    """Benjamini and Hochberg's (1995) adjusted p-values ``[m]`` in the order given: reject where <= q to bound the expected
    share of false rejections by q, for independent or positively dependent tests."""
    return np.asarray(stats.false_discovery_control(_probabilities(p), method="bh"), dtype=np.float64)


def _probabilities(p: ArrayLike) -> Floats:
    values = numbers("p", p)
    if bad := int(((values < 0) | (values > 1)).sum()):
        raise BadValue("the count of p-values outside 0 … 1", bad, "0")
    return values
