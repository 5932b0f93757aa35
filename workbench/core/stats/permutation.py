"""Permutation tests of a difference of means, exact where all arrangements can be counted (scipy's ``permutation_test``).

When they are drawn instead, the arrangement seen counts as one of them, so p is never 0 (Phipson and Smyth 2010).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from workbench.core.stats.checks import Floats, grouped, numbers, pairs, whole


@dataclass(frozen=True)
class Permuted:
    """A difference of means with its two-sided permutation p-value.

    ``units`` is what was exchanged (items or clusters), ``arrangements`` how many were looked at, ``exact`` whether
    those were all there are.
    """

    effect: float
    p: float
    n: int
    units: int
    arrangements: int
    exact: bool


def paired_permutation(
    a: ArrayLike, b: ArrayLike, *, clusters: ArrayLike | None = None, draws: int = 9999, seed: int = 0
) -> Permuted:  # fmt: skip
    """Mean of ``a [n]`` minus mean of ``b [n]`` on the same items, against swapping a and b within items (sign flips).

    With ``clusters`` whole clusters are swapped. Exact when 2^units <= ``draws``: up to 13 units by default.
    """
    first, second = pairs(a, b)
    whole("draws", draws, least=99)
    whole("seed", seed)
    differences = first - second
    if clusters is not None:
        differences = np.bincount(grouped(clusters, len(first)), weights=differences)
    effect, units = float((first - second).mean()), len(differences)
    exact = 2**units <= draws
    if not differences.any():
        return Permuted(effect=0.0, p=1.0, n=len(first), units=units, arrangements=1, exact=True)
    if units == 1:
        return Permuted(effect=effect, p=1.0, n=len(first), units=1, arrangements=2, exact=True)
    found = stats.permutation_test(
        (differences,), _total, permutation_type="samples", vectorized=True, n_resamples=draws,
        batch=_batch(units), rng=np.random.Generator(np.random.PCG64(seed)),
    )  # fmt: skip
    return Permuted(
        effect=effect, p=float(found.pvalue), n=len(first), units=units, arrangements=2**units if exact else draws + 1, exact=exact
    )


def permutation_test(x: ArrayLike, y: ArrayLike, *, draws: int = 9999, seed: int = 0) -> Permuted:
    """Mean of ``x [m]`` minus mean of ``y [n]``, two independent groups of at least two, against dealing the labels anew.

    Exact when there are at most ``draws`` ways to deal them. The two-sided p is twice the smaller side, at most 1.
    """
    first, second = numbers("x", x, least=2), numbers("y", y, least=2)
    whole("draws", draws, least=99)
    whole("seed", seed)
    n, ways = len(first) + len(second), math.comb(len(first) + len(second), len(first))
    found = stats.permutation_test(
        (first, second), _difference, permutation_type="independent", vectorized=True, n_resamples=draws,
        batch=_batch(n), rng=np.random.Generator(np.random.PCG64(seed)),
    )  # fmt: skip
    exact = ways <= draws
    effect = float(first.mean() - second.mean())
    return Permuted(effect=effect, p=float(found.pvalue), n=n, units=n, arrangements=ways if exact else draws + 1, exact=exact)


def _total(differences: Floats, axis: int) -> Floats:
    return differences.sum(axis=axis)


def _difference(x: Floats, y: Floats, axis: int) -> Floats:
    return x.mean(axis=axis) - y.mean(axis=axis)


def _batch(units: int) -> int:
    return max(1, 2_000_000 // units)
