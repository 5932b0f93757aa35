"""What any spike is made of: the user's texts cut into windows, and a way, which is one thing that can be planted into a model at hand.

A way knows whom it can be planted into, which tools are asked about it, what a dose and a seed plant, and its exam. How many held-out
windows an exam asks about is known before anything is planted: sets of one copy never share a window, and texts that are too short for that
are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.calibration.exam import Exam, Grid
from workbench.core.errors import BadValue, Incompatible
from workbench.core.protocol import HookedModel

FEWEST, HELD_OUT = 200, 0.4


@dataclass(frozen=True)
class Windows:
    """Windows of token ids with the token after each ``[n, window + 1]``: those trained on and those held out, from different texts."""

    train: Tensor
    held_out: Tensor

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], window: int, asked: int = 0) -> Windows:
        """From texts as token ids; the last part of the texts is held out, each window once and none that is trained on. ``asked``: how
        many held-out windows the largest copy is asked about. Raises BadValue for too few."""
        cut = round(len(rows) * (1 - HELD_OUT))
        train, held_out = (
            [tuple(row[i : i + window + 1]) for row in some for i in range(0, len(row) - window, window + 1)]
            for some in (rows[:cut], rows[cut:])
        )
        read, least = set(train), max(asked, FEWEST)
        held_out = [one for one in dict.fromkeys(held_out) if one not in read]
        if len(train) < FEWEST or len(held_out) < least:
            found = f"{len(train)} and {len(held_out)} windows of {window + 1} tokens"
            allowed = f"at least {FEWEST} to train on and {least} others held out, since none is asked about twice"
            raise BadValue("the texts to plant into", found, allowed, do="Give more text (`--data`), or a smaller window.")
        return cls(torch.tensor(train), torch.tensor(held_out))

    def of_set(self, seed: int, number: int, items: int) -> Tensor:
        """Set ``number`` of a copy's held-out windows ``[items, window + 1]``, in the order of the copy's seed: no two sets share one.
        Raises BadValue beyond the last."""
        first = number * items
        if first + items > len(self.held_out):
            asked = f"{first + items} of one copy"
            raise BadValue("the held-out windows", asked, f"at most the {len(self.held_out)} that there are", do="Ask about fewer.")
        order = np.random.default_rng([seed, 3]).permutation(len(self.held_out))
        return self.held_out[torch.from_numpy(order[first : first + items])]

    def digest(self) -> str:
        return hashlib.sha256(self.train.numpy().tobytes() + self.held_out.numpy().tobytes()).hexdigest()


def most_asked(grid: Grid, spec: Any = None, tools: Sequence[str] = ()) -> int:
    """About how many items the copy that is asked most is asked, where each is about a window."""
    return max(grid.sets, grid.clean_sets) * grid.items


@dataclass(frozen=True)
class Way:
    """One thing that can be planted into copies of a model at hand. ``plants`` and ``asks`` say in words what, and which tools;
    ``spec`` says how; ``against(model)`` gives clauses that say why this model cannot be planted so, ``takes(tool)`` whether a tool is of
    the kind that is asked; ``plan(model, windows, spec, tool, dose, seed)`` is what is planted in one copy, ``spiked(model, planted)`` the
    copy; ``windows(grid, spec, tools)`` how many held-out windows a copy is asked about at most (BadValue for a grid that asks about more
    than a copy has planted); ``words`` is added to cards' conditions."""

    plants: str
    asks: str
    spec: type[Any]
    against: Callable[[HookedModel], list[str]]
    takes: Callable[[str], bool]
    plan: Callable[[Any, Windows, Any, str, float, int], Any]
    spiked: Callable[[Any, Any], Any]
    exam_of: Callable[[HookedModel, str, str], Exam]
    windows: Callable[[Grid, Any, Sequence[str]], int] = most_asked
    words: str = ""

    def check(self, model: HookedModel) -> None:
        """Raises Incompatible for a model that cannot be planted so."""
        if against := self.against(model):
            raise Incompatible(f"spike-in of {self.plants}", "this model", against)
