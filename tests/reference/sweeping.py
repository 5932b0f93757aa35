"""Many edited runs the slow and obvious way: one whole run of the model an edit, all its logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.core.protocol import Edit


def one_by_one(
    model: Any, batch: Any, cells: Sequence[Edit | Sequence[Edit]], metric: Callable[[Tensor], Tensor], positions: Tensor | None = None
) -> Tensor:
    """``metric`` of each cell's logits at ``positions`` ``[batch, n]`` (None: of all logits)."""
    out = []
    for cell in cells:
        logits = model.run(batch, edit=[cell] if isinstance(cell, Edit) else list(cell)).logits
        if positions is not None:
            logits = torch.stack([row[at] for row, at in zip(logits, positions, strict=True)])
        out.append(metric(logits))
    return torch.stack(out)
