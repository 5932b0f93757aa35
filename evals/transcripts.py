"""What an encoder-decoder writes about held-out sources, beside what it should have written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evals.task import Measure
from workbench.core.batch import IGNORE, RowData
from workbench.core.protocol import HookedModel
from workbench.core.stats.intervals import clopper_pearson
from workbench.core.stats.resampling import bootstrap, ratio
from workbench.engine.transcribe import greedy

ROWS = 100
Ids = Sequence[int]


def transcribed(model: HookedModel, rows: RowData, *, begin: int, end: int | None) -> list[tuple[list[int], list[int]]]:
    """(what the model writes, what it should have written) for every row, greedily; ``end`` closes both (None: one length for all)."""
    out: list[tuple[list[int], list[int]]] = []
    for first in range(0, len(rows), ROWS):
        batch = rows.batch(range(first, min(first + ROWS, len(rows))))
        wanted = [[i for i in row if i not in (IGNORE, end)] for row in batch.targets.tolist()]
        most = max(map(len, wanted)) + (end is not None)
        out += zip(greedy(model, batch, begin=begin, end=end, most=most), wanted, strict=True)
    return out


def exact(name: str, pairs: Sequence[tuple[Ids, Ids]], words: str) -> Measure:
    """The share written without a fault."""
    return Measure.share(name, sum(list(found) == list(wanted) for found, wanted in pairs), len(pairs), words)


def error_rate(name: str, pairs: Sequence[tuple[Ids, Ids]], words: str) -> Measure:
    """Insertions, deletions and substitutions over the symbols that should have been written (Levenshtein 1966); the interval is over
    rows (bootstrap)."""
    table = np.array([(distance(found, wanted), len(wanted)) for found, wanted in pairs], dtype=float)
    faults, symbols = table.sum(axis=0)
    if np.ptp(table[:, 0] / table[:, 1]) == 0:  # no resample can differ: a share of faulty symbols stands in (Clopper and Pearson 1934)
        interval = clopper_pearson(min(int(faults), int(symbols)), int(symbols))
        value = float(faults / symbols)
        return Measure(name, value, min(value, interval.low), max(value, interval.high), int(symbols), words, larger=False)
    found = bootstrap(table, ratio)
    return Measure(name, found.value, found.interval.low, found.interval.high, int(symbols), words, larger=False)


def distance(found: Ids, wanted: Ids) -> int:
    """The least number of single insertions, deletions and substitutions from one to the other."""
    row = list(range(len(wanted) + 1))
    for i, left in enumerate(found, 1):
        above, row[0] = row[0], i
        for j, right in enumerate(wanted, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (left != right))
    return row[-1]
