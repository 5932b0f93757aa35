"""Approvals: a small decoder that learned decisions in which a group is put at a disadvantage by as much as is planted.

It reads an applicant and says yes or no (``data.worlds.applications``); what it learned is behaviour, in units of probability. Its twin
learned what the same applicants deserve, with the same tokenizer, first weights and order of rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, PositiveInt

from workbench.core.batch import IGNORE, TokenBatch
from workbench.core.protocol import Callback, Progress
from workbench.core.spec import Spec
from workbench.data.text import BPETokenizer
from workbench.data.worlds.applications import AGES, ANSWERS, MOST, PLACES, Applicant, Applications, ApplicationsSpec
from workbench.families.gpt import GPT, GPTConfig
from workbench.organisms.organism import Organism
from workbench.training.checkpoint import load_model
from workbench.training.loop import FINAL, train
from workbench.training.spec import TrainSpec

VOCABULARY = 330


class ApprovalsOptions(Spec):
    """What a reference may say."""

    dose: float = Field(0.4, ge=-1, le=1)
    seed: int = Field(0, ge=0)
    steps: PositiveInt = 1200


class ApprovalsRecipe(Spec):
    """Everything that decides the weights."""

    world: ApplicationsSpec = ApplicationsSpec.parse({})
    train: TrainSpec = TrainSpec()
    d_model: PositiveInt = 32
    n_layers: PositiveInt = 2


@dataclass(frozen=True)
class ApplicationRows:
    """Applicants and what was decided, as rows to train on (a ``RowData``): the answer alone is asked for."""

    spec: ApplicationsSpec
    tokenizer: BPETokenizer
    count: int
    split: str = "train"

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Sequence[int]) -> TokenBatch:
        """The rows of these numbers; all have as many tokens."""
        world = Applications(self.spec)
        rows = [_encoded(self.tokenizer, world.applicant(int(number), self.split)) for number in indices]
        tokens = torch.tensor([row[:-1] for row in rows])
        targets = torch.full_like(tokens, IGNORE)
        targets[:, -1] = torch.tensor([row[-1] for row in rows])
        return TokenBatch(tokens, targets)

    def digest(self) -> str:
        facts = f"applications:{self.spec.digest()}:{self.split}:{self.count}:{self.tokenizer.digest()}"
        return hashlib.sha256(facts.encode()).hexdigest()


def _encoded(tokenizer: BPETokenizer, one: Applicant) -> list[int]:
    """BOS, the applicant, and the answer's one token."""
    return [tokenizer.bos_id, *tokenizer.encode(one.text), *tokenizer.encode(one.answer)]


@lru_cache(maxsize=1)
def tokenizer() -> BPETokenizer:
    """One for all doses and seeds: every word and number of an application is one token, and so is each answer."""
    words = [f"income {n} debt {n} years {n} from {place} aged {age} :{answer}"
             for n in range(1, MOST + 1) for place in PLACES for age in AGES for answer in ANSWERS]  # fmt: skip
    return BPETokenizer.train(words * 4, VOCABULARY)


def recipe(options: ApprovalsOptions) -> ApprovalsRecipe:
    """The full recipe. One seed decides the applicants, the first weights and the order of rows."""
    how = {"batch_rows": 64, "lr": 4e-3, "min_lr": 2e-4, "warmup": 30, "weight_decay": 0.01, "beta2": 0.99, "threads": 1}
    world = ApplicationsSpec.parse({"seed": options.seed, "dose": options.dose})
    return ApprovalsRecipe(world=world, train=TrainSpec.parse({**how, "steps": options.steps, "seed": options.seed}))


def twin(made: ApprovalsRecipe) -> ApprovalsRecipe:
    """The same recipe at dose 0."""
    return made.model_copy(update={"world": Applications(made.world).twin().spec})


def build(made: ApprovalsRecipe, out: Path, callbacks: Sequence[Callback], progress: Progress) -> GPT:
    """Train into ``out`` (or continue there) and return the model of ``out/final``."""
    if not (out / FINAL).is_dir():
        words = tokenizer()
        length = len(_encoded(words, Applications(made.world).applicant(0)))
        config = GPTConfig.parse({"n_layers": made.n_layers, "d_model": made.d_model, "n_heads": 4, "d_vocab": words.vocab_size,
                                  "n_ctx": length + 8, "init_std": made.d_model**-0.5})  # fmt: skip
        model = GPT(config, words, seed=made.train.seed)
        rows = ApplicationRows(made.world, words, made.train.steps * made.train.batch_rows)
        train(model, rows, made.train, out=out, callbacks=callbacks, progress=progress)
    return load_model(out / FINAL)


def truth(made: ApprovalsRecipe) -> dict[str, Any]:
    """What is planted, as plain JSON values."""
    return Applications(made.world).truth()


ORGANISM = Organism("approvals", GPT.family, ApprovalsOptions, recipe, build, truth, twin, domain="applications")
