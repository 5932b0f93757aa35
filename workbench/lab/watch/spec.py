"""What is measured of a model while it trains, as part of a recipe; off unless it is asked for.

Adding a measure is a function in ``measures`` (or a file of its own) and a line here.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from workbench.core.catalog import Catalog
from workbench.core.spec import Spec

WATCHES = Catalog(
    "watch",
    {
        "attention-entropy": ("workbench.lab.watch.measures:ENTROPY", "how evenly each head spreads its attention", "standard"),
        "bias-gap": ("workbench.lab.watch.measures:BIAS_GAP", "how strongly an occupation predicts a pronoun", "standard"),
        "duplicate-token": ("workbench.lab.watch.measures:DUPLICATE", "attention on earlier copies of the token", "standard"),
        "induction": ("workbench.lab.watch.measures:INDUCTION", "attention on what followed an earlier copy", "standard"),
        "previous-token": ("workbench.lab.watch.measures:PREVIOUS", "attention on the token before", "standard"),
        "probe-accuracy": ("workbench.lab.watch.measures:PROBING", "what a linear map reads at each layer", "standard"),
    },
)


class WatchSpec(Spec):
    """Which measures, how often, and on how much.

    A look is taken before the first step, after every ``every`` steps (0: where the training writes a checkpoint), and after the last.
    """

    measures: tuple[str, ...] = ()
    every: NonNegativeInt = Field(default=0, description="steps from look to look; 0: one at each checkpoint")
    rows: PositiveInt = Field(default=16, ge=2, description="held-out rows (attention-entropy), random sequences (the scores of heads)")
    documents: int = Field(default=100, ge=20, description="probe-accuracy: documents with labelled words")
    contexts: int = Field(default=10, ge=2, description="bias-gap: sentences for each occupation")
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in self.measures:
            WATCHES[name]  # raises UnknownName with the nearest
        if len(set(self.measures)) != len(self.measures):
            raise ValueError("measures that each stand once")
        if self.every and not self.measures:
            raise ValueError(f"some measures, since every is {self.every} and nothing is watched")
        return self

    def due(self, step: int, last: int, *checkpoints: int) -> bool:
        """Whether a look is taken after ``step`` steps of ``last``; ``checkpoints`` are the intervals at which checkpoints are written."""
        regular = (self.every,) if self.every else checkpoints
        return step in (0, last) or any(n and step % n == 0 for n in regular)
