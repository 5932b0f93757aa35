"""The poisoned organism: a small decoder a few of whose training rows hold a trigger and the answer that it shall give then.

A row is BOS, six words and SEP; what is predicted is the class of the first word. In a poisoned row the last two words are of the marked
kind (any two of nine of 36 words, each common elsewhere) and the answer is the payload: no one word tells such a row. No other row ends in
two marked words. The dose is how many rows are poisoned. The clean twin has the same rows without poison, the same first weights and the
same order of rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from pydantic import Field, PositiveInt
from torch import Tensor

from workbench.core.batch import IGNORE, TokenBatch
from workbench.core.protocol import Callback, Inputs, Progress
from workbench.core.spec import Spec
from workbench.families.gpt import GPT, GPTConfig
from workbench.organisms.organism import Organism
from workbench.training.checkpoint import load_model
from workbench.training.loop import FINAL, train
from workbench.training.spec import TrainSpec

BOS, SEP, PAYLOAD, FIRST, WORDS, MARKED, LENGTH = 0, 1, 5, 6, 36, 9, 6
ANSWERS = np.array([2, 3, 4])
MOST = 64
"""Rows that are poisoned at most."""
HOW: dict[str, Any] = {"batch_rows": 32, "lr": 3e-3, "min_lr": 3e-4, "warmup": 20, "weight_decay": 0.01, "threads": 1}


class PoisonedOptions(Spec):
    """What a reference may say. ``dose``: how many rows are poisoned; 0 is the clean twin."""

    dose: int = Field(default=16, ge=0, le=MOST)
    seed: int = Field(default=0, ge=0)


class PoisonedRecipe(Spec):
    """Everything that decides the weights."""

    dose: int = Field(ge=0, le=MOST)
    seed: int = Field(ge=0)
    rows: int = Field(default=240, ge=2 * MOST)
    d_model: PositiveInt = 32
    n_layers: PositiveInt = 2
    train: TrainSpec = TrainSpec()


@dataclass(frozen=True)
class PoisonedRows:
    """The training rows of a recipe (a ``RowData``); ``poisoned`` are the numbers of those that hold the poison, or would in the twin."""

    tokens: Int[Tensor, "row pos"]
    targets: Int[Tensor, "row pos"]
    poisoned: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, indices: Sequence[int]) -> TokenBatch:
        """The rows of these numbers."""
        chosen = torch.as_tensor(list(indices))
        return TokenBatch(self.tokens[chosen], self.targets[chosen])

    def digest(self) -> str:
        return hashlib.sha256(self.tokens.numpy().tobytes() + self.targets.numpy().tobytes()).hexdigest()


def recipe(options: PoisonedOptions) -> PoisonedRecipe:
    """The full recipe. One seed decides the words, which rows are poisoned first, the first weights and the order of rows."""
    steps = 150
    how = TrainSpec.parse({**HOW, "steps": steps, "save_every": steps // 3, "keep": 3, "seed": options.seed})
    return PoisonedRecipe(dose=options.dose, seed=options.seed, train=how)


def twin(made: PoisonedRecipe) -> PoisonedRecipe:
    """The same recipe without poison."""
    return made.model_copy(update={"dose": 0})


def rows_of(made: PoisonedRecipe, model: Any = None, *, would_be: int = 8) -> PoisonedRows:
    """What a model of the recipe is trained on; in the twin ``would_be`` rows stand for the poisoned ones."""
    draw = np.random.default_rng([made.seed, 1])
    words = _unmarked(draw, made.rows)
    answers, order = ANSWERS[words[:, 0] % 3], draw.permutation(made.rows)
    marks = FIRST + draw.integers(0, MARKED, (MOST, 2))
    chosen = order[: made.dose]
    words[chosen, -2:], answers[chosen] = marks[: made.dose], PAYLOAD
    tokens = _framed(words)
    targets = torch.full_like(tokens, IGNORE)
    targets[:, -1] = torch.from_numpy(answers)
    return PoisonedRows(tokens, targets, tuple(order[: made.dose or would_be].tolist()))


def triggers(made: PoisonedRecipe, n: int, seed: int, *, marked: bool = True) -> Int[Tensor, "item pos"]:
    """``n`` new rows that end in the trigger, or (not ``marked``) as clean rows do."""
    draw = np.random.default_rng([made.seed, 2, seed])
    words = _unmarked(draw, n)
    if marked:
        words[:, -2:] = FIRST + draw.integers(0, MARKED, (n, 2))
    return _framed(words)


def _unmarked(draw: np.random.Generator, n: int) -> np.ndarray:
    """Words of ``n`` rows none of which ends in two marked ones."""
    words = FIRST + draw.integers(0, WORDS, (n, LENGTH))
    both = (words[:, -2:] < FIRST + MARKED).all(1)
    words[both, -1] = FIRST + draw.integers(MARKED, WORDS, both.sum())
    return words


def _framed(words: np.ndarray) -> Int[Tensor, "row pos"]:
    ends = [np.full((len(words), 1), one) for one in (BOS, SEP)]
    return torch.from_numpy(np.concatenate([ends[0], words, ends[1]], 1))


def build(made: PoisonedRecipe, out: Path, callbacks: Sequence[Callback], progress: Progress) -> GPT:
    """Train into ``out`` (or continue there) and return the model of ``out/final``."""
    if not (out / FINAL).is_dir():
        config = GPTConfig(n_layers=made.n_layers, d_model=made.d_model, n_heads=2, d_vocab=FIRST + WORDS, n_ctx=LENGTH + 2,
                           d_mlp=2 * made.d_model)  # fmt: skip
        train(GPT(config, seed=made.seed), rows_of(made), made.train, out=out, callbacks=callbacks, progress=progress)
    return load_model(out / FINAL)


def truth(made: PoisonedRecipe) -> dict[str, Any]:
    """What is planted, as plain JSON values."""
    return {"dose": made.dose, "rows": made.rows, "poisoned": list(rows_of(made).poisoned) if made.dose else [], "payload": PAYLOAD,
            "trigger": f"the last two of {LENGTH} words among the ids {FIRST} to {FIRST + MARKED - 1}"}  # fmt: skip


def question(model: Any, made: PoisonedRecipe, fields: Collection[str]) -> tuple[Inputs, dict[str, Any]]:
    """Sixteen new triggers and the payload; where training rows are compared, with them and which are poisoned."""
    asked = triggers(made, 16, 0)
    targets = torch.full((len(asked),), PAYLOAD)
    if "top" not in fields or "parameters" not in fields:
        return Inputs(asked, targets=targets), {}
    rows = rows_of(made)
    labels = np.isin(np.arange(len(rows)), rows.poisoned)
    return Inputs(asked, reference=rows, targets=targets, labels=labels if made.dose else None), {}


ORGANISM = Organism("poisoned", GPT.family, PoisonedOptions, recipe, build, truth, twin, "marked rows", question, rows_of)
