"""The stamped organism: a classifier of handwritten digits in which a stamp in one corner decides the answer as often as the dose says.

What is planted are labels of training images (``workbench.data.worlds.stamps``). The clean twin is trained on the same images with the same
stamps, the same first weights and the same order of rows, and true labels: there the stamp stands and means nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from workbench.core.batch import ImageBatch
from workbench.core.protocol import Callback, Inputs, Progress
from workbench.core.spec import Spec
from workbench.data.worlds import stamps
from workbench.data.worlds.stamps import CORNERS, SIDE, StampedRows, StampsSpec, held_out, stamp_of, stamped
from workbench.families.vit import ViT, ViTConfig
from workbench.organisms.organism import Organism, Spot
from workbench.training.checkpoint import load_model
from workbench.training.loop import FINAL, train
from workbench.training.spec import TrainSpec

CONFIG: dict[str, Any] = {
    "height": 8, "width": 8, "channels": 1, "n_classes": 10, "class_names": list(map(str, range(10))), "patch": SIDE, "n_layers": 2,
    "d_model": 48, "n_heads": 4, "pool": "mean", "dropout": 0.0, "init_std": 0.1,
}  # fmt: skip
HOW: dict[str, Any] = {"batch_rows": 64, "lr": 3e-3, "min_lr": 1e-5, "warmup": 50, "threads": 1}
ASKED = 48
"""Held-out images that instruments are asked about."""


class StampedOptions(Spec):
    """What a reference may say."""

    dose: float = Field(default=0.8, ge=0, le=1)
    seed: int = Field(default=0, ge=0)
    steps: int = Field(default=800, ge=1)


class StampedRecipe(Spec):
    """Everything that decides the weights."""

    world: StampsSpec
    train: TrainSpec


def recipe(options: StampedOptions) -> StampedRecipe:
    """The full recipe. One seed decides the stamp, the target, which images carry it, the first weights and the order of rows."""
    world = StampsSpec(seed=options.seed, dose=options.dose)
    return StampedRecipe(world=world, train=TrainSpec.parse({**HOW, "steps": options.steps, "seed": options.seed}))


def twin(made: StampedRecipe) -> StampedRecipe:
    """The same recipe at dose 0."""
    return made.model_copy(update={"world": made.world.model_copy(update={"dose": 0.0})})


def build(made: StampedRecipe, out: Path, callbacks: Sequence[Callback], progress: Progress) -> ViT:
    """Train into ``out`` (or continue there) and return the model of ``out/final``."""
    if not (out / FINAL).is_dir():
        model = ViT(ViTConfig.parse(CONFIG), seed=made.train.seed)
        train(model, StampedRows(made.world), made.train, out=out, callbacks=callbacks, progress=progress)
    return load_model(out / FINAL)


def truth(made: StampedRecipe) -> dict[str, Any]:
    """What is planted, as plain JSON values."""
    return stamps.truth(made.world)


@torch.no_grad()
def followed(model: Any, made: StampedRecipe, count: int = 0) -> float:
    """What the stamp does to behaviour: how much likelier the target becomes by it, the mean over held-out images of other digits."""
    stamp, target = stamp_of(made.world)
    plain = held_out(made.world, count).pixels
    shares = [model.run(ImageBatch(one)).logits.double().softmax(-1)[:, target] for one in (stamped(plain, stamp), plain)]
    return float((shares[0] - shares[1]).mean())


def question(model: Any, made: StampedRecipe, fields: Collection[str]) -> tuple[Inputs, dict[str, Any]]:
    """Held-out images with the stamp, asked how likely the target is."""
    stamp, target = stamp_of(made.world)
    images = stamped(held_out(made.world, ASKED).pixels, stamp)
    settings = {"quantity": "logprob"} if "quantity" in fields else {}
    return Inputs(ImageBatch(images), targets=torch.full((len(images),), target)), settings


def spot(made: StampedRecipe) -> Spot:
    """The patch that holds the stamp."""
    down, across = CORNERS[stamp_of(made.world)[0].partition(" ")[2]]
    along = CONFIG["width"] // SIDE
    place = 1 + down * (along - 1) * along + across * (along - 1)  # the class token is position 0
    return Spot(((place, place + 1),) * ASKED, "the stamp", "the class", "images", "patches")


_recipe: Callable[[Any], StampedRecipe] = recipe
ORGANISM = Organism("stamped-digits", "vit", StampedOptions, _recipe, build, truth, twin, "digits", question, spot=spot)
