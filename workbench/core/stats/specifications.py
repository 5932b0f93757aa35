"""One question answered in every reasonable way (Simonsohn, Simmons and Nelson, Nature Human Behaviour 4, 2020): how much is the choice?

All specifications are computed on the same items, and the same clusters are drawn for all of them, so that what they share in luck is
not taken for agreement. With V the variance of the values over specifications and N the part of it that sampling alone makes (the mean
over draws of the variance over specifications of a draw's deviations),

    share of the analyst's choice = B / (B + S),   B = max(0, V − N),   S = the mean sampling variance of a specification

and of B the part of each choice is its main effect: the variance of its options' means over V.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from workbench.core.errors import BadValue
from workbench.core.finding import Interval
from workbench.core.stats.checks import Floats, grouped, inside, whole
from workbench.core.stats.resampling import fewest

DRAWS = 1000


@dataclass(frozen=True)
class Specification:
    """One way: its ``choices`` (name → option), ``columns [item, k]`` that are summed over items, and ``of [..., k] → [...]`` of the
    sums."""

    choices: Mapping[str, str]
    columns: Floats
    of: Callable[[Floats], Floats]


@dataclass(frozen=True)
class Curve:
    """``values [s]`` with ``low`` and ``high`` (each at ``level`` alone), the median over specifications with its interval, the share of
    the variance that is the analyst's choice, and each choice's part of the variance over specifications."""

    specifications: tuple[Specification, ...]
    values: Floats
    low: Floats
    high: Floats
    median: float
    interval: Interval
    choice_share: float
    choice_sd: float
    sampling_sd: float
    parts: Mapping[str, float]
    dropped: tuple[Specification, ...]
    clusters: int


def ratio_of(sums: Floats) -> Floats:
    """Column 0 over column 1."""
    return sums[..., 0] / sums[..., 1]


def specification_curve(
    specifications: Sequence[Specification], clusters: ArrayLike, *, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> Curve:  # fmt: skip
    """Every specification on the same items, ``clusters [item]`` drawn together for all of them.

    One that is not finite (nothing is left to count) is dropped and listed, and so is one that is not finite in some draw. Raises BadValue
    for fewer than two that are left, for too few clusters, and for columns of other items.
    """
    inside("level", level)
    whole("draws", draws, least=math.ceil(20 / (1 - level)))
    if not specifications:
        raise BadValue("the specifications", 0, "at least two")
    n = len(specifications[0].columns)
    codes = grouped(clusters, n)
    units = int(codes.max()) + 1 if n else 0
    if units < fewest(level):
        raise BadValue("the number of clusters", units, f"at least {fewest(level)} at level {level:g}")
    rng = np.random.Generator(np.random.PCG64(whole("seed", seed)))
    weights = rng.multinomial(units, np.full(units, 1 / units), draws).astype(float)
    kept, dropped, values, drawn = [], [], [], []
    for one in specifications:
        if len(one.columns) != n or one.columns.ndim != 2 or not np.isfinite(one.columns).all():
            raise BadValue("the columns of a specification", one.columns.shape, f"finite, [{n}, k]: of the same items")
        sums = np.zeros((units, one.columns.shape[1]))
        np.add.at(sums, codes, one.columns)
        with np.errstate(divide="ignore", invalid="ignore"):
            value, found = float(one.of(sums.sum(0))), np.asarray(one.of(weights @ sums), dtype=np.float64)
        if math.isfinite(value) and np.isfinite(found).all():
            kept.append(one)
            values.append(value)
            drawn.append(found)
        else:
            dropped.append(one)
    if len(kept) < 2:
        raise BadValue("the specifications that are defined", len(kept), "at least two")
    return _curve(kept, np.array(values), np.stack(drawn, axis=1), tuple(dropped), units, level)


def _curve(
    kept: Sequence[Specification], values: Floats, drawn: Floats, dropped: tuple[Specification, ...], units: int, level: float
) -> Curve:
    """``drawn [draw, s]``."""
    wide = math.sqrt(units / (units - 1)) * float(stats.t.ppf((1 + level) / 2, units - 1))
    tails = stats.norm.cdf([-wide, wide])
    low, high = np.quantile(drawn, tails, axis=0)
    seen, medians = float(np.median(values)), np.median(drawn, axis=1)
    ends = np.quantile(medians, tails)
    interval = Interval(
        low=float(min(ends[0], seen)), high=float(max(ends[1], seen)), level=level,
        method=f"percentile bootstrap of {units} clusters, all specifications together",
    )  # fmt: skip
    noise = float((drawn - values).var(axis=1).mean())
    total, sampling = float(values.var()), float(drawn.var(axis=0).mean())
    between = max(0.0, total - noise)
    share = between / (between + sampling) if between + sampling > 0 else 0.0
    return Curve(
        tuple(kept),
        values,
        np.minimum(low, values),
        np.maximum(high, values),
        seen,
        interval,
        share,
        math.sqrt(between),
        math.sqrt(sampling),
        _parts(kept, values),
        dropped,
        units,
    )


def _parts(kept: Sequence[Specification], values: Floats) -> dict[str, float]:
    """Each choice's main effect: the variance of its options' means, weighted by their number, over the variance of all values."""
    total = float(values.var())
    out = {}
    for name in kept[0].choices:
        options = np.array([one.choices[name] for one in kept])
        means = np.array([values[options == option].mean() for option in options])
        out[name] = float(means.var()) / total if total > 0 else 0.0
    return out
