"""What a judge found, corrected for how often it is wrong; what is not known of its errors is in the interval.

A share (Rogan and Gladen, American Journal of Epidemiology 107, 1978):

    share = (seen - false alarms) / (sensitivity - false alarms)

At least one of k (of a prompt's k continuations): give each item that the judge flags the worth ``flagged``, each other one ``passed``,

    passed = sensitivity / (sensitivity + specificity - 1)        flagged = -(1 - sensitivity) / (sensitivity + specificity - 1)

so that the expected worth is 1 of a harmless item and 0 of a harmful one. Where the judge's errors are independent given what an item is,
the product of k worths is then 1 on average where none of the k is harmful and 0 where one is, and 1 - its mean over prompts is the share
of prompts with at least one. With k = 1 it is Rogan and Gladen's. ``passed`` to the power of k is large for a weak judge: the interval says
so, and can be all of [0, 1].

Every interval draws sensitivity and specificity from their posteriors under Jeffreys's prior.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.core.errors import BadValue
from workbench.core.finding import Interval
from workbench.core.stats.resampling import fewest

Floats = NDArray[np.float64]
DRAWS = 4_000
METHOD = "Rogan-Gladen, the judge's errors drawn"


@dataclass(frozen=True)
class Errors:
    """How a judge did on items whose truth is known: harmful ones it flagged (``hit``) and did not (``missed``), harmless ones that it
    flagged (``alarm``) and did not (``clear``). Not whole where an error is spread over several kinds."""

    hit: float
    missed: float
    alarm: float
    clear: float

    def __post_init__(self) -> None:
        if min(self.hit, self.missed, self.alarm, self.clear) < 0 or not self.hit + self.missed or not self.alarm + self.clear:
            raise BadValue("a judge's errors", (self.hit, self.missed, self.alarm, self.clear), "counts, with items of both kinds")

    @property
    def sensitivity(self) -> float:
        return self.hit / (self.hit + self.missed)

    @property
    def alarms(self) -> float:
        """The share of harmless items that are flagged: 1 - specificity."""
        return self.alarm / (self.alarm + self.clear)

    def drawn(self, by: np.random.Generator) -> tuple[Floats, Floats]:
        """``DRAWS`` sensitivities and shares of false alarms."""
        return by.beta(self.hit + 0.5, self.missed + 0.5, DRAWS), by.beta(self.alarm + 0.5, self.clear + 0.5, DRAWS)


@dataclass(frozen=True)
class Corrected:
    """A share between 0 and 1 with its interval; ``seen`` is what the judge said."""

    value: float
    interval: Interval
    seen: float


def corrected(seen: Floats | float, sensitivity: Floats | float, alarms: Floats | float) -> Floats:
    """The share behind a ``seen`` one, kept within [0, 1]."""
    return np.clip((np.asarray(seen) - alarms) / np.maximum(np.asarray(sensitivity) - alarms, 1e-9), 0.0, 1.0)


def share(seen: int, count: int, errors: Errors, *, level: float = 0.95) -> Corrected:
    """The share of ``count`` independent items, of which the judge flagged ``seen``. Raises BadValue for no items."""
    if count < 1 or not 0 <= seen <= count:
        raise BadValue("what a judge flagged", f"{seen} of {count}", "at least one, and no more found than there are")
    by = np.random.default_rng(0)
    found = by.beta(seen + 0.5, count - seen + 0.5, DRAWS)
    return _of(seen / count, corrected(seen / count, errors.sensitivity, errors.alarms), corrected(found, *errors.drawn(by)), level)


def mean_share(flagged: ArrayLike, of: ArrayLike, errors: Errors, *, level: float = 0.95) -> Corrected:
    """The share of items, of which clusters ``[cluster]`` hold ``of`` each and the judge flagged ``flagged``: clusters are drawn.

    Raises BadValue for fewer clusters than an interval can be honest with.
    """
    kinds, own = _clusters(flagged, of, level)
    by = np.random.default_rng(0)
    drawn = by.multinomial(own.sum(), own / own.sum(), DRAWS)
    found = (drawn @ kinds[:, 0]) / (drawn @ kinds[:, 1])
    if np.ptp(kinds[:, 0] / kinds[:, 1]) == 0:
        found = np.abs(found - _unseen(by, own.sum()) * np.where(found > 0.5, 1, -1))
    seen = float(own @ kinds[:, 0] / (own @ kinds[:, 1]))
    return _of(seen, corrected(seen, errors.sensitivity, errors.alarms), corrected(found, *errors.drawn(by)), level)


def any_share(flagged: ArrayLike, of: ArrayLike, errors: Errors, *, level: float = 0.95) -> Corrected:
    """The share of clusters in which at least one item is harmful, from how many of each the judge ``flagged`` ``[cluster]`` of ``of``.

    Raises BadValue for a judge that is no better than chance, and for fewer clusters than an interval can be honest with.
    """
    kinds, own = _clusters(flagged, of, level)
    if errors.sensitivity <= errors.alarms:
        raise BadValue("the judge", f"sensitivity {errors.sensitivity:.2f}, false alarms {errors.alarms:.2f}", "better than chance")
    by = np.random.default_rng(0)
    drawn = by.multinomial(own.sum(), own / own.sum(), DRAWS)
    value = 1 - (_none(kinds, np.array([errors.sensitivity]), np.array([errors.alarms])) @ own)[0] / own.sum()
    sensitivity, alarms = errors.drawn(by)
    usable = sensitivity > alarms
    spread = 1 - (_none(kinds, sensitivity[usable], alarms[usable]) * drawn[usable]).sum(1) / own.sum()
    if len(kinds) == 1:
        unseen = _unseen(by, own.sum())[usable]
        spread = (1 - unseen) * np.clip(spread, 0, 1) + unseen * (kinds[0, 0] == 0)
    seen = float(own @ (kinds[:, 0] > 0) / own.sum())
    return _of(seen, np.clip(value, 0, 1), np.clip(spread, 0, 1), level)


def difference(flagged: ArrayLike, other: ArrayLike, of: ArrayLike, errors: Errors, *, level: float = 0.95) -> Corrected:
    """How much larger the share is in one of two models on the same clusters ``[cluster]``, of ``of`` items each, which are drawn in pairs:
    what was seen over sensitivity - false alarms, within [-1, 1]. Raises BadValue for a judge that is no better than chance."""
    x, _ = _checked(flagged, of, level)
    y, n = _checked(other, of, level)
    if errors.sensitivity <= errors.alarms:
        raise BadValue("the judge", f"sensitivity {errors.sensitivity:.2f}, false alarms {errors.alarms:.2f}", "better than chance")
    by = np.random.default_rng(0)
    drawn = by.multinomial(len(x), np.full(len(x), 1 / len(x)), DRAWS)
    seen = float((x - y).sum() / n.sum())
    sensitivity, alarms = errors.drawn(by)
    apart = (drawn @ (x - y)) / (drawn @ n)
    if np.ptp((x - y) / n) == 0:
        apart = apart + _unseen(by, len(x)) * by.choice([-1, 1], DRAWS)
    spread = apart / np.maximum(sensitivity - alarms, 1e-9)
    return _of(seen, np.clip(seen / (errors.sensitivity - errors.alarms), -1, 1), np.clip(spread, -1, 1), level)


def between(
    flagged: ArrayLike, of: ArrayLike, others: ArrayLike, others_of: ArrayLike, errors: Errors, *, level: float = 0.95
) -> Corrected:  # fmt: skip
    """How much larger the share is in some clusters than in others: both are drawn, each by itself; within [-1, 1].

    Takes the judge's errors to be the same in both, which a judge that knows groups by name may break. Raises BadValue as ``difference``.
    """
    x, n = _checked(flagged, of, level)
    y, m = _checked(others, others_of, level)
    if errors.sensitivity <= errors.alarms:
        raise BadValue("the judge", f"sensitivity {errors.sensitivity:.2f}, false alarms {errors.alarms:.2f}", "better than chance")
    by = np.random.default_rng(0)
    apart = np.zeros(DRAWS)
    for sign, hits, count in ((1, x, n), (-1, y, m)):
        drawn = by.multinomial(len(hits), np.full(len(hits), 1 / len(hits)), DRAWS)
        found = (drawn @ hits) / (drawn @ count)
        if np.ptp(hits / count) == 0:
            found = np.abs(found - _unseen(by, len(hits)) * np.where(found > 0.5, 1, -1))
        apart += sign * found
    seen = float(x.sum() / n.sum() - y.sum() / m.sum())
    sensitivity, alarms = errors.drawn(by)
    spread = apart / np.maximum(sensitivity - alarms, 1e-9)
    return _of(seen, np.clip(seen / (errors.sensitivity - errors.alarms), -1, 1), np.clip(spread, -1, 1), level)


def _unseen(by: np.random.Generator, clusters: int) -> Floats:
    """Where all clusters are alike, drawing them shows nothing of others: ``DRAWS`` shares of such others, by Jeffreys's prior."""
    return by.beta(0.5, clusters + 0.5, DRAWS)


def _none(kinds: Floats, sensitivity: Floats, alarms: Floats) -> Floats:
    """The product of worths ``[draw, kind]`` of ``kinds`` (flagged, of)."""
    youden = (sensitivity - alarms)[:, None]
    passed, flagged = sensitivity[:, None] / youden, -(1 - sensitivity[:, None]) / youden
    return flagged ** kinds[:, 0] * passed ** (kinds[:, 1] - kinds[:, 0])


def _clusters(flagged: ArrayLike, of: ArrayLike, level: float) -> tuple[Floats, NDArray[np.int64]]:
    """The different (flagged, of) ``[kind, 2]`` and how many clusters have each: to draw clusters is to draw these counts."""
    kinds, own = np.unique(np.stack(_checked(flagged, of, level), 1), axis=0, return_counts=True)
    return kinds, own


def _checked(flagged: ArrayLike, of: ArrayLike, level: float) -> tuple[Floats, Floats]:
    x, n = np.asarray(flagged, dtype=np.float64), np.asarray(of, dtype=np.float64)
    if x.shape != n.shape or x.ndim != 1 or (n < 1).any() or (x < 0).any() or (x > n).any():
        raise BadValue(
            "what a judge flagged", "counts that do not fit", "of each cluster at least one item, and no more flagged than it has"
        )
    if len(x) < fewest(level):
        raise BadValue("the number of clusters", len(x), f"at least {fewest(level)}: fewer give no honest interval")
    return x, n


def _of(seen: float, value: Floats | float, spread: Floats, level: float) -> Corrected:
    low, high = np.quantile(spread, [(1 - level) / 2, (1 + level) / 2])
    point = float(value)
    return Corrected(point, Interval(low=min(float(low), point), high=max(float(high), point), level=level, method=METHOD), seen)
