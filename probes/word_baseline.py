"""What the words alone tell, without the network: the label a word mostly has, or for whole items a probe on the bag of their words."""

from __future__ import annotations

import numpy as np
import torch

from probes.probe_labels import Split, Task
from probes.ridge import Moments, one_hot, predicted
from probes.token_items import TokenItems

WORDS = 2000
"""Token ids that a bag counts: the most frequent of the training items."""


def word_baseline(task: Task, split: Split, items: TokenItems, strength: float) -> np.ndarray:
    """0 or 1 for each held-out token, in order: whether the words alone give its label.

    For labels of tokens, the most frequent label of the word type in training (of a new type: of all). For labels of whole items, a ridge
    probe on how often each token id occurs in the item.
    """
    if task.whole:
        return _bag(task, split, items, strength)
    _, kind = np.unique(task.types, return_inverse=True)
    table = np.zeros((kind.max() + 1, len(task.classes)))
    np.add.at(table, (kind[split.train], task.codes[split.train]), 1)
    table += table.sum(0) * 1e-9  # ties, and types that were never seen, go to what is frequent
    return (table.argmax(1)[kind[split.test]] == task.codes[split.test]).astype(float)


def _bag(task: Task, split: Split, items: TokenItems, strength: float) -> np.ndarray:
    rows = task.where // items.width
    ids, real = items.ids.numpy(), items.real.numpy()
    train = rows[split.train]
    found, often = np.unique(ids[train][real[train]], return_counts=True)
    chosen = np.sort(found[np.argsort(-often, kind="stable")[:WORDS]])
    counts = np.zeros((len(rows), len(chosen)))
    for number, row in enumerate(rows):
        seen = ids[row][real[row]]
        seen = seen[np.isin(seen, chosen)]
        np.add.at(counts[number], np.searchsorted(chosen, seen), 1)
    x, y = torch.from_numpy(counts), torch.from_numpy(task.codes)[:, None]
    sums = Moments()
    sums.add(x[split.train], one_hot(y[split.train], len(task.classes)))
    scores = sums.solve(strength).scores(x[split.test])
    return (predicted(scores, 1) == y[split.test])[:, 0].double().numpy()
