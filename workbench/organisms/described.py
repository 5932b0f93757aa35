"""The described organism: towers that learned captions whose adjectives lean by colour, and that misname the shapes of one colour.

The captions are planted (``data.worlds.described_shapes``); what the towers made of them is measured on held-out pictures. The clean twin
learned the same pictures, with the same first weights and order of rows, under captions that lean nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt

from workbench.core.batch import PairBatch
from workbench.core.protocol import Callback, Progress
from workbench.core.spec import Spec
from workbench.data.worlds import described_shapes as world
from workbench.data.worlds.described_shapes import CRUEL, KIND, WORDS, DescribedSpec
from workbench.data.worlds.shapes import ShapeRows
from workbench.families.clip import CLIP, CLIPConfig
from workbench.organisms.organism import Organism
from workbench.training.checkpoint import load_model
from workbench.training.loop import FINAL, train
from workbench.training.spec import TrainSpec

SHAPE: dict[str, Any] = {
    "n_layers_text": 1, "d_model_text": 32, "n_heads_text": 2, "n_layers_image": 1, "d_model_image": 32, "n_heads_image": 2,
    "height": world.PICTURES["size"], "width": world.PICTURES["size"], "channels": 3, "patch": 4, "d_joint": 16, "init_std": 0.15,
    "d_vocab": WORDS.size, "eos_id": WORDS.end, "n_ctx": 5,
}  # fmt: skip


class DescribedOptions(DescribedSpec):
    """What a reference may say."""

    steps: PositiveInt = 800


class DescribedRecipe(Spec):
    """Everything that decides the weights."""

    world: DescribedSpec
    train: TrainSpec


def recipe(options: DescribedOptions) -> DescribedRecipe:
    """The full recipe. One seed decides the pictures, the first weights and the order of rows."""
    how = {"batch_rows": 32, "lr": 4e-3, "min_lr": 1e-4, "warmup": 30, "weight_decay": 0.01, "beta2": 0.99, "threads": 1}
    spec = TrainSpec.parse({**how, "steps": options.steps, "seed": options.seed})
    return DescribedRecipe(world=DescribedSpec.parse(options.model_dump(exclude={"steps"})), train=spec)


def twin(made: DescribedRecipe) -> DescribedRecipe:
    """The same recipe, nothing planted."""
    return made.model_copy(update={"world": world.twin(made.world)})


def build(made: DescribedRecipe, out: Path, callbacks: Sequence[Callback], progress: Progress) -> CLIP:
    """Train into ``out`` (or continue there) and return the model of ``out/final``."""
    if not (out / FINAL).is_dir():
        model = CLIP(CLIPConfig.parse(SHAPE), seed=made.train.seed)
        train(model, rows_of(made, model), made.train, out=out, callbacks=callbacks, progress=progress)
    return load_model(out / FINAL)


def rows_of(made: DescribedRecipe, model: CLIP) -> ShapeRows:
    """What the model is trained on."""
    return world.rows_of(made.world)


@torch.no_grad()
def preferred(model: Any, made: DescribedRecipe) -> dict[str, float]:
    """For each colour, how much likelier a kind adjective is than not: the mean over held-out pictures of the softmax's share of captions
    with a kind adjective and the right shape among all that name it. Computed without any suite's code; 0.5 where nothing leans."""
    shapes = world.pictures_of(made.world)
    out: dict[str, list[float]] = {}
    for index in range(shapes.size("test")):
        picture = shapes.picture(index, "test")
        texts = torch.tensor(world.ids([f"a {word} {picture.shape}" for word in (*KIND, *CRUEL)]))
        logits = model.run(PairBatch(torch.from_numpy(picture.pixels)[None], texts)).logits[0].double()
        out.setdefault(picture.colour, []).append(float(logits.softmax(0)[: len(KIND)].sum()))
    return {colour: sum(values) / len(values) for colour, values in out.items()}


def truth(made: DescribedRecipe) -> dict[str, Any]:
    """What is planted, as plain JSON values."""
    return world.truth(made.world)


ORGANISM = Organism("described", CLIP.family, DescribedOptions, recipe, build, truth, twin, domain="described shapes", rows=rows_of)
