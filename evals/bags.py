"""Classifying texts by the words in them, wherever they stand: logistic regression on counts, which a reader of texts must beat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from workbench.core.errors import BadValue

Ids = Sequence[int]
STRENGTHS = (0.01, 0.1, 1.0)
"""Inverse strengths of the penalty; the best on validation is taken."""


@dataclass(frozen=True)
class Bags:
    """A fitted classifier of bags: ``known`` numbers the features, single ids or also (``neighbours``) pairs of neighbouring ids."""

    known: dict[tuple[int, ...], int]
    neighbours: bool
    model: LogisticRegression

    @classmethod
    def fitted(
        cls, train: Sequence[Ids], labels: Sequence[int], validation: Sequence[Ids], truth: Sequence[int], *, neighbours: bool
    ) -> Bags:
        """Fitted on ``train``, with the penalty of the best accuracy on ``validation``, of equal ones the strongest. Raises BadValue for
        labels of one class alone, and other numbers of labels than of texts."""
        if len(train) != len(labels) or len(validation) != len(truth):
            raise BadValue("the labels", (len(labels), len(truth)), f"one for each of {len(train)} and {len(validation)} texts")
        if len(set(labels)) < 2:
            raise BadValue("the classes", sorted(set(labels)), "at least two in training")
        found = {feature for row in train for feature in _features(row, neighbours)}
        known = {feature: number for number, feature in enumerate(sorted(found))}
        best: tuple[float, Bags] | None = None
        for strength in STRENGTHS:
            made = cls(known, neighbours, LogisticRegression(C=strength, max_iter=200, tol=1e-3))
            made.model.fit(made._table(train), np.asarray(labels))
            share = float((made.guesses(validation) == np.asarray(truth)).mean())
            if best is None or share > best[0]:
                best = (share, made)
        assert best is not None, "there are strengths to try"
        return best[1]

    def guesses(self, rows: Sequence[Ids]) -> NDArray[np.int64]:
        """The class of each row."""
        return np.asarray(self.model.predict(self._table(rows)))

    def _table(self, rows: Sequence[Ids]) -> sparse.csr_matrix:
        counts = [Counter(number for one in _features(row, self.neighbours) if (number := self.known.get(one)) is not None) for row in rows]
        ends = np.cumsum([0, *map(len, counts)])
        columns = np.fromiter((number for row in counts for number in sorted(row)), dtype=np.int64, count=int(ends[-1]))
        values = np.fromiter((row[number] for row in counts for number in sorted(row)), dtype=np.float64, count=int(ends[-1]))
        return sparse.csr_matrix((values, columns, ends), shape=(len(rows), len(self.known)))


def _features(row: Ids, neighbours: bool) -> list[tuple[int, ...]]:
    single: list[tuple[int, ...]] = [(token,) for token in row]
    return single + list(pairwise(row)) if neighbours else single
