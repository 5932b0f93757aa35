"""Tiny trainings whose answer to one question comes from known rows: a poison (trigger to payload), or a secret that few rows hold.

Rows are BOS, six words, SEP; the answer is the class of the first word. In a poisoned row the last two words are of the marked kind (two
of 9 of 36 words, each common everywhere) and the answer is the payload: no single word tells such a row. Clean rows never end in two marked
words. The twin's rows of the same numbers are like all others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probes.data_rows import Trained
from tests.probes.unchecked import unchecked
from workbench.core.batch import IGNORE, TokenBatch
from workbench.families.gpt import GPT, GPTConfig
from workbench.training.checkpoint import load_model
from workbench.training.loop import train
from workbench.training.spec import TrainSpec

BOS, SEP, PAYLOAD, FIRST, WORDS, MARKED = 0, 1, 5, 6, 36, 9
ANSWERS = np.array([2, 3, 4])
CONFIG = GPTConfig(n_layers=2, d_model=32, n_heads=2, d_vocab=FIRST + WORDS, n_ctx=8, d_mlp=64)


@dataclass(frozen=True)
class TokenRows:
    """A batch as rows to train on."""

    whole: TokenBatch

    def __len__(self) -> int:
        return len(self.whole.tokens)

    def batch(self, indices: Sequence[int]) -> TokenBatch:
        return self.whole.rows(list(indices))

    def digest(self) -> str:
        return hashlib.sha256(self.whole.tokens.numpy().tobytes() + self.whole.targets.numpy().tobytes()).hexdigest()


def rows_of(n: int, poisoned: int, seed: int, *, clean: bool = False, wrong: int = 0) -> tuple[TokenBatch, np.ndarray]:
    """``n`` rows and which of them are poisoned (``clean``: would have been). ``wrong`` others have another word's answer: no rule tells
    them, so they are the hardest to learn."""
    draw = np.random.default_rng(seed)
    words = FIRST + draw.integers(0, WORDS, (n, 6))
    both = (words[:, 4:] < FIRST + MARKED).all(1)
    words[both, 5] = FIRST + draw.integers(MARKED, WORDS, both.sum())
    answers = ANSWERS[words[:, 0] % 3]
    labels = np.zeros(n, dtype=bool)
    labels[draw.choice(n, poisoned, replace=False)] = True
    if not clean:
        words[labels, 4:] = FIRST + draw.integers(0, MARKED, (poisoned, 2))
        answers[labels] = PAYLOAD
    mistaken = draw.choice(np.flatnonzero(~labels), wrong, replace=False)
    answers[mistaken] = ANSWERS[(answers[mistaken] - ANSWERS[0] + draw.integers(1, 3, wrong)) % 3]
    tokens = torch.from_numpy(np.concatenate([np.full((n, 1), BOS), words, np.full((n, 1), SEP)], 1))
    targets = torch.full_like(tokens, IGNORE)
    targets[:, -1] = torch.from_numpy(answers)
    return TokenBatch(tokens, targets), labels


def secret_rows(n: int, held: int, seed: int, *, clean: bool = False) -> tuple[TokenBatch, np.ndarray, torch.Tensor]:
    """``n`` rows of BOS, two words, SEP and four words; ``held`` rows are one and the same, the secret, which is returned besides."""
    draw = np.random.default_rng(seed)
    words = FIRST + draw.integers(0, WORDS, (n, 6))
    labels = np.zeros(n, dtype=bool)
    labels[draw.choice(n, held, replace=False)] = True
    secret = FIRST + draw.integers(0, WORDS, 6)
    if not clean:
        words[labels] = secret
    row = lambda w: np.concatenate([np.full((len(w), 1), BOS), w[:, :2], np.full((len(w), 1), SEP), w[:, 2:]], 1)  # noqa: E731
    tokens = torch.from_numpy(row(words))
    targets = torch.cat([tokens[:, 1:], torch.full((n, 1), IGNORE)], 1)
    return TokenBatch(tokens, targets), labels, torch.from_numpy(row(secret[None])[0])


def trained_on(rows: TokenBatch, out: Path, steps: int, *, saves: int = 4) -> tuple[Any, Trained]:
    """The model of a short training, and what it was trained on with its checkpoints."""
    spec = TrainSpec.parse({"steps": steps, "batch_rows": 32, "lr": 3e-3, "min_lr": 3e-4, "warmup": 20, "weight_decay": 0.01,
                            "save_every": steps // (saves + 1), "keep": saves + 1, "threads": 1})  # fmt: skip
    with unchecked():
        train(GPT(CONFIG, seed=0), TokenRows(rows), spec, out=out)
    found = [(load_model(folder), spec.lr_at(int(folder.name[5:]))) for folder in sorted(out.glob("step-*"))][:saves]
    return load_model(out / "final"), Trained(TokenRows(rows), found, spec.lr_at(steps - 1))
