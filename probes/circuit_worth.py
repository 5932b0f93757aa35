"""What circuits are worth on some items: faithfulness with its interval, and the areas under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from probes.circuits import areas
from probes.patch_result import FLAT

DRAWS = 1000
"""Draws of the items for an interval."""


@dataclass(frozen=True)
class Worth:
    """Of each circuit ``faithfulness`` and the interval ``low`` to ``high`` ``[circuit]``; of the circuits found ``area`` by name, and
    ``random``, the mean areas of random circuits (NaN where there are none)."""

    faithfulness: Float[np.ndarray, " circuit"]
    low: Float[np.ndarray, " circuit"]
    high: Float[np.ndarray, " circuit"]
    area: dict[str, float]
    random: dict[str, float]


def faithfulness(value: np.ndarray, whole: np.ndarray, none: np.ndarray) -> np.ndarray:
    """The ratio of means over the last axis; NaN where all and none are the same."""
    top, base = whole.mean(-1), none.mean(-1)
    flat = np.abs(top - base) <= FLAT * np.maximum(1.0, np.maximum(np.abs(top), np.abs(base)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(flat, np.nan, (value.mean(-1) - base) / (top - base))


def worth(
    values: Float[np.ndarray, "circuit batch"], kind: Sequence[str], draw: Sequence[int], sizes: Sequence[float], seed: int
) -> Worth:  # fmt: skip
    """Of values of all edges, none, and circuits; NaN everywhere where there are no items."""
    if not values.shape[1]:
        unknown = np.full(len(values), np.nan)
        nothing = areas(sizes, np.full(len(sizes), np.nan))
        return Worth(unknown, unknown, unknown, nothing, nothing)
    faith = faithfulness(values, values[0], values[1])
    which, number = np.array(kind), np.array(draw)
    area = areas(sizes, faith[which == "found"])
    null = [areas(sizes, faith[number == k]) for k in range(number.max() + 1)]
    random = {name: float(np.mean([one[name] for one in null])) if null else float("nan") for name in area}
    return Worth(faith, *_interval(values, seed), area, random)


def draws(items: int, count: int, seed: int) -> np.ndarray:
    """Items drawn with replacement, ``[draw, batch]``."""
    return np.random.default_rng([seed, 1]).integers(0, items, (count, items))


def _interval(values: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The middle 95 % of faithfulness over draws of the items; NaN for fewer than two items, or where all and none are the same in a
    draw."""
    items, unknown = values.shape[1], np.full(len(values), np.nan)
    if items < 2:
        return unknown, unknown
    drawn = draws(items, DRAWS, seed)
    each = np.stack([faithfulness(one[drawn], values[0][drawn], values[1][drawn]) for one in values])
    if not np.isfinite(each).all():
        return unknown, unknown
    low, high = np.quantile(each, (0.025, 0.975), axis=1)
    return low, high
