"""Which of many rows differ from which: every pair tested, and the family of all pairs controlled.

With d rows there are d (d − 1) / 2 tests; at 0.05 each, one in twenty of them is called different where nothing is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from workbench.core.errors import BadValue
from workbench.core.finding import Interval
from workbench.core.stats.checks import Floats, inside, whole
from workbench.core.stats.intervals import constant_interval
from workbench.core.stats.multiplicity import holm
from workbench.core.stats.resampling import fewest

DRAWS = 2000


@dataclass(frozen=True)
class Different:
    """The share of pairs that differ after Holm's adjustment, with its interval (rows are drawn; None for too few), the share without
    adjustment, and the number of rows and pairs."""

    share: float
    interval: Interval | None
    unadjusted: float
    rows: int
    pairs: int


def different_pairs(table: ArrayLike, *, level: float = 0.95, draws: int = DRAWS, seed: int = 0) -> Different:
    """Mann-Whitney's two-sided test (with its normal approximation and correction for ties) of each pair of rows of ``table [rows, n]``,
    at 1 − ``level``. NaN is not read: every row must be whole. Raises BadValue for fewer than two rows or five columns."""
    x = np.asarray(table, dtype=np.float64)
    inside("level", level)
    if x.ndim != 2 or len(x) < 2 or x.shape[1] < 5:
        raise BadValue("the shape of table", x.shape, "[rows, n], at least 2 rows of 5")
    if not np.isfinite(x).all():
        raise BadValue("the count of NaN or infinite numbers in table", int((~np.isfinite(x)).sum()), "0")
    first, second = np.triu_indices(len(x), 1)
    p = np.array(_mann_whitney(x[first], x[second]))
    alpha = 1 - level
    differ = holm(p) <= alpha
    matrix = np.zeros((len(x), len(x)))
    matrix[first, second] = matrix[second, first] = differ
    interval = _interval(matrix, float(differ.mean()), level, whole("draws", draws, least=20), whole("seed", seed))
    return Different(float(differ.mean()), interval, float((p <= alpha).mean()), len(x), len(p))


def _mann_whitney(a: Floats, b: Floats) -> Floats:
    """p of each row of ``a [pairs, n]`` against the same row of ``b``; 1 where all its values are equal."""
    equal = (np.ptp(np.concatenate([a, b], axis=1), axis=1) == 0) if len(a) else np.zeros(0, dtype=bool)
    out = np.ones(len(a))
    if (~equal).any():
        out[~equal] = stats.mannwhitneyu(a[~equal], b[~equal], axis=1, method="asymptotic").pvalue
    return out


def _interval(matrix: NDArray[np.float64], share: float, level: float, draws: int, seed: int) -> Interval | None:
    n = len(matrix)
    if n < fewest(level):
        return None
    if share in (0.0, 1.0):
        return constant_interval(share, n, level, (0.0, 1.0))
    by = np.random.Generator(np.random.PCG64(seed))
    weights = by.multinomial(n, np.full(n, 1 / n), draws).astype(float)
    pairs = n * n - (weights**2).sum(axis=1)  # pairs of two draws of one row say nothing
    found = np.einsum("di,ij,dj->d", weights, matrix, weights)[pairs > 0] / pairs[pairs > 0]
    wide = math.sqrt(n / (n - 1)) * float(stats.t.ppf((1 + level) / 2, n - 1))
    low, high = np.quantile(found, stats.norm.cdf([-wide, wide]))
    return Interval(low=float(min(low, share)), high=float(max(high, share)), level=level, method=f"percentile bootstrap of {n} rows")
