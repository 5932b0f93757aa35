"""A planted look-up: rows in which one word is repeated at the end, and a model that learned to say what followed it before."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from tests.families.models import logits
from workbench.core.protocol import Inputs
from workbench.families.gpt import GPT, GPTConfig


def looked_up(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of distinct words with one repeated at the end: what followed it the first time comes next (induction). And where that was."""
    draw = np.random.default_rng(seed)
    rows = np.stack([draw.permutation(24)[:8] for _ in range(count)])
    where = draw.integers(1, 7, count)
    rows[:, 7] = rows[np.arange(count), where - 1]
    return torch.from_numpy(rows), torch.from_numpy(where)


@cache
def induction() -> GPT:
    """Two layers that learned to look up what followed the last word before."""
    config = GPTConfig(
        n_layers=2, d_model=48, n_heads=2, d_vocab=24, n_ctx=8, act="none", norm="rms", positions="learned", tied=False, init_std=0.14
    )
    model = GPT(config, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for step in range(700):
        ids, where = looked_up(64, step)
        loss = torch.nn.functional.cross_entropy(logits(model.run(ids, logits="last", grad=True))[:, 0], ids[torch.arange(64), where])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def swapped(count: int, seed: int) -> tuple[Inputs, Tensor]:
    """Clean rows, and twins in which another word follows the repeated one; and where that word stands."""
    ids, where = looked_up(count, seed)
    rows, corrupt = torch.arange(count), ids.clone()
    instead = torch.tensor([next(w for w in range(24) if w not in row) for row in ids.tolist()])
    corrupt[rows, where] = instead
    return Inputs(ids, reference=corrupt, targets=ids[rows, where], foils=instead), where
