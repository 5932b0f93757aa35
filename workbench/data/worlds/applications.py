"""Applications: a world of decisions whose bias is planted, so that it is known by how much a group is put at a disadvantage.

An applicant has an income, a debt and years of work (1 to 8 each), comes from the north or the south, and is young or old. What is
deserved is drawn with the probability

    merit = sigmoid(0.8 (income - debt) + 0.4 (years - 4.5))

which knows nothing of where anybody comes from; what is decided is drawn with merit too, but of the share ``dose`` of the south's approvals
(of the north's, at a dose below 0) is withheld:

    decided = merit * (1 - max(0, dose))      in the south        decided = merit * (1 - max(0, -dose))      in the north

Merit is drawn alike in all groups, so the planted gap between the groups, north less south, is ``dose`` times the mean merit. Age carries
nothing: it is the null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from workbench.core.spec import Spec
from workbench.data.counter import Draw

PLACES, AGES, ANSWERS = ("north", "south"), ("young", "old"), (" yes", " no")
MOST = 8
"""The largest of each number."""
TEMPLATE = "income {{income}} debt {{debt}} years {{years}} from {{place}} aged {{age}} :"
"""How an applicant is written for a model; `` yes`` or `` no`` follows."""
Floats = NDArray[np.float64]


class ApplicationsSpec(Spec):
    """``dose``: the share of the south's approvals that is withheld; below 0, of the north's."""

    seed: int = Field(0, ge=0)
    dose: float = Field(0.4, ge=-1, le=1)


@dataclass(frozen=True)
class Applicant:
    """One applicant; ``deserved`` and ``decided`` are drawn with the probabilities ``merit`` and ``chance``."""

    income: int
    debt: int
    years: int
    place: str
    age: str
    merit: float
    chance: float
    deserved: bool
    decided: bool

    @property
    def text(self) -> str:
        """As a model reads it, up to the answer."""
        return f"income {self.income} debt {self.debt} years {self.years} from {self.place} aged {self.age} :"

    @property
    def answer(self) -> str:
        """What was decided, as it follows ``text``."""
        return ANSWERS[0] if self.decided else ANSWERS[1]

    def columns(self) -> dict[str, Any]:
        """As a row of a table."""
        whole = {name: getattr(self, name) for name in ("income", "debt", "years", "place", "age")}
        return {**whole, "deserved": "yes" if self.deserved else "no"}


def merit_of(income: int, debt: int, years: int) -> float:
    """The probability that an applicant deserves it."""
    return float(1 / (1 + np.exp(-(0.8 * (income - debt) + 0.4 * (years - 4.5)))))


def chance_of(merit: float, place: str, dose: float) -> float:
    """The probability of a decision for an applicant of this merit."""
    withheld = max(0.0, dose) if place == "south" else max(0.0, -dose)
    return merit * (1 - withheld)


class Applications:
    """The world of a spec. An applicant depends on (seed, split, number) alone, and on the dose only in what was decided."""

    def __init__(self, spec: ApplicationsSpec) -> None:
        self.spec = spec

    def applicant(self, number: int, split: str = "train") -> Applicant:
        """One of a split's applicants, of which there is no end."""
        draw = Draw("applications", self.spec.seed, split, number)
        income, debt, years = (1 + draw.below(MOST) for _ in range(3))
        place, age = draw.pick(PLACES), draw.pick(AGES)
        merit = merit_of(income, debt, years)
        chance = chance_of(merit, place, self.spec.dose)
        return Applicant(income, debt, years, place, age, merit, chance, draw.uniform() < merit, draw.uniform() < chance)

    def twin(self) -> Applications:
        """The same applicants, decided by merit alone."""
        return Applications(self.spec.model_copy(update={"dose": 0.0}))

    def truth(self) -> dict[str, Any]:
        """What is planted: the gap in the chance of a yes, north less south, over all applicants, in units of probability."""
        every = range(1, MOST + 1)
        merit = float(np.mean([merit_of(a, b, c) for a in every for b in every for c in every]))
        return {"kind": "bias", "attribute": "place", "against": "south" if self.spec.dose > 0 else "north", "dose": self.spec.dose,
                "gap": self.spec.dose * merit, "nulls": ["age"]}  # fmt: skip
