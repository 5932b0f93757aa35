"""How much nearer one set of vectors stands to one of two attributes than another set does (WEAT): effect, interval, permutation test.

Caliskan, Bryson and Narayanan (Science 356, 2017): with s(w) = mean over A of cos(w, a) − mean over B of cos(w, b),

    d = (mean over X of s − mean over Y of s) / standard deviation of s over X and Y together (n − 1)

which lies within −2 … 2, and is a difference in units of how the words differ, not of how far apart they stand: where all vectors are
nearly alike (as those of contextual models are) a gap too small to matter has a large d. The test deals the labels X and Y anew; all
ways are counted where they are few. The interval draws words of all four sets, since another choice of words is what would change d.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from workbench.core.errors import BadValue
from workbench.core.finding import Interval
from workbench.core.stats.checks import Floats, all_equal, inside, numbers, whole
from workbench.core.stats.permutation import permutation_test

DRAWS, WAYS = 2000, 19_999
FEWEST = 4
"""The fewest words of a set: of 3 against 3 no p is under 0.05."""


@dataclass(frozen=True)
class Association:
    """``d`` with its interval, ``gap`` (mean over X of s less that over Y, in cosines), and the two-sided p of ``arrangements`` dealings
    (``exact``: all there are)."""

    d: float
    interval: Interval
    gap: float
    p: float
    arrangements: int
    exact: bool


def association(x: ArrayLike, y: ArrayLike, *, level: float = 0.95, seed: int = 0, draws: int = DRAWS, ways: int = WAYS) -> Association:
    """``x [X, 2, k]`` and ``y [Y, 2, k]``: cosines of each target word with the k words of each attribute (NaN where one has fewer).

    The interval is the percentile bootstrap's, widened for few words (Hesterberg 2015). Raises BadValue for sets under ``FEWEST``, for
    words that all have one s, and for cosines outside −1 … 1.
    """
    first, second = _cosines("x", x), _cosines("y", y)
    inside("level", level)
    whole("draws", draws, least=math.ceil(20 / (1 - level)))
    if first.shape[1:] != second.shape[1:]:
        raise BadValue("the shape of y", second.shape, f"[Y, {first.shape[1]}, {first.shape[2]}], the attributes of x")
    a, b = leanings(first), leanings(second)
    if all_equal(np.concatenate([a, b])):
        raise BadValue("the leanings of the words", f"{a[0]:g} in all", "different for some", do="Are the two attributes the same words?")
    tested = permutation_test(a, b, draws=ways, seed=seed)
    value = effect_size(a, b)
    replicates = _drawn(first, second, draws, seed)
    fewest = min(len(a), len(b))
    wide = math.sqrt(fewest / (fewest - 1)) * float(stats.t.ppf((1 + level) / 2, len(a) + len(b) - 2))
    low, high = np.quantile(replicates, stats.norm.cdf([-wide, wide]))
    interval = Interval(
        low=float(min(low, value)), high=float(max(high, value)), level=level, method="percentile bootstrap of words of all four sets"
    )
    return Association(value, interval, float(a.mean() - b.mean()), tested.p, tested.arrangements, tested.exact)


def leanings(cosines: Floats) -> Floats:
    """s of each word, ``[n]`` from ``[n, 2, k]``: the mean cosine with the first attribute's words less that with the second's."""
    means = np.nanmean(cosines, axis=2)
    return means[:, 0] - means[:, 1]


def effect_size(a: ArrayLike, b: ArrayLike) -> float:
    """d of the leanings ``a [X]`` and ``b [Y]``. Raises BadValue where they are all equal."""
    first, second = numbers("a", a), numbers("b", b)
    both = np.concatenate([first, second])
    if len(both) < 2 or all_equal(both):
        raise BadValue("the leanings", "all equal", "different for some")
    return float((first.mean() - second.mean()) / both.std(ddof=1))


def _drawn(x: Floats, y: Floats, draws: int, seed: int) -> Floats:
    """d in resamples of the words of X, Y, A and B; a resample in which all words lean alike is left out."""
    rng = np.random.Generator(np.random.PCG64(seed))
    sizes = np.isfinite(x[0]).sum(axis=1)
    weights = np.zeros((draws, 2, x.shape[2]))
    for side, size in enumerate(sizes):
        counts = rng.multinomial(int(size), np.full(int(size), 1 / int(size)), draws)
        weights[:, side, np.flatnonzero(np.isfinite(x[0, side]))] = counts / int(size)
    signed = weights * np.array([1.0, -1.0])[None, :, None]
    flat = signed.reshape(draws, -1)
    s = [flat @ np.nan_to_num(one).reshape(len(one), -1).T for one in (x, y)]  # [draws, words]
    taken = [np.take_along_axis(one, rng.integers(0, one.shape[1], one.shape), axis=1) for one in s]
    spread = np.concatenate(taken, axis=1).std(axis=1, ddof=1)
    kept = spread > 1e-12
    return (taken[0].mean(1) - taken[1].mean(1))[kept] / spread[kept]


def _cosines(name: str, values: ArrayLike) -> Floats:
    """Checked: three axes, enough words, the same words of an attribute for every target, within −1 … 1."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 3 or x.shape[1] != 2:
        raise BadValue(f"the shape of {name}", x.shape, "[words, 2, attribute words]")
    there = np.isfinite(x)
    if len(x) and (there != there[0]).any():
        raise BadValue(f"the finite cosines of {name}", "other words for other targets", "the same words of an attribute for every target")
    least = min([len(x), *(there[0].sum(axis=1).tolist() if len(x) else [0])])
    if least < FEWEST:
        raise BadValue(f"the words of a set of {name}", least, f"at least {FEWEST}", do="Give longer lists.")
    if (np.abs(x[there]) > 1 + 1e-5).any():
        raise BadValue(f"the largest cosine of {name}", float(np.abs(x[there]).max()), "at most 1")
    return x
