"""Interpolated modified Kneser-Ney by its definition: dictionaries and loops (Chen and Goodman 1998, section 3.3)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from evals.ngram import FALLBACK

MARK = -1


class SlowKneserNey:
    def __init__(self, sequences: Sequence[Sequence[int]], order: int, vocab: int) -> None:
        self.order, self.vocab = order, vocab
        grams = [Counter() for _ in range(order + 1)]
        for sequence in sequences:
            padded = [MARK] * (order - 1) + list(sequence)
            for end in range(order - 1, len(padded)):
                for k in range(1, order + 1):
                    grams[k][tuple(padded[end - k + 1 : end + 1])] += 1
        self.counts: list[dict[tuple[int, ...], int]] = [{}]
        for k in range(1, order + 1):
            if k == order:
                self.counts.append(dict(grams[k]))
            else:
                before = defaultdict(set)
                for gram in grams[k + 1]:
                    before[gram[1:]].add(gram[0])
                self.counts.append({gram: len(left) for gram, left in before.items()})
        self.discounts = [self._discounts(k) for k in range(order + 1)]

    def _discounts(self, k: int) -> tuple[float, float, float]:
        n = Counter(self.counts[k].values())
        if min(n[c] for c in (1, 2, 3, 4)) == 0:
            return FALLBACK
        y = n[1] / (n[1] + 2 * n[2])
        found = tuple(c - (c + 1) * y * n[c + 1] / n[c] for c in (1, 2, 3))
        return found if all(0 < d < c for c, d in zip((1, 2, 3), found, strict=True)) else FALLBACK  # type: ignore[return-value]  # three of them

    def p(self, symbol: int, history: tuple[int, ...], k: int | None = None) -> float:
        k = self.order if k is None else k
        if k == 0:
            return 1 / self.vocab
        context = history[len(history) - (k - 1) :]
        below = self.p(symbol, history, k - 1)
        follow = {gram[-1]: c for gram, c in self.counts[k].items() if gram[:-1] == context}
        total = sum(follow.values())
        if not total:
            return below
        d = lambda c: self.discounts[k][min(c, 3) - 1] if c else 0.0  # noqa: E731
        own = follow.get(symbol, 0)
        return max(own - d(own), 0) / total + sum(d(c) for c in follow.values()) / total * below
