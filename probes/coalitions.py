"""Shapley values of a game: a function from coalitions of players to numbers. Three ways to take the mean over orders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import comb, factorial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

Game = Callable[[Any], Any]
"""Coalitions (bool ``[n, player]``, true: present) -> numbers ``[n]``."""
MOST = 12
"""Players all of whose coalitions are tried at most: 4,096 of them."""


@dataclass(frozen=True)
class Worth:
    """Values and standard errors ``[player]``; ``empty``: the number of the empty coalition; how many coalitions were asked for."""

    values: Float[np.ndarray, " player"]
    errors: Float[np.ndarray, " player"]
    empty: float
    evaluations: int


def orders(count: int, samples: int, rng: np.random.Generator, *, antithetic: bool) -> Int[np.ndarray, "sample player"]:
    """Orders at random; with ``antithetic`` every second one is the reverse of the one before."""
    if not antithetic:
        return np.stack([rng.permutation(count) for _ in range(samples)])
    drawn = np.stack([rng.permutation(count) for _ in range((samples + 1) // 2)])
    return np.stack([drawn, drawn[:, ::-1]], axis=1).reshape(-1, count)


def from_orders(game: Game, count: int, samples: int, rng: np.random.Generator, *, antithetic: bool) -> Worth:
    """The mean gain of each player over sampled orders; an order and its reverse are one observation of the standard error."""
    drawn = orders(count, samples, rng, antithetic=antithetic)
    place = np.argsort(drawn, axis=1)  # sample player: when it comes in
    present = place[:, None] < np.arange(count + 1)[None, :, None]  # sample step player
    reached = game(present.reshape(-1, count)).reshape(len(drawn), count + 1)
    gains = np.take_along_axis(np.diff(reached, axis=1), place, axis=1)
    single = gains.reshape(-1, 2, count).mean(1) if antithetic else gains
    errors = single.std(0, ddof=1) / np.sqrt(len(single)) if len(single) > 1 else np.full(count, np.nan)
    return Worth(gains.mean(0), errors, float(reached[0, 0]), reached.size)


def every_coalition(count: int) -> Bool[np.ndarray, "coalition player"]:
    """All 2**count coalitions; number k has the players of k's bits."""
    return np.asarray(np.arange(2**count)[:, None] >> np.arange(count) & 1, dtype=bool)


def exactly(game: Game, count: int) -> Worth:
    """From all coalitions: the gain of a player to a coalition of s others has the weight s! (count - s - 1)! / count!."""
    present = every_coalition(count)
    reached = game(present)
    weight = np.array([factorial(s) * factorial(count - s - 1) / factorial(count) for s in range(count)])
    values = np.empty(count)
    for player in range(count):
        without = np.flatnonzero(~present[:, player])
        values[player] = (weight[present[without].sum(1)] * (reached[without + 2**player] - reached[without])).sum()
    return Worth(values, np.zeros(count), float(reached[0]), len(reached))


def drawn_coalitions(count: int, samples: int, rng: np.random.Generator, *, antithetic: bool) -> Bool[np.ndarray, "sample player"]:
    """Coalitions, neither empty nor whole, as often as Shapley's kernel weighs them: size s as 1 / (s (count - s))."""
    sizes = np.arange(1, count)
    share = 1 / (sizes * (count - sizes))
    chosen = rng.choice(sizes, size=(samples + 1) // 2 if antithetic else samples, p=share / share.sum())
    rank = np.argsort(rng.random((len(chosen), count)), axis=1)
    present = np.asarray(rank < chosen[:, None])
    return np.stack([present, ~present], axis=1).reshape(-1, count) if antithetic else present


def from_kernel(game: Game, count: int, samples: int, rng: np.random.Generator, *, antithetic: bool) -> Worth:
    """Least squares over sampled coalitions, values held to add up to f(all) - f(none)."""
    present = drawn_coalitions(count, samples, rng, antithetic=antithetic)
    ends = np.stack([np.zeros(count, bool), np.ones(count, bool)])
    reached = game(np.concatenate([ends, present]))
    return solved(present, reached[2:], (float(reached[0]), float(reached[1])), np.full(len(present), 1.0), pairs=antithetic)


def solved(
    present: Bool[np.ndarray, "sample player"],
    reached: Float[np.ndarray, " sample"],
    ends: tuple[float, float],
    weight: Float[np.ndarray, " sample"],
    *,
    pairs: bool = False,
) -> Worth:
    """The values that fit the coalitions best under their sum; standard errors from the residuals (of ``pairs``, two by two)."""
    empty, whole = ends
    count, total = present.shape[1], whole - empty
    design = present[:, :-1].astype(float) - present[:, -1:]  # the last player is what is left of the sum
    wanted = reached - empty - present[:, -1] * total
    normal = design.T @ (weight[:, None] * design)
    inverse = np.linalg.pinv(normal)
    first = inverse @ (design.T @ (weight * wanted))
    push = design * (weight * (wanted - design @ first))[:, None]
    push = push.reshape(-1, 2, count - 1).sum(1) if pairs else push
    spread = inverse @ (push.T @ push) @ inverse
    full = np.linalg.matrix_rank(normal) == count - 1  # else the coalitions do not tell the players apart
    last = np.sqrt(max(float(spread.sum()), 0.0))
    errors = np.append(np.sqrt(np.maximum(np.diag(spread), 0)), last) if full else np.full(count, np.nan)
    return Worth(np.append(first, total - first.sum()), errors, empty, len(present) + 2)


def size_weight(count: int, size: int) -> float:
    """Shapley's kernel: the weight of one coalition of ``size`` players."""
    return (count - 1) / (comb(count, size) * size * (count - size))
