"""Rows with spans taken out, to be written back by a decoder: the span corruption objective (Raffel et al. 2020, section 3.1.4).

    row      the cat sat on the mat and slept
    source   the cat <X> the mat <Y> end
    target   <X> sat on <Y> and slept <Z> end

A share of the tokens (15 %) lies in spans of a mean length (3). Spans are apart from each other and a row begins with text: both the
spans and what lies between them are random divisions of their totals, as in the published code, but that a row may end with text too
(there it never does, and the one span of a short row is always its end). Each span leaves a sentinel of its own; one more sentinel ends
the target.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from workbench.core.batch import IGNORE, SequenceBatch
from workbench.core.errors import BadValue
from workbench.data.counter import key_of, mixed_array

Ids = Sequence[int]


@dataclass(frozen=True)
class Corruption:
    """``share`` of a row's tokens is taken out, in spans of ``mean`` tokens on average. Raises BadValue."""

    share: float = 0.15
    mean: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise BadValue("the share of tokens taken out", self.share, "above 0 and below 1")
        if self.mean < 1:
            raise BadValue("the mean length of a span", self.mean, "at least 1")

    def sizes(self, length: int) -> tuple[int, int]:
        """How many tokens of a row of ``length`` are taken out, and in how many spans."""
        out = min(max(round(length * self.share), 1), length - 1)
        return out, min(max(round(out / self.mean), 1), length - out)


class SpanRows:
    """Rows of token ids with spans taken out (a ``RowData`` of ``SequenceBatch``).

    Row number r is ``rows[r % n]``, corrupted by a draw from (seed, r) alone: with ``count`` above n the same text comes again with other
    spans, and a training that is continued reads what an unbroken one reads. The decoder reads ``begin`` and the target, and predicts the
    target and ``end``; sources end with ``end`` and are masked after it. Raises BadValue for no rows, a row of fewer than two tokens,
    control ids inside a row, or fewer sentinels than a row needs.
    """

    def __init__(
        self,
        rows: Sequence[Ids],
        sentinels: Sequence[int],
        *,
        begin: int,
        end: int,
        seed: int,
        count: int | None = None,
        corruption: Corruption | None = None,
    ) -> None:
        self.corruption, self.begin, self.end, self._seed = corruption or Corruption(), begin, end, seed
        self.sentinels, self._rows = tuple(sentinels), [np.asarray(row, dtype=np.int64) for row in rows]
        if not self._rows or min(map(len, self._rows)) < 2:
            raise BadValue("the rows", len(self._rows), "at least one, each of two tokens or more")
        control = {begin, end, *self.sentinels}
        if len(control) < len(self.sentinels) + (1 if begin == end else 2):
            raise BadValue("the sentinels", self.sentinels[:8], "distinct, and neither begin nor end")
        if odd := sorted(control & {token for row in self._rows for token in row.tolist()}):
            raise BadValue("a row", odd, "without control ids: text is no sentinel")
        needed = max(self.corruption.sizes(len(row))[1] for row in self._rows) + 1
        if needed > len(self.sentinels):
            raise BadValue("the number of sentinels", len(self.sentinels), f"at least {needed}, one a span and one to end with")
        self._count = len(self._rows) if count is None else count
        if self._count < 1:
            raise BadValue("count", count, "at least 1")

    def __len__(self) -> int:
        return self._count

    def spans(self, number: int) -> list[tuple[int, int]]:
        """The half-open spans that are taken out of row ``number``."""
        length = len(self._rows[number % len(self._rows)])
        out, n = self.corruption.sizes(length)
        key = key_of("spans", self._seed, number)
        within = _divided(out, n, key, 0)
        between = _divided(length - out + 1, n + 1, key, out)[:-1]  # the last part, less one, is what stands after the last span
        starts = np.cumsum(between) + np.cumsum(within) - within
        return [(int(start), int(start + size)) for start, size in zip(starts, within, strict=True)]

    def corrupted(self, number: int) -> tuple[list[int], list[int]]:
        """The source and the target of row ``number``, both with their end."""
        row, source, target, at = self._rows[number % len(self._rows)].tolist(), [], [], 0
        for sentinel, (first, last) in zip(self.sentinels, self.spans(number), strict=False):
            source += [*row[at:first], sentinel]
            target += [sentinel, *row[first:last]]
            at = last
        target.append(self.sentinels[len(self.spans(number))])
        return [*source, *row[at:], self.end], [*target, self.end]

    def batch(self, indices: Sequence[int]) -> SequenceBatch:
        """The rows ``indices``, source and target each as wide as the longest of them."""
        numbers = [int(i) for i in indices]
        if not numbers or min(numbers) < 0 or max(numbers) >= len(self):
            raise BadValue("row indices", numbers[:8], f"non-empty and within 0 to {len(self) - 1}")
        pairs = [self.corrupted(number) for number in numbers]
        wide, long = (max(len(pair[part]) for pair in pairs) for part in (0, 1))
        source, mask = np.full((len(pairs), wide), self.end), np.zeros((len(pairs), wide), dtype=bool)
        tokens, targets = np.full((len(pairs), long), self.end), np.full((len(pairs), long), IGNORE)
        for at, (left, right) in enumerate(pairs):
            source[at, : len(left)], mask[at, : len(left)] = left, True
            tokens[at, : len(right)], targets[at, : len(right)] = [self.begin, *right[:-1]], right
        whole = None if mask.all() else torch.from_numpy(mask)
        return SequenceBatch(torch.from_numpy(source), torch.from_numpy(tokens), torch.from_numpy(targets), whole)

    def digest(self) -> str:
        """sha256 (hex) over all rows, how many are shown, the control ids and how rows are corrupted."""
        facts = (self.sentinels, self.begin, self.end, self._seed, self._count, self.corruption)
        whole = hashlib.sha256(f"spans {facts}".encode())
        for row in self._rows:
            whole.update(len(row).to_bytes(4, "little") + row.astype("<i4").tobytes())
        return whole.hexdigest()


def _divided(total: int, parts: int, key: int, first: int) -> np.ndarray:
    """``total`` in ``parts`` sizes of at least one, every division equally likely; draws from ``first`` on are used."""
    drawn = mixed_array(key, np.arange(first, first + max(total - 1, 0), dtype=np.uint64))
    cuts = np.sort(np.argsort(drawn, kind="stable")[: parts - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))
