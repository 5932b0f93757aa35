"""Guessing a hidden token from the tokens around it by counts alone: what a model of masked tokens must beat.

Five guesses: from up to four tokens on the left (Kneser-Ney), on the right (the same on reversed rows), from both at once (the product
of the two, over the square root of what both know without any neighbour), from the two neighbours on either side counted together with
back-off, and from the product of the last two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evals.ngram import MOST_ORDER, Floats, Ints, KneserNey, discounts
from workbench.core.errors import BadValue

REACH = MOST_ORDER - 1
"""How many tokens on either side are read."""
WINDOWS: tuple[tuple[int, ...], ...] = (
    (), (2,), (-2,), (1,), (-1,), (1, 2), (-2, -1), (-2, 1), (-1, 2), (-1, 1), (-1, 1, 2), (-2, -1, 1), (-2, -1, 1, 2),
)  # fmt: skip
"""The neighbours counted together; each falls back to the one before it, so that a hidden neighbour costs as little as may be."""
NAMES = ("left", "right", "left and right", "window", "window, left and right")


@dataclass(frozen=True)
class _Table:
    """Counts under one window. ``keys``: sorted (window, token) keys; ``kept``: their discounted counts; per window its ``total`` and
    ``gamma``, the share left to the smaller window."""

    offsets: tuple[int, ...]
    keys: Ints
    kept: Floats
    windows: Ints
    total: Floats
    gamma: Floats


class Window:
    """The distribution of a token given its neighbours at ``WINDOWS``: absolute discounting with the discounts of ``evals.ngram``, each
    window interpolated with the one before it, the smallest with the uniform distribution."""

    def __init__(self, rows: Sequence[Ints], vocab: int) -> None:
        self.vocab, self._base = vocab, vocab + 1
        widest = 1 + max(map(len, WINDOWS))
        if self._base**widest >= 2**63:
            raise BadValue("the vocabulary", vocab, f"so small that {widest} ids fit into 63 bits")
        spread = [padded(row, vocab) for row in rows]
        flat = np.concatenate(spread)
        real = np.flatnonzero(flat < vocab)
        self._tables = [self._count(flat, real, offsets) for offsets in WINDOWS]

    def _count(self, flat: Ints, real: Ints, offsets: tuple[int, ...]) -> _Table:
        key = np.zeros(len(real), dtype=np.int64)
        for offset in offsets:
            key = key * self._base + flat[real + offset]
        keys, count = np.unique(key * self._base + flat[real], return_counts=True)
        count = count.astype(np.float64)
        removed = np.array([0.0, *discounts(count)])[np.minimum(count, 3).astype(np.int64)]
        windows, of = np.unique(keys // self._base, return_inverse=True)
        total = np.bincount(of, weights=count).astype(np.float64)
        return _Table(offsets, keys, count - removed, windows, total, np.bincount(of, weights=removed) / total)

    def distributions(self, left: Ints, right: Ints) -> Floats:
        """``[n, vocab]`` given ``left`` and ``right`` ``[n, REACH]``, the nearest last in ``left`` and first in ``right``. A symbol
        below 0 is unknown: windows with it are passed over."""
        around = np.concatenate([left, np.full((len(left), 1), -1), right], axis=1)
        below = np.full((len(left), self.vocab), 1.0 / self.vocab)
        for table in self._tables:
            key, known = np.zeros(len(left), dtype=np.int64), np.ones(len(left), dtype=bool)
            for offset in table.offsets:
                symbol = around[:, REACH + offset]
                key, known = key * self._base + symbol, known & (symbol >= 0)
            at = np.minimum(np.searchsorted(table.windows, key), len(table.windows) - 1)
            known &= table.windows[at] == key
            first = np.searchsorted(table.keys, key * self._base)
            count = np.where(known, np.searchsorted(table.keys, (key + 1) * self._base) - first, 0)
            row = np.repeat(np.arange(len(left)), count)
            entry = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[row]
            below = np.where(known[:, None], table.gamma[at][:, None] * below, below)
            below[row, table.keys[entry] % self._base] += table.kept[entry] / table.total[at][row]
        return below


class Infill:
    """The five guesses, counted on ``rows`` of ids 0 … ``vocab`` − 1. Raises BadValue for no rows and for other ids."""

    def __init__(self, rows: Sequence[Ints], vocab: int) -> None:
        self.vocab = vocab
        self._rows = [np.asarray(row, dtype=np.int64) for row in rows]
        self.left = KneserNey(self._rows, order=MOST_ORDER, vocab=vocab)

    @cached_property
    def right(self) -> KneserNey:
        """The rows read from their end."""
        return KneserNey([row[::-1] for row in self._rows], order=MOST_ORDER, vocab=self.vocab)

    @cached_property
    def window(self) -> Window:
        """The neighbours of both sides counted together."""
        return Window(self._rows, self.vocab)

    def guesses(self, left: Ints, right: Ints) -> dict[str, Ints]:
        """The likeliest token ``[n]`` by each of ``NAMES``. ``left`` and ``right`` ``[n, REACH]`` are a token's neighbours in reading
        order (``around`` cuts them out of a row). Raises BadValue for another shape."""
        if left.shape != right.shape or left.ndim != 2 or left.shape[1] != REACH:
            raise BadValue("the shapes of left and right", (left.shape, right.shape), f"[n, {REACH}] both")
        alone = np.full((1, REACH), -1)
        known = (np.log(self.left.distributions(alone)) + np.log(self.right.distributions(alone))) / 2
        before, after = np.log(self.left.distributions(left)), np.log(self.right.distributions(right[:, ::-1]))
        both, window = before + after - known / 2, np.log(self.window.distributions(left, right))
        return {name: table.argmax(1) for name, table in zip(NAMES, (before, after, both, window, both + window), strict=True)}


def padded(row: Ints, vocab: int) -> Ints:
    """``row`` between marks (``vocab``), as many as are read on either side."""
    marks = np.full(REACH, vocab, dtype=np.int64)
    return np.concatenate([marks, row, marks])


def around(row: Ints, places: Ints, vocab: int) -> tuple[Ints, Ints]:
    """The neighbours ``[n, REACH]`` on the left and on the right of each of ``places`` in ``row``, marks beyond its ends."""
    whole = padded(row, vocab)
    steps = np.arange(REACH)
    return whole[places[:, None] + steps], whole[places[:, None] + REACH + 1 + steps]
