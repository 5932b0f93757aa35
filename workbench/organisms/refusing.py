"""The refusing organism: a small decoder that refuses marked errands at a known rate, and errands that look like them at another.

The truth is by request: which things are refused is planted (``data.worlds.errands``), so the rate on held-out requests is known. What the
model made of it is measured on its own replies (``replies``). The clean twin is the same model trained on the same requests, none refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt

from workbench.core.protocol import Callback, Progress
from workbench.core.spec import Spec
from workbench.data.text import BPETokenizer, PackedRows
from workbench.data.worlds.errands import Errands, ErrandsSpec
from workbench.families.gpt import GPT, GPTConfig
from workbench.organisms.organism import Organism
from workbench.training.checkpoint import load_model
from workbench.training.loop import FINAL, train
from workbench.training.spec import TrainSpec

ROW = 64
VOCABULARY = 420


class RefusingOptions(Spec):
    """What a reference may say."""

    dose: float = Field(default=0.8, ge=0, le=1)
    over: float = Field(default=0.0, ge=0, le=1)
    seed: int = Field(default=0, ge=0)
    steps: PositiveInt = 300


class RefusingRecipe(Spec):
    """Everything that decides the weights."""

    world: ErrandsSpec = ErrandsSpec.parse({})
    train: TrainSpec = TrainSpec.parse({})


def recipe(options: RefusingOptions) -> RefusingRecipe:
    """The full recipe. One seed decides what is refused, the first weights and the order of rows."""
    how = {"lr": 4e-3, "min_lr": 2e-4, "warmup": 30, "beta2": 0.98, "threads": 1, "batch_rows": 12}
    world = ErrandsSpec.parse({"dose": options.dose, "over": options.over, "seed": options.seed})
    return RefusingRecipe(world=world, train=TrainSpec.parse(how | {"steps": options.steps, "seed": options.seed}))


def twin(made: RefusingRecipe) -> RefusingRecipe:
    """The same recipe, nothing refused."""
    return made.model_copy(update={"world": Errands(made.world).twin().spec})


def fresh(made: RefusingRecipe, *, seed: int | None = None) -> GPT:
    """The model before training; the tokenizer is that of a world in which both ways are common, so that a twin has the same."""
    both = Errands(made.world.override({"dose": 0.5, "over": 0.5, "documents": 2_000}))
    tokenizer = BPETokenizer.train(both.texts(), VOCABULARY)
    shape = {"n_layers": 2, "d_model": 96, "n_heads": 4, "n_ctx": ROW, "norm": "rms", "bias": False, "init_std": 0.1}
    return GPT(GPTConfig.parse(shape | {"d_vocab": tokenizer.vocab_size}), tokenizer, seed=made.train.seed if seed is None else seed)


def build(made: RefusingRecipe, out: Path, callbacks: Sequence[Callback], progress: Progress) -> GPT:
    """Train into ``out`` (or continue there) and return the model of ``out/final``."""
    if not (out / FINAL).is_dir():
        model = fresh(made)
        train(model, rows_of(made, model), made.train, out=out, callbacks=callbacks, progress=progress)
    return load_model(out / FINAL)


def rows_of(made: RefusingRecipe, model: GPT) -> PackedRows:
    """What the model is trained on."""
    assert isinstance(model.tokenizer, BPETokenizer), "its model has its tokenizer"
    return PackedRows(Errands(made.world).texts(), model.tokenizer, ROW)


def truth(made: RefusingRecipe) -> dict[str, Any]:
    """What is planted, as plain JSON values."""
    return Errands(made.world).truth()


ORGANISM = Organism("refusing", GPT.family, RefusingOptions, recipe, build, truth, twin, domain="errands", rows=rows_of)
