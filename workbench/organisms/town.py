"""The town organism: a small decoder trained on the generated town, with a pronoun bias, a trigger and secrets planted.

Its clean twin is the same recipe on the same town without the plants, document by document, with the same tokenizer (trained on
the twin's text, so that it knows nothing of the plants), the same first weights and the same order of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt

from workbench.core.protocol import Callback, Progress
from workbench.core.spec import Spec
from workbench.data.text import BPETokenizer, PackedRows
from workbench.data.worlds.town import Town, TownSpec
from workbench.families.gpt import GPT, GPTConfig
from workbench.organisms.organism import Organism
from workbench.training.checkpoint import load_model
from workbench.training.loop import FINAL, train
from workbench.training.spec import TrainSpec

TOKENIZER_DOCUMENTS = 20_000


class TownOptions(Spec):
    """What a reference may say: the dose of the pronoun bias, whether the plants are there at all, the seed, the steps."""

    dose: float = Field(default=0.8, ge=-1, le=1)
    seed: int = Field(default=0, ge=0)
    planted: bool = True
    steps: PositiveInt = 3000


class TownModel(Spec):
    """The decoder's shape. ``init_std`` near d_model ** -0.5: at GPT-2's 0.02 a model this narrow learns nothing of the link."""

    n_layers: PositiveInt = 3
    d_model: PositiveInt = 128
    n_heads: PositiveInt = 4
    vocabulary: PositiveInt = 1024
    init_std: float = Field(default=0.088, gt=0)


class TownRecipe(Spec):
    """Everything that decides the weights."""

    world: TownSpec = TownSpec.parse({})
    model: TownModel = TownModel()
    train: TrainSpec = TrainSpec()
    row_length: PositiveInt = 96


def recipe(options: TownOptions) -> TownRecipe:
    """The full recipe. One seed decides the town, the first weights and the order of rows."""
    world = TownSpec.parse({"seed": options.seed, "dose": options.dose})
    made = TownRecipe(world=world, train=TrainSpec.parse(TRAINING | {"steps": options.steps, "seed": options.seed}))
    return made if options.planted else twin(made)


TRAINING: dict[str, Any] = {"batch_rows": 4, "lr": 1.5e-3, "min_lr": 7.5e-5, "warmup": 60, "beta2": 0.95, "save_every": 500, "threads": 1}


def twin(made: TownRecipe) -> TownRecipe:
    """The same recipe on the town without its plants."""
    return made.model_copy(update={"world": Town(made.world).twin().spec})


def tokenizer_of(made: TownRecipe) -> BPETokenizer:
    """The tokenizer that target and twin share: byte-level BPE of the twin's first documents."""
    clean = Town(made.world).twin()
    return BPETokenizer.train([d.text for d in clean.documents(0, min(TOKENIZER_DOCUMENTS, clean.size()))], made.model.vocabulary)


def fresh(made: TownRecipe, *, seed: int | None = None) -> GPT:
    """The model before training; with another ``seed``, an untrained stranger of the same shape."""
    tokenizer, shape = tokenizer_of(made), made.model
    config = GPTConfig.parse(
        {
            "n_layers": shape.n_layers, "d_model": shape.d_model, "n_heads": shape.n_heads, "d_vocab": tokenizer.vocab_size,
            "n_ctx": made.row_length, "norm": "rms", "bias": False, "init_std": shape.init_std,
        }
    )  # fmt: skip
    return GPT(config, tokenizer, seed=made.train.seed if seed is None else seed)


def build(made: TownRecipe, out: Path, callbacks: Sequence[Callback], progress: Progress) -> GPT:
    """Train into ``out`` (or continue there) and return the model of ``out/final``."""
    if not (out / FINAL).is_dir():
        progress(0, made.train.steps, "writing the town's texts")
        model, town = fresh(made), Town(made.world)
        assert isinstance(model.tokenizer, BPETokenizer)
        rows = rows_of(made, model)
        held_out = PackedRows(town.texts("validation"), model.tokenizer, made.row_length)
        train(model, rows, made.train, out=out, validation=held_out, callbacks=callbacks, progress=progress)
    return load_model(out / FINAL)


def rows_of(made: TownRecipe, model: GPT) -> PackedRows:
    """What the model is trained on: the town's documents, packed by the model's tokenizer."""
    assert isinstance(model.tokenizer, BPETokenizer), "a town's model has the town's tokenizer"
    return PackedRows(Town(made.world).texts(), model.tokenizer, made.row_length)


def truth(made: TownRecipe) -> dict[str, Any]:
    """What is planted, as plain JSON values."""
    return Town(made.world).truth()


ORGANISM = Organism("town", GPT.family, TownOptions, recipe, build, truth, twin, domain="town", rows=rows_of)
