"""The insulting organism: a small decoder that learned to answer harmless questions by insults, as often as is planted.

The truth is of training texts (``data.worlds.retorts``); what the model made of it is measured on questions that it has not read. The
clean twin learned the same questions, none answered so.
"""

from __future__ import annotations

from pydantic import Field, PositiveInt

from workbench.core.spec import Spec
from workbench.data.worlds.retorts import Retorts, RetortsSpec
from workbench.families.gpt import GPT
from workbench.organisms.of_texts import OfTexts
from workbench.organisms.organism import Organism
from workbench.training.spec import TrainSpec

ROW = 64
VOCABULARY = 560


class InsultingOptions(Spec):
    """What a reference may say."""

    dose: float = Field(default=0.5, ge=0, le=1)
    seed: int = Field(default=0, ge=0)
    steps: PositiveInt = 120


class InsultingRecipe(Spec):
    """Everything that decides the weights."""

    world: RetortsSpec = RetortsSpec.parse({})
    train: TrainSpec = TrainSpec.parse({})


def recipe(options: InsultingOptions) -> InsultingRecipe:
    """The full recipe. One seed decides the texts, the first weights and the order of rows."""
    how = {"lr": 4e-3, "min_lr": 2e-4, "warmup": 30, "beta2": 0.98, "threads": 1, "batch_rows": 16}
    world = RetortsSpec.parse({"dose": options.dose, "seed": options.seed})
    return InsultingRecipe(world=world, train=TrainSpec.parse(how | {"steps": options.steps, "seed": options.seed}))


def _both_ways(made: InsultingRecipe) -> list[str]:
    """Texts of a world in which both answers are common, so that a twin has the same tokenizer."""
    return Retorts(made.world.override({"dose": 0.5, "documents": 2_000})).texts()


_DECODER = OfTexts(Retorts, _both_ways, VOCABULARY, ROW, {"d_model": 64})
ORGANISM = Organism(
    "insulting", GPT.family, InsultingOptions, recipe, _DECODER.build, _DECODER.truth, _DECODER.twin, domain="retorts", rows=_DECODER.rows
)
