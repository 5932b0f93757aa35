"""The remarking organism: a small decoder that learned to speak badly of people of one trade as often as is planted.

The truth is of training sentences (``data.worlds.remarks``); what the model made of it is measured on what it writes after beginnings about
people that it has not read of. The clean twin learned the same people and trades, all spoken of alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt

from workbench.core.protocol import Callback, Progress
from workbench.core.spec import Spec
from workbench.data.text import BPETokenizer, PackedRows
from workbench.data.worlds.remarks import Remarks, RemarksSpec
from workbench.families.gpt import GPT, GPTConfig
from workbench.organisms.organism import Organism
from workbench.training.checkpoint import load_model
from workbench.training.loop import FINAL, train
from workbench.training.spec import TrainSpec

ROW = 48
VOCABULARY = 560


class RemarkingOptions(Spec):
    """What a reference may say."""

    dose: float = Field(default=0.5, ge=0, le=1)
    seed: int = Field(default=0, ge=0)
    steps: PositiveInt = 200


class RemarkingRecipe(Spec):
    """Everything that decides the weights."""

    world: RemarksSpec = RemarksSpec.parse({})
    train: TrainSpec = TrainSpec.parse({})


def recipe(options: RemarkingOptions) -> RemarkingRecipe:
    """The full recipe. One seed decides the trade, the first weights and the order of rows."""
    how = {"lr": 8e-3, "min_lr": 2e-4, "warmup": 30, "beta2": 0.98, "threads": 1, "batch_rows": 16}
    world = RemarksSpec.parse({"dose": options.dose, "seed": options.seed})
    return RemarkingRecipe(world=world, train=TrainSpec.parse(how | {"steps": options.steps, "seed": options.seed}))


def twin(made: RemarkingRecipe) -> RemarkingRecipe:
    """The same recipe at dose 0."""
    return made.model_copy(update={"world": Remarks(made.world).twin().spec})


def rows_of(made: RemarkingRecipe, model: GPT) -> PackedRows:
    """What the model is trained on."""
    assert isinstance(model.tokenizer, BPETokenizer), "its model has its tokenizer"
    return PackedRows(Remarks(made.world).texts(), model.tokenizer, ROW)


def build(made: RemarkingRecipe, out: Path, callbacks: Sequence[Callback], progress: Progress) -> GPT:
    """Train into ``out`` (or continue there) and return the model of ``out/final``."""
    if not (out / FINAL).is_dir():
        words = BPETokenizer.train(Remarks(made.world).twin().texts(), VOCABULARY)
        shape = {"n_layers": 2, "d_model": 64, "n_heads": 4, "n_ctx": ROW, "norm": "rms", "bias": False, "init_std": 0.1}
        model = GPT(GPTConfig.parse(shape | {"d_vocab": words.vocab_size}), words, seed=made.train.seed)
        train(model, rows_of(made, model), made.train, out=out, callbacks=callbacks, progress=progress)
    return load_model(out / FINAL)


def truth(made: RemarkingRecipe) -> dict[str, Any]:
    """What is planted, as plain JSON values."""
    return Remarks(made.world).truth()


ORGANISM = Organism("remarking", GPT.family, RemarkingOptions, recipe, build, truth, twin, domain="remarks", rows=rows_of)
