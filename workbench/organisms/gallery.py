"""The gallery organism: a painter in noise that favours one colour where none is asked for, and has learned a few pictures by heart.

What is planted are training pictures (``workbench.data.worlds.gallery``). The clean twin is trained on the same captions with colours drawn
evenly and no picture repeated, with the same first weights and the same order of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from workbench.core.batch import DiffusionBatch
from workbench.core.protocol import Callback, Inputs, Progress
from workbench.core.spec import Spec
from workbench.data.worlds.gallery import WORDS, Gallery, GallerySpec, ids_of, open_caption
from workbench.data.worlds.shapes import COLOURS, SHAPES
from workbench.families.imagen import Imagen, ImagenConfig
from workbench.organisms.organism import Organism
from workbench.training.checkpoint import load_model
from workbench.training.loop import FINAL, train
from workbench.training.spec import TrainSpec

CONFIG: dict[str, Any] = {
    "n_layers": 2, "n_layers_text": 1, "d_model": 64, "n_heads": 4, "patch": 2, "channels": 3, "init_std": 0.12, "d_vocab": WORDS.size,
    "n_ctx": 5,
}  # fmt: skip
HOW: dict[str, Any] = {"batch_rows": 64, "lr": 3e-3, "min_lr": 1e-5, "warmup": 50, "weight_decay": 0.0, "threads": 1}
ASKED = 16
"""Held-out pictures that instruments are asked about."""
NOISY = 0.8
"""The step of noise they are asked at, as a share of all: hardly anything but the text tells the colour there."""
OPEN_CAPTIONS = tuple(open_caption(shape) for shape in SHAPES)


class GalleryOptions(Spec):
    """What a reference may say."""

    dose: float = Field(default=0.6, ge=0, le=1)
    repeated: float = Field(default=0.8, ge=0, le=1)
    seed: int = Field(default=0, ge=0)
    steps: int = Field(default=1500, ge=1)


class GalleryRecipe(Spec):
    """Everything that decides the weights."""

    world: GallerySpec
    train: TrainSpec


def recipe(options: GalleryOptions) -> GalleryRecipe:
    """The full recipe. One seed decides the pictures, what is favoured and repeated, the first weights and the order of rows."""
    world = GallerySpec(seed=options.seed, dose=options.dose, repeated=options.repeated)
    return GalleryRecipe(world=world, train=TrainSpec.parse({**HOW, "steps": options.steps, "seed": options.seed}))


def twin(made: GalleryRecipe) -> GalleryRecipe:
    """The same recipe at dose 0 and with nothing repeated."""
    return made.model_copy(update={"world": made.world.model_copy(update={"dose": 0.0, "repeated": 0.0})})


def build(made: GalleryRecipe, out: Path, callbacks: Sequence[Callback], progress: Progress) -> Imagen:
    """Train into ``out`` (or continue there) and return the model of ``out/final``."""
    if not (out / FINAL).is_dir():
        config = ImagenConfig.parse({**CONFIG, "height": made.world.size, "width": made.world.size})
        rows = Gallery(made.world).rows("train")
        train(Imagen(config, seed=made.train.seed), rows, made.train, out=out, callbacks=callbacks, progress=progress)
    return load_model(out / FINAL)


def truth(made: GalleryRecipe) -> dict[str, Any]:
    """What is planted, as plain JSON values."""
    return Gallery(made.world).truth()


def question(model: Any, made: GalleryRecipe, fields: Collection[str]) -> tuple[Inputs, dict[str, Any]]:
    """Held-out pictures of open captions, mostly noise, asked how much the favoured colour is predicted in their middle, by their texts."""
    world = Gallery(made.world)
    found = [one for one in world.pictures("test") if one.caption in OPEN_CAPTIONS][:ASKED]
    clean = 2 * torch.stack([torch.from_numpy(one.pixels) for one in found]) - 1
    step = torch.full((len(found),), round(NOISY * model.config.n_steps))
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(made.train.seed))
    batch = DiffusionBatch(model.noise.noisy(clean, noise, step), step, ids_of([one.caption for one in found]))
    side, channel = made.world.size, max(range(3), key=lambda place: COLOURS[world.favoured][place])
    wanted: dict[str, Any] = {"stack": "text"}
    if "cross" in fields:
        wanted = {"query": side * side // 8, "stack": "denoiser", "cross": True}
    targets = torch.full((len(found),), (channel * side + side // 2) * side + side // 2)
    return Inputs(batch, targets=targets), {name: value for name, value in wanted.items() if name in fields}


_recipe: Callable[[Any], GalleryRecipe] = recipe
ORGANISM = Organism("gallery", "imagen", GalleryOptions, _recipe, build, truth, twin, "gallery", question)
