"""Tests on counts and ranks: exact McNemar, a rate against chance, and the rank form of the area under the ROC curve."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar

from workbench.core.finding import Interval
from workbench.core.stats.checks import counted, inside, numbers, whole
from workbench.core.stats.intervals import clopper_pearson


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided exact p-value that ``b`` and ``c``, the two kinds of discordant pair, are equally likely (McNemar 1947).

    The concordant pairs carry no information. With no discordant pair at all p is 1.
    """
    b, c = whole("b", b), whole("c", c)
    if b + c == 0:
        return 1.0
    found: Any = mcnemar([[0, b], [c, 0]], exact=True)  # its fields are set at run time
    return min(1.0, float(found.pvalue))


@dataclass(frozen=True)
class Reach:
    """How ``k`` of ``n`` stands against ``chance``: the rate, its exact interval, the one-sided p, and whether p < 1 - level."""

    k: int
    n: int
    rate: float
    chance: float
    p: float
    interval: Interval
    reached: bool


def reaches(k: int, n: int, chance: float, *, level: float = 0.95) -> Reach:
    """Whether ``k`` of ``n`` is more than ``chance`` (0 < chance < 1) gives: the exact one-sided binomial test.

    ``interval`` is the two-sided Clopper-Pearson interval of the rate at ``level``.
    """
    k, n = counted(k, n)
    inside("chance", chance)
    interval = clopper_pearson(k, n, level)
    p = float(stats.binomtest(k, n, chance, alternative="greater").pvalue)
    return Reach(k=k, n=n, rate=k / n, chance=float(chance), p=p, interval=interval, reached=p < 1 - level)


@dataclass(frozen=True)
class RankAUC:
    """The chance that a positive outranks a negative, ties counting half, with its interval and the counts of both sides."""

    value: float
    interval: Interval
    positives: int
    negatives: int


def rank_auc(pos: ArrayLike, neg: ArrayLike, *, level: float = 0.95) -> RankAUC:
    """Area under the ROC curve of scores ``pos [m]`` over ``neg [n]``: Mann-Whitney's U / (m n).

    The interval is Newcombe's (2006, Statistics in Medicine 25:559, method 5): the score interval with Hanley and
    McNeil's variance, which keeps a width at 0 and 1. It takes the items as independent.
    """
    x, y = numbers("pos", pos), numbers("neg", neg)
    inside("level", level)
    m, n = len(x), len(y)
    ranks = stats.rankdata(np.concatenate([x, y]))
    value = float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))
    return RankAUC(value=value, interval=area_interval(value, m, n, level=level), positives=m, negatives=n)


def area_interval(value: float, m: int, n: int, *, level: float = 0.95) -> Interval:
    """Newcombe's interval (method 5) of an area under the ROC curve from ``m`` independent positives and ``n`` negatives. Where scores come
    in clusters, the clusters are what is counted: that is wide, and never too narrow."""
    inside("level", level)
    z = float(stats.norm.ppf((1 + level) / 2))
    low, high = _lowest_area(value, m, n, z), 1 - _lowest_area(1 - value, m, n, z)
    return Interval(low=low, high=high, level=level, method="Newcombe 5")


def _lowest_area(value: float, m: int, n: int, z: float) -> float:
    """The area A below ``value`` at which value - A = z · SE(A); 0 where ``value`` is 0.

    The variance is the same at A and 1 - A, so the upper bound is 1 minus the lowest area of 1 - value.
    """
    if value <= 0:
        return 0.0

    def gap(area: float) -> float:
        spread = 1 + ((m + n) / 2 - 1) * ((1 - area) / (2 - area) + area / (1 + area))
        return value - area - z * math.sqrt(area * (1 - area) * spread / (m * n))

    # gap is positive at 0 and negative at ``value``; at 1 it is zero by its last factor, which is not the root meant
    root: Any = optimize.brentq(gap, 0.0, min(value, 1 - 1e-9))
    return float(root)
