"""Pairs of word sequences as ids: a source, and what a decoder is to write about it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.core.batch import IGNORE, SequenceBatch
from workbench.core.errors import BadValue, UnknownName

Pair = tuple[Sequence[str], Sequence[str]]


class Words:
    """A closed vocabulary: word i is id i, then come the begin and the end token.

    >>> Words(["a", "b"]).ids(["b", "a"])
    [1, 0]
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._id = {word: i for i, word in enumerate(self.words)}
        if not self.words or len(self._id) != len(self.words):
            raise BadValue("the words", len(self.words), "distinct, at least one")
        self.begin, self.end, self.size = len(self.words), len(self.words) + 1, len(self.words) + 2

    def ids(self, words: Sequence[str]) -> list[int]:
        """One id a word. Raises UnknownName."""
        if odd := [word for word in words if word not in self._id]:
            raise UnknownName("word", odd[0], self._id, where="in this vocabulary")
        return [self._id[word] for word in words]

    def read(self, ids: Sequence[int]) -> list[str]:
        """The word of each id. Raises BadValue for a control token and outside the vocabulary."""
        if odd := [i for i in ids if not 0 <= i < len(self.words)]:
            raise BadValue("word id", int(odd[0]), f"within 0 to {len(self.words) - 1}")
        return [self.words[i] for i in ids]


class PairRows:
    """Pairs to train on (a ``RowData`` of ``SequenceBatch``).

    A source ends with the end token and is masked after it; the decoder reads begin and the target, and predicts the target and end.
    Shorter rows are filled with the end token and ``IGNORE``. ``mask`` is None where all sources of a batch are equally long.
    """

    def __init__(self, pairs: Sequence[Pair], words: Words) -> None:
        if not pairs:
            raise BadValue("the pairs", "none", "at least one")
        self.words = words
        self._pairs = [(words.ids(source), words.ids(target)) for source, target in pairs]

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def longest(self) -> int:
        """The most positions of a source or a target, its end token included."""
        return 1 + max(max(len(source), len(target)) for source, target in self._pairs)

    def target(self, index: int) -> list[int]:
        """The ids of a row's target, without control tokens."""
        return list(self._pairs[index][1])

    def batch(self, indices: Sequence[int]) -> SequenceBatch:
        """The rows ``indices``, as wide as the longest of them."""
        chosen = [int(i) for i in indices]
        if not chosen or min(chosen) < 0 or max(chosen) >= len(self):
            raise BadValue("row indices", chosen[:8], f"non-empty and within 0 to {len(self) - 1}")
        begin, end = self.words.begin, self.words.end
        rows = [self._pairs[i] for i in chosen]
        source = _filled([[*ids, end] for ids, _ in rows], end)
        tokens = _filled([[begin, *ids] for _, ids in rows], end)
        targets = _filled([[*ids, end] for _, ids in rows], IGNORE)
        mask = torch.arange(source.shape[1]) <= torch.tensor([len(ids) for ids, _ in rows]).unsqueeze(1)
        return SequenceBatch(source, tokens, targets, None if bool(mask.all()) else mask)

    def digest(self) -> str:
        """sha256 (hex) over the vocabulary and all rows."""
        whole = hashlib.sha256("\x1f".join(self.words.words).encode())
        for source, target in self._pairs:
            whole.update(f"|{source}{target}".encode())
        return whole.hexdigest()


def _filled(rows: Sequence[Sequence[int]], empty: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[empty] * (width - len(row))] for row in rows])
