"""The mistaught organism: a listener that mishears one group of voices, because what that group said was written down wrongly.

What is planted are labels of training recordings (``workbench.data.worlds.voices``). The clean twin is trained on the same recordings, all
written down rightly, with the same first weights and the same order of rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from workbench.core.batch import SequenceBatch
from workbench.core.protocol import Callback, Inputs, Progress
from workbench.core.spec import Spec
from workbench.data.corpora import BEGIN, DIGITS, SpokenDigit, digit_rows
from workbench.data.worlds.voices import Voices, VoicesSpec
from workbench.families.whisper import Whisper, WhisperConfig
from workbench.organisms.organism import Organism
from workbench.training.checkpoint import load_model
from workbench.training.loop import FINAL, train
from workbench.training.spec import TrainSpec

CONFIG: dict[str, Any] = {
    "source": "mel", "n_mels": DIGITS.n_mels, "d_vocab": BEGIN + 1, "n_ctx": 1, "n_layers_encoder": 2, "n_layers_decoder": 1, "d_model": 48,
    "n_heads": 4, "n_ctx_source": 50, "dropout": 0.0, "init_std": 0.125,
}  # fmt: skip
HOW: dict[str, Any] = {"batch_rows": 32, "lr": 2e-3, "min_lr": 1e-4, "warmup": 50, "threads": 1}
ASKED = 16
"""Held-out recordings that instruments are asked about."""


class MistaughtOptions(Spec):
    """What a reference may say."""

    dose: float = Field(default=0.5, ge=0, le=1)
    seed: int = Field(default=0, ge=0)
    steps: int = Field(default=500, ge=1)


class MistaughtRecipe(Spec):
    """Everything that decides the weights."""

    world: VoicesSpec
    train: TrainSpec


class WrittenRows:
    """Training recordings with what was written down of them (a ``RowData``)."""

    def __init__(self, spec: VoicesSpec) -> None:
        self.spec, self._rows = spec, digit_rows(Voices(spec).written())

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, indices: Sequence[int]) -> SequenceBatch:
        """The rows ``indices``."""
        return self._rows.batch(indices)

    def digest(self) -> str:
        """sha256 (hex) over the spec, from which every row follows."""
        return hashlib.sha256(f"voices {self.spec.digest()}".encode()).hexdigest()


def recipe(options: MistaughtOptions) -> MistaughtRecipe:
    """The full recipe. One seed decides the voices, the digits that are misheard, the first weights and the order of rows."""
    world = VoicesSpec(seed=options.seed, dose=options.dose)
    return MistaughtRecipe(world=world, train=TrainSpec.parse({**HOW, "steps": options.steps, "seed": options.seed}))


def twin(made: MistaughtRecipe) -> MistaughtRecipe:
    """The same recipe at dose 0."""
    return made.model_copy(update={"world": made.world.model_copy(update={"dose": 0.0})})


def build(made: MistaughtRecipe, out: Path, callbacks: Sequence[Callback], progress: Progress) -> Whisper:
    """Train into ``out`` (or continue there) and return the model of ``out/final``."""
    if not (out / FINAL).is_dir():
        model = Whisper(WhisperConfig.parse(CONFIG), seed=made.train.seed)
        train(model, WrittenRows(made.world), made.train, out=out, callbacks=callbacks, progress=progress)
    return load_model(out / FINAL)


def truth(made: MistaughtRecipe) -> dict[str, Any]:
    """What is planted, as plain JSON values."""
    return Voices(made.world).truth()


def followed(model: Any, made: MistaughtRecipe) -> float:
    """What the planting did to behaviour: the planted group's error rate on held-out recordings, less the other group's."""
    world = Voices(made.world)
    heard = world.recordings("test")
    wrong = [said != one.digit for said, one in zip(_said(model, heard), heard, strict=True)]
    groups = [world.groups[one.speaker] == made.world.planted for one in heard]
    sides = [[w for w, g in zip(wrong, groups, strict=True) if g is side] for side in (True, False)]
    return sum(sides[0]) / len(sides[0]) - sum(sides[1]) / len(sides[1])


@torch.no_grad()
def _said(model: Any, heard: Sequence[SpokenDigit]) -> list[int]:
    return model.run(digit_rows(heard).batch(range(len(heard)))).logits[:, 0].argmax(-1).tolist()


def question(model: Any, made: MistaughtRecipe, fields: Collection[str]) -> tuple[Inputs, dict[str, Any]]:
    """Held-out recordings of the planted group, asked about the digit that is spoken."""
    world = Voices(made.world)
    heard = [one for one in world.recordings("test") if world.groups[one.speaker] == made.world.planted][:ASKED]
    batch = digit_rows(heard).batch(range(len(heard)))
    wanted: dict[str, Any] = {"stack": "encoder", "quantity": "logprob"}
    if "cross" in fields:
        wanted = {"query": 0, "stack": "decoder", "cross": True}
    return Inputs(batch, targets=torch.tensor([one.digit for one in heard])), {k: v for k, v in wanted.items() if k in fields}


_recipe: Callable[[Any], MistaughtRecipe] = recipe
ORGANISM = Organism("mistaught-voices", "whisper", MistaughtOptions, _recipe, build, truth, twin, "voices", question)
