"""Statistics of items that are not independent: whole clusters (templates, terms, occupation pairs) are drawn, and few are refused.

An interval over items that share a template as if they did not is too narrow. Where there are fewer clusters than an interval can
be honest with (``fewest``) there is a value and no interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.core.errors import BadValue
from workbench.core.finding import Interval
from workbench.core.stats.intervals import constant_interval, mean_interval
from workbench.core.stats.power import minimal_detectable_effect
from workbench.core.stats.resampling import Statistic, bootstrap, fewest
from workbench.core.stats.unpaired import unpaired_interval

Floats = NDArray[np.float64]
Labels = Sequence[str] | NDArray[Any]


@dataclass(frozen=True)
class Clustered:
    """A statistic of ``n`` items in ``units`` clusters. ``value`` is None where it is not defined, ``interval`` where it cannot be
    honest; ``detectable`` is the smallest difference that would be found with 80 % power."""

    value: float | None
    interval: Interval | None = None
    n: int = 0
    units: int = 0
    detectable: float | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        low, high = (None, None) if self.interval is None else (self.interval.low, self.interval.high)
        return {"value": self.value, "low": low, "high": high, "n": self.n, "clusters": self.units}

    def above(self, value: float) -> bool:
        """Whether the whole interval lies above ``value``; False where there is no interval."""
        return self.interval is not None and self.interval.low > value


def mean_of(values: ArrayLike, clusters: Labels, level: float = 0.95, *, bounds: tuple[float, float]) -> Clustered:
    """The mean of the finite ``values [n]``, each within ``bounds``, with its BCa interval by ``clusters [n]``."""
    x, names = np.asarray(values, dtype=np.float64), np.asarray(clusters, dtype=str)
    kept = np.isfinite(x)
    x, names = x[kept], names[kept]
    if not len(x):
        return Clustered(None)
    units = len(set(names.tolist()))
    if units < fewest(level):
        return Clustered(float(x.mean()), None, len(x), units)
    try:
        found = bootstrap(x, clusters=names, level=level, bounds=bounds)
    except BadValue:  # the draws of a few unequal clusters can all lie on one side of the value
        found = bootstrap(x, clusters=names, level=level, bounds=bounds, method="percentile")
    sd = found.se * units**0.5  # so that power counts clusters, not items
    detectable = minimal_detectable_effect(units, sd, level=level) if sd > 0 else None
    return Clustered(found.value, found.interval, len(x), units, detectable)


def statistic_of(rows: ArrayLike, statistic: Statistic, level: float = 0.95, *, bounds: tuple[float, float], n: int = 0) -> Clustered:
    """``statistic`` of ``rows [cluster, columns]`` (a cluster's sums or means) with its percentile interval; ``n`` items stand behind.

    No value where the statistic is not finite, and no interval where it is not finite in some resample. Where every cluster alone
    gives the same value the draws cannot vary, and the interval is ``constant_interval`` within ``bounds``, the statistic's own.
    """
    x = np.asarray(rows, dtype=np.float64)
    if not len(x):
        return Clustered(None)
    with np.errstate(divide="ignore", invalid="ignore"):
        value, alone = float(statistic(x[None], axis=1)[0]), np.asarray(statistic(x[:, None], axis=1), dtype=np.float64)
    if not np.isfinite(value):
        return Clustered(None, None, n, len(x))
    alone = alone[np.isfinite(alone)]
    if (len(alone) or len(x)) < fewest(level):  # a correlation is of no cluster alone
        return Clustered(value, None, n, len(x))
    if len(alone) and np.ptp(alone) <= 1e-12 * max(1.0, abs(value)) and abs(alone[0] - value) <= 1e-9:
        inside = min(max(value, bounds[0]), bounds[1])
        return Clustered(inside, constant_interval(inside, len(alone), level, bounds), n, len(x))
    try:
        found = bootstrap(x, statistic, level=level, method="percentile")
    except BadValue:
        return Clustered(value, None, n, len(x))
    sd = found.se * len(x) ** 0.5
    interval = found.interval if found.interval.low <= value <= found.interval.high else None
    return Clustered(value, interval, n, len(x), minimal_detectable_effect(len(x), sd, level=level) if sd > 0 else None)


def between(a: ArrayLike, b: ArrayLike, level: float, bounds: tuple[float, float]) -> Interval:
    """The interval of mean(a) - mean(b) for ``a [n]`` and ``b [m]`` of different items, each value within ``bounds``: Welch's t, cut off
    where no difference can lie. Where no two values of a side differ, their variance of 0 is no knowledge: then each side has an interval
    of its own (``constant_interval`` of what is alike, Student's of what is not), both at once. Raises BadValue for fewer than two values
    on a side."""
    widest, sides = bounds[1] - bounds[0], [np.asarray(side, dtype=np.float64) for side in (a, b)]
    if min(map(len, sides)) < 2 or all(np.ptp(side) > 0 for side in sides):
        found = unpaired_interval(a, b, level=level)
        return found.model_copy(update={"low": max(found.low, -widest), "high": min(found.high, widest)})
    ends = [mean_interval(side, (1 + level) / 2, bounds=bounds) for side in sides]
    method = f"each side's own, both at once: {ends[0].method} and {ends[1].method}"
    return Interval(low=max(ends[0].low - ends[1].high, -widest), high=min(ends[0].high - ends[1].low, widest), level=level, method=method)


def sums_by(columns: ArrayLike, clusters: Labels) -> Floats:
    """``columns [n, k]`` summed within each of ``clusters [n]``, in the order of their names: [cluster, k]."""
    x, names = np.asarray(columns, dtype=np.float64), np.asarray(clusters, dtype=str)
    codes = np.unique(names, return_inverse=True)[1]
    out = np.zeros((int(codes.max()) + 1 if len(codes) else 0, x.shape[1]))
    np.add.at(out, codes, x)
    return out
