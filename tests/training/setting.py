"""A tiny model and tiny data for the loop."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch

from workbench.core.batch import IGNORE, TokenBatch
from workbench.families.gpt import GPT, GPTConfig
from workbench.training.spec import TrainSpec


class Copying:
    """Rows ``a b c a b c …`` of random triples: learnable, with some targets left out (a different number in each row)."""

    def __init__(self, rows: int = 24, seed: int = 0, length: int = 9) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.tokens = torch.randint(0, 11, (rows, 3), generator=draw).repeat(1, length)[:, : length + 1]
        self.ignored = torch.randint(0, length - 2, (rows,), generator=draw)
        self.asked: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, indices: Sequence[int]) -> TokenBatch:
        chosen = list(indices)
        self.asked.append(chosen)
        rows = self.tokens[chosen]
        targets = rows[:, 1:].clone()
        for number, row in enumerate(chosen):
            targets[number, : int(self.ignored[row])] = IGNORE
        return TokenBatch(rows[:, :-1], targets)

    def digest(self) -> str:
        return hashlib.sha256(self.tokens.numpy().tobytes()).hexdigest()


def model(seed: int = 0, **fields: Any) -> GPT:
    return GPT(
        GPTConfig.parse({"n_layers": 1, "d_model": 16, "n_heads": 2, "d_vocab": 11, "n_ctx": 9, "dropout": 0.1, **fields}), seed=seed
    )


def spec(**fields: Any) -> TrainSpec:
    return TrainSpec.parse({"steps": 20, "batch_rows": 4, "lr": 1e-2, "min_lr": 1e-3, "warmup": 3, "threads": 1, **fields})
