"""Means over items that come in groups, with intervals; and the gap of an answer between two classes, with its null."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.core.stats.resampling import bootstrap, fewest

DEALT = 999
"""Ways of dealing the classes anew."""
Bounded = tuple[float, float, float]


@dataclass(frozen=True)
class Sampling:
    """How intervals are made: their level, and the bootstrap's resamples and seed."""

    level: float
    resamples: int
    seed: int


def mean_over_groups(values: np.ndarray, groups: np.ndarray, how: Sampling, bounds: tuple[float, float] | None = None) -> Bounded:
    """The mean with its interval, groups being resampled whole (NaN bounds where they are too few). Values that are all the same have an
    interval of no width, unless ``bounds`` (the smallest and largest possible) say how far an unseen one may be."""
    if len(values) == 0 or not np.isfinite(values).all():
        return np.nan, np.nan, np.nan
    value = float(values.mean())
    if len(np.unique(groups)) < fewest(how.level):
        return value, np.nan, np.nan
    if bounds is None and np.ptp(values) <= 1e-9 * max(1.0, abs(value)):
        return value, value, value
    found = bootstrap(values, clusters=groups, level=how.level, draws=how.resamples, seed=how.seed, bounds=bounds)
    return found.value, found.interval.low, found.interval.high


def gap(answers: np.ndarray, present: np.ndarray) -> float:
    """The mean answer where the concept is present minus the mean where it is not."""
    return float(answers[present].mean() - answers[~present].mean())


def gap_over_groups(answers: np.ndarray, present: np.ndarray, groups: np.ndarray, how: Sampling) -> Bounded:
    """``gap`` with its interval: the bootstrap of the mean of the items' influences on it (the delta method), by groups."""
    value, share = gap(answers, present), present.mean()
    own = np.where(present, (answers - answers[present].mean()) / share, -(answers - answers[~present].mean()) / (1 - share))
    low, high = mean_over_groups(own + value, groups, how)[1:]
    return value, min(low, value), max(high, value)


def gap_null(
    answers: np.ndarray, present: np.ndarray, groups: np.ndarray, how: Sampling, *, fitted: int | None = None, rounding: float = 0.0
) -> tuple[float, float]:
    """How large a gap is where classes mean nothing: the ``level`` quantile of its size over classes dealt anew, and the share of those,
    the true ones among them, that have at least the gap there is.

    Classes are dealt over whole groups where each has one class, within groups where each has both, else over items. ``fitted``: of how
    many other groups something made the gap zero there. Then it is off here by the chance of both samples, and dealt gaps are made larger
    by sqrt(1 + groups / fitted): exact to first order where what makes it zero is linear. ``rounding``: below it a gap is none.
    """
    rng, seen = np.random.default_rng([how.seed, 8]), gap(answers, present)
    wider = 1.0 if fitted is None else (1 + len(np.unique(groups)) / fitted) ** 0.5
    _, of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    shares = np.bincount(of, weights=present) / sizes
    one, both = bool(np.isin(shares, (0.0, 1.0)).all()), bool(((shares > 0) & (shares < 1)).all())
    found = np.empty(DEALT)
    for draw in range(DEALT):
        if one:
            dealt = rng.permutation(shares == 1.0)[of]
        elif both:
            dealt = np.empty_like(present)
            dealt[np.argsort(of, kind="stable")] = present[np.lexsort((rng.random(len(of)), of))]
        else:
            dealt = rng.permutation(present)
        found[draw] = wider * abs(gap(answers, dealt))
    tiny = max(rounding, 1e-12 * abs(seen))
    return max(rounding, float(np.quantile(found, how.level))), float((1 + (found >= abs(seen) - tiny).sum()) / (DEALT + 1))
