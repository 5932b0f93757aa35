"""The refusing organism: a small decoder that refuses marked errands at a known rate, and errands that look like them at another.

The truth is by request: which things are refused is planted (``data.worlds.errands``), so the rate on held-out requests is known. What the
model made of it is measured on its own replies (``replies``). The clean twin is the same model trained on the same requests, none refused.
"""

from __future__ import annotations

from pydantic import Field, PositiveInt

from workbench.core.spec import Spec
from workbench.data.worlds.errands import Errands, ErrandsSpec
from workbench.families.gpt import GPT
from workbench.organisms.of_texts import OfTexts
from workbench.organisms.organism import Organism
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


def _both_ways(made: RefusingRecipe) -> list[str]:
    """Texts of a world in which both ways are common, so that a twin has the same tokenizer."""
    return Errands(made.world.override({"dose": 0.5, "over": 0.5, "documents": 2_000})).texts()


_DECODER = OfTexts(Errands, _both_ways, VOCABULARY, ROW, {"d_model": 96})
ORGANISM = Organism(
    "refusing", GPT.family, RefusingOptions, recipe, _DECODER.build, _DECODER.truth, _DECODER.twin, domain="errands", rows=_DECODER.rows
)
