"""Items set aside: what is found on some is judged on others."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.core.batch import Batch
from workbench.core.errors import BadValue
from workbench.core.protocol import Inputs


def split(count: int, groups: Sequence[Hashable] | None, share: float, seed: int) -> tuple[list[int], list[int]]:
    """The items to find on and those held out, each in order: ``share`` of the groups, rounded, at least one and never all. A group is an
    item where none are named, and is never divided. Raises BadValue for groups that do not fit, and fewer than two."""
    if groups is not None and len(groups) != count:
        raise BadValue("inputs.groups", f"{len(groups)} names", f"{count}, one an item")
    named = list(groups) if groups is not None else list(range(count))
    every = list(dict.fromkeys(named))
    if len(every) < 2:
        raise BadValue("the groups of the items", len(every), "at least two, so that some can be held out")
    out = min(max(1, round(share * len(every))), len(every) - 1)
    order = np.random.default_rng([seed, 2]).permutation(len(every))
    held = {every[k] for k in order[:out].tolist()}
    return [i for i, name in enumerate(named) if name not in held], [i for i, name in enumerate(named) if name in held]


def rows_of(inputs: Inputs, rows: Sequence[int], *, twins: bool) -> Inputs:
    """Some items alone. ``twins``: the reference holds one row for each item, and goes with it; otherwise it stays as it is."""
    reference = inputs.reference
    if twins and reference is not None:
        reference = rows_of(reference, rows, twins=False) if isinstance(reference, Inputs) else _some(reference, rows)
    return replace(
        inputs,
        batch=_some(inputs.batch, rows),
        lengths=_some(inputs.lengths, rows),
        reference=reference,
        groups=_some(inputs.groups, rows),
        targets=_some(inputs.targets, rows),
        foils=_some(inputs.foils, rows),
    )


def _some(given: Any, rows: Sequence[int]) -> Any:
    if given is None:
        return None
    if isinstance(given, Batch):
        return given.rows(rows)
    if isinstance(given, Tensor | np.ndarray):
        return given[torch.tensor(rows) if isinstance(given, Tensor) else np.array(rows)]
    if isinstance(given, str):
        return _some([given], rows)
    return [given[row] for row in rows]
