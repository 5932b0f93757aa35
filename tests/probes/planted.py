"""Small models trained on rows of which it is known what decides the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from probes.attention_pattern import INSTRUMENT as ATTENTION
from probes.attention_pattern import AttentionPatternSpec
from workbench.core.protocol import Inputs

KINDS, FILLERS = 4, 12
"""Words that decide come first in the vocabulary, then words that say nothing; further ids are the test's own."""


def trained(model: Any, make: Callable[[int, int], Any], steps: int, *, lr: float = 3e-3, rows: int = 32) -> Any:
    """``model`` after ``steps`` of AdamW on fresh batches ``make(rows, seed)``."""
    model.train()
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(wanted, lr=lr)
    for step in range(steps):
        total, count = model.loss(make(rows, 1000 + step))
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    return model.eval()


def sentences(count: int, seed: int, length: int = 8) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Rows of words that say nothing but for one, which decides; what it decides (0 to 3), and where it stands."""
    draw = np.random.default_rng(seed)
    words = KINDS + draw.integers(0, FILLERS, (count, length))
    kinds, where = draw.permutation(np.arange(count) % KINDS), draw.integers(0, length, count)
    words[np.arange(count), where] = kinds
    return torch.from_numpy(words), torch.from_numpy(kinds), where


def read_most(model: Any, inputs: Inputs, keys: slice, query: int | np.ndarray, **spec: Any) -> np.ndarray:
    """Which of ``keys`` each item reads most from ``query`` (one for all, or one an item), over all heads of the last layer; counted from
    the first of ``keys``."""
    values: Any = ATTENTION(model, inputs, AttentionPatternSpec.parse(spec)).values
    pattern = values.pattern.values[-1].mean(0)  # batch query key
    return pattern[np.arange(len(pattern)), query][:, keys].argmax(-1)
