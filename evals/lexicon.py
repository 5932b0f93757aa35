"""Marking by a list of words alone: how often a word was toxic where it stood in training, whatever stands around it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evals.spans import Floats, Marked, threshold
from workbench.data.toxic_spans import Post, wording

SMOOTHING = (0.0, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Lexicon:
    """Words without case and the rate of each; a word that is not listed has 0. Words of a rate of at least ``level`` are marked."""

    rates: dict[str, float]
    level: float

    @classmethod
    def fitted(cls, train: Sequence[Post], validation: Sequence[Post]) -> Lexicon:
        """Rates of ``train``: times toxic / (times + smoothing). Level and smoothing are those of the highest F1 on ``validation``."""
        times: Counter[str] = Counter()
        toxic: Counter[str] = Counter()
        words = [word for post in train for word in wording(post.text)]
        for word, marked in zip(words, Marked.of(train).majority().tolist(), strict=True):
            times[word] += 1
            toxic[word] += marked
        cut, best = Marked.of(validation), (-1.0, cls({}, 1.0))
        for smoothing in SMOOTHING:
            rates = {word: toxic[word] / (count + smoothing) for word, count in times.items()}
            level, reached = threshold(cut, cls(rates, 0.0).scores(validation))
            if reached > best[0]:
                best = (reached, cls(rates, level))
        return best[1]

    def scores(self, posts: Sequence[Post]) -> Floats:
        """The rate of each word ``[word]`` of ``posts``, in order."""
        return np.array([self.rates.get(word, 0.0) for post in posts for word in wording(post.text)])

    def f1(self, posts: Sequence[Post]) -> Floats:
        """The F1 of each post ``[post]``."""
        return Marked.of(posts).f1(self.scores(posts) >= self.level)
