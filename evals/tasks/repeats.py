"""Random strings written over and over, for a decoder: how often it knows the next symbol once the string has been seen."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from evals.task import Measure, Task, TaskData
from workbench.core.protocol import HookedModel
from workbench.core.stats.resampling import bootstrap, mean
from workbench.data.worlds.repeats import RepeatRows, RepeatsSpec

MOST_NATS = 1e4
"""More than any symbol costs: where all rows cost the same, the interval reaches towards it."""


def make(spec: RepeatsSpec, rows: int) -> TaskData:
    """Rows without end, each drawn once."""
    held = RepeatRows(spec, "test", spec.held_out)
    shape = {"d_vocab": spec.symbols, "n_ctx": spec.length}
    return TaskData(RepeatRows(spec, "train", rows), RepeatRows(spec, "validation", 64), shape, held_out=held)


def score(model: HookedModel, data: TaskData) -> Sequence[Measure]:
    """Of held-out rows: the share of repeated symbols that are known, nats a symbol the first time and afterwards; intervals over rows."""
    held: RepeatRows = data.held_out
    batch = held.batch(range(len(held)))
    logits = model.run(batch.tokens).logits
    assert logits is not None
    lost = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch.targets.flatten(), reduction="none")
    lost, right = lost.reshape(batch.targets.shape), logits.argmax(-1) == batch.targets
    # Of p symbols, the first follows the last for the first time at target p - 1, which nothing told; from p on, all is known.
    seen = torch.arange(held.spec.length) >= torch.tensor([held.period(i) for i in range(len(held))])[:, None]
    shares, words = right.double(), "held-out rows"
    of = lambda values, where: ((values * where).sum(1) / where.sum(1)).double().numpy()  # noqa: E731
    found = {
        "known repeats": (of(shares, seen), "share of repeated symbols, over", True),
        "nats, repeated": (of(lost, seen), "nats a repeated symbol, over", False),
        "nats, first time": (of(lost, ~seen), "nats a symbol seen for the first time, over", False),
    }
    out = []
    for name, (values, _, larger) in found.items():
        at = bootstrap(values, mean, bounds=(0.0, 1.0 if larger else MOST_NATS))
        out.append(Measure(name, at.value, at.interval.low, at.interval.high, len(values), words, larger))
    return out


TASK = Task("repeats", "gpt", RepeatsSpec, make, score, must={"known repeats": 0.95})
