"""The remarking organism: a small decoder that learned to speak badly of people of one trade as often as is planted.

The truth is of training sentences (``data.worlds.remarks``); what the model made of it is measured on what it writes after beginnings about
people that it has not read of. The clean twin learned the same people and trades, all spoken of alike.
"""

from __future__ import annotations

from pydantic import Field, PositiveInt

from workbench.core.spec import Spec
from workbench.data.worlds.remarks import Remarks, RemarksSpec
from workbench.families.gpt import GPT
from workbench.organisms.of_texts import OfTexts
from workbench.organisms.organism import Organism
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


_DECODER = OfTexts(Remarks, lambda made: Remarks(made.world).twin().texts(), VOCABULARY, ROW, {"d_model": 64})
ORGANISM = Organism(
    "remarking", GPT.family, RemarkingOptions, recipe, _DECODER.build, _DECODER.truth, _DECODER.twin, domain="remarks", rows=_DECODER.rows
)
