"""Repeats as a task: a model that looks up what followed knows every repeat, and one that does not knows none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from evals.tasks.repeats import TASK, make, score
from workbench.data.worlds.repeats import RepeatsSpec


class LooksUp:
    """Says of each symbol what followed it last time, with certainty; without a last time, nothing."""

    def __init__(self, size: int, *, turned: bool = False) -> None:
        self.size, self.turned = size, turned

    def run(self, batch: Any, **_: Any) -> Any:
        logits = torch.zeros(*batch.shape, self.size)
        for row, ids in enumerate(batch.tolist()):
            after: dict[int, int] = {}
            for at, symbol in enumerate(ids):
                if at:
                    after[ids[at - 1]] = symbol
                if symbol in after:
                    logits[row, at, (after[symbol] + self.turned) % self.size] = 50.0
        return SimpleNamespace(logits=logits)


def looks_up(size: int, *, turned: bool = False) -> Any:
    return LooksUp(size, turned=turned)


def test_looking_up_knows_every_repeat_and_nothing_else() -> None:
    data = make(RepeatsSpec.parse({"held_out": 60}), 1)
    right, nats, first = score(looks_up(64), data)
    assert right.value == 1.0
    assert nats.value < 1e-6
    assert np.isclose(first.value, np.log(64), atol=1e-5)
    wrong, lost, _ = score(looks_up(64, turned=True), data)
    assert wrong.value == 0.0
    assert lost.value > 40
    assert right.name in TASK.must
