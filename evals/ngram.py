"""Interpolated modified Kneser-Ney n-gram models over bytes or tokens: the baseline a language model must beat.

Chen and Goodman, "An empirical study of smoothing techniques for language modeling" (1998), section 3.3, all orders
interpolated down to the uniform distribution, so every context has a proper distribution over the whole vocabulary.
Counts are dense ids from sorted integer keys: an n-gram is (id of its first n−1 symbols) · base + last symbol, which
never overflows whatever the vocabulary, and fitting a megabyte takes seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from workbench.core.errors import BadValue

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MOST_ORDER = 5
FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where the counts of counts do not determine them (fewer than four distinct low counts): D1, D2, D3+."""


@dataclass(frozen=True)
class _Order:
    """The counts of one order. ``keys``: sorted n-gram keys; ``mass``: their (continuation) counts; per context its total and γ."""

    keys: Ints
    mass: Floats
    discount: Floats  # [4]: D(0)=0, D1, D2, D3+
    total: Floats  # per context id of the order below
    gamma: Floats  # per context id: the share left to the order below


def as_bytes(text: str) -> Ints:
    """The UTF-8 bytes of ``text`` as integers 0 to 255."""
    return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)


def discounts(mass: Floats) -> tuple[float, float, float]:
    """D1, D2 and D3+ of Chen and Goodman from the counts of counts, or ``FALLBACK`` where these do not determine them."""
    n1, n2, n3, n4 = (int(np.count_nonzero(mass == c)) for c in (1, 2, 3, 4))
    if min(n1, n2, n3, n4) == 0:
        return FALLBACK
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return found if all(0 < d < c for c, d in enumerate(found, 1)) else FALLBACK


class KneserNey:
    """An n-gram model of ``order`` 1 to 5 over symbols 0 … ``vocab`` − 1.

    ``sequences`` are fitted apart: each begins with ``order`` − 1 marks that are never predicted, and no n-gram crosses
    from one sequence into the next. Raises BadValue for an empty text, an order outside 1 to 5 or a symbol outside the vocabulary.
    """

    def __init__(self, sequences: Sequence[Ints] | Ints, *, order: int, vocab: int = 256) -> None:
        if not 1 <= order <= MOST_ORDER:
            raise BadValue("the n-gram order", order, f"1 to {MOST_ORDER}")
        self.order, self.vocab = order, vocab
        parts = self._checked(sequences)
        if not parts:
            raise BadValue("the n-gram training text", "empty", "at least one symbol long")
        self.trained_on = sum(len(p) for p in parts)
        padded, real = self._padded(parts)
        self._digest = hashlib.sha256(np.concatenate([padded, [order, vocab]]).astype("<i8").tobytes()).hexdigest()
        self._orders = self._count(padded, real)

    def digest(self) -> str:
        """sha256 over the training symbols, the order and the vocabulary."""
        return self._digest

    @cached_property
    def _base(self) -> int:
        return self.vocab + 1  # the mark before a sequence is symbol `vocab`

    def _checked(self, sequences: Sequence[Ints] | Ints) -> list[Ints]:
        whole = [sequences] if isinstance(sequences, np.ndarray) and sequences.ndim == 1 else list(sequences)
        parts = [np.asarray(p, dtype=np.int64) for p in whole]
        for part in parts:
            if part.size and (part.min() < 0 or part.max() >= self.vocab):
                raise BadValue("an n-gram symbol", int(part[(part < 0) | (part >= self.vocab)][0]), f"0 to {self.vocab - 1}")
        return [p for p in parts if p.size]

    def _padded(self, parts: Sequence[Ints]) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """The sequences one after the other, each behind its marks, and which positions hold a real symbol."""
        marks = np.full(self.order - 1, self.vocab, dtype=np.int64)
        padded = np.concatenate([piece for part in parts for piece in (marks, part)])
        real = np.concatenate([np.concatenate([np.zeros(len(marks), bool), np.ones(len(part), bool)]) for part in parts])
        return padded, real

    def _count(self, symbols: Ints, real: npt.NDArray[np.bool_]) -> list[_Order]:
        """Orders 1 … n. Only n-grams that end in a real symbol are counted; contexts may hold marks."""
        grams = [np.zeros(len(symbols), dtype=np.int64)]  # id of the k-gram ending at each position; the 0-gram has id 0
        all_keys: list[Ints] = []
        for k in range(1, self.order + 1):
            before = np.concatenate([[0] if k == 1 else [-1], grams[-1][:-1]]) if k > 1 else grams[0]
            key = np.where(before < 0, -1, before * self._base + symbols)
            found = np.unique(key[key >= 0])
            all_keys.append(found)
            grams.append(np.where(key < 0, -1, np.searchsorted(found, key)))
        out = []
        for k in range(1, self.order + 1):
            ids = grams[k][real]
            if k == self.order:
                ends = ids
            else:  # continuation count: in how many (k+1)-grams it is the end
                wider = grams[k + 1][real]
                assert wider.min() >= 0, "a real symbol stands behind order − 1 marks, so every order has a gram there"
                where = np.full(len(all_keys[k]), -1, dtype=np.int64)
                where[wider] = np.arange(len(wider))  # one occurrence of each wider n-gram; which one does not matter
                ends = ids[where[where >= 0]]
            out.append(self._weigh(all_keys[k - 1], np.bincount(ends, minlength=len(all_keys[k - 1])).astype(np.float64)))
        return out

    def _weigh(self, keys: Ints, mass: Floats) -> _Order:
        """Totals and leftover shares per context. N-grams that end in a mark have no mass and do not count."""
        d = np.array([0.0, *discounts(mass)])
        context = keys // self._base
        size = int(context.max()) + 1
        total = np.bincount(context, weights=mass, minlength=size).astype(np.float64)
        removed = np.bincount(context, weights=d[np.minimum(mass, 3).astype(np.int64)], minlength=size)
        gamma = np.divide(removed, total, out=np.ones(size), where=total > 0)
        return _Order(keys, mass, d, total, gamma)

    @staticmethod
    def _find(keys: Ints, wanted: Ints) -> Ints:
        """The ids of ``wanted`` among the sorted ``keys``; −1 where absent."""
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where((wanted >= 0) & (keys[place] == wanted), place, -1)

    def probabilities(self, sequence: Ints, *, context: Ints | None = None) -> Floats:
        """``[order, pos]``: the probability of each symbol of ``sequence`` under the model's orders 1 … n.

        Row k − 1 uses k − 1 symbols of context. ``context`` stands before the sequence and is not scored; without it
        the sequence begins behind marks. (Rows below the last are the lower-order distributions the model interpolates
        with, not maximum-order models of their own: fit one to compare orders.)
        """
        sequence = self._checked([sequence])[0] if len(sequence) else np.zeros(0, np.int64)
        lead = np.full(self.order - 1, self.vocab, dtype=np.int64)
        if context is not None and len(context):
            lead = np.concatenate([lead, self._checked([context])[0]])
        symbols = np.concatenate([lead, sequence])
        below = np.full(len(symbols), 1.0 / self.vocab)
        rows = []
        ids = np.zeros(len(symbols), dtype=np.int64)
        for order in self._orders:
            before = ids if order is self._orders[0] else np.concatenate([[-1], ids[:-1]])
            key = np.where(before < 0, -1, before * self._base + symbols)
            ids = self._find(order.keys, key)
            below = self._step(order, before, ids, below)
            rows.append(below[len(lead) :])
        return np.stack(rows)

    @staticmethod
    def _step(order: _Order, context: Ints, gram: Ints, below: Floats) -> Floats:
        seen = (context >= 0) & (context < len(order.total))
        held = np.where(seen, context, 0)
        seen &= order.total[held] > 0
        mass = np.where(gram >= 0, order.mass[np.maximum(gram, 0)], 0.0)
        kept = np.maximum(mass - order.discount[np.minimum(mass, 3).astype(np.int64)], 0.0)
        total = np.where(seen, order.total[held], 1.0)
        return np.where(seen, kept / total + order.gamma[held] * below, below)

    def distribution(self, context: Sequence[int]) -> Floats:
        """``[vocab]``: the next-symbol distribution after ``context`` (an empty one means the start of a sequence). Sums to one."""
        before = np.asarray(context, dtype=np.int64)
        out = [self.probabilities(np.array([s]), context=before)[-1, 0] for s in range(self.vocab)]
        return np.array(out)

    def distributions(self, contexts: Ints) -> Floats:
        """``[n, vocab]``: the next-symbol distribution after each row of ``contexts`` ``[n, order − 1]``, all symbols at once.

        The last column stands right before the symbol. The mark before a sequence is ``vocab``; a symbol below 0 is unknown, and of
        what lies before it nothing is used. Raises BadValue for another shape or symbol.
        """
        if contexts.ndim != 2 or contexts.shape[1] != self.order - 1:
            raise BadValue("the shape of the contexts", contexts.shape, f"[n, {self.order - 1}]")
        if contexts.size and contexts.max() > self.vocab:
            raise BadValue("an n-gram symbol", int(contexts.max()), f"at most {self.vocab}, the mark before a sequence")
        below = np.full((len(contexts), self.vocab), 1.0 / self.vocab)
        for k, order in enumerate(self._orders):
            ids = np.zeros(len(contexts), dtype=np.int64)  # of the last k symbols
            for shorter, symbol in zip(self._orders, contexts[:, self.order - 1 - k :].T):
                ids = self._find(shorter.keys, np.where((ids < 0) | (symbol < 0), -1, ids * self._base + symbol))
            below = self._spread(order, ids, below)
        return below

    def _spread(self, order: _Order, context: Ints, below: Floats) -> Floats:
        """``_step`` for every symbol: the n-grams of a context lie side by side among the sorted keys."""
        seen = (context >= 0) & (context < len(order.total))
        held = np.where(seen, context, 0)
        seen &= order.total[held] > 0
        first = np.searchsorted(order.keys, held * self._base)
        count = np.where(seen, np.searchsorted(order.keys, held * self._base + self.vocab) - first, 0)
        row = np.repeat(np.arange(len(held)), count)
        at = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[row]
        mass = order.mass[at]
        out = np.where(seen[:, None], order.gamma[held][:, None] * below, below)
        kept = np.maximum(mass - order.discount[np.minimum(mass, 3).astype(np.int64)], 0.0)
        out[row, order.keys[at] % self._base] += kept / order.total[held][row]
        return out

    def nats(self, sequence: Ints, *, context: Ints | None = None) -> Floats:
        """``[pos]``: −log p of each symbol at the model's order, in nats a symbol."""
        return -np.log(self.probabilities(sequence, context=context)[-1])
