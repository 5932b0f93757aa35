"""What an exam is: planted models of several doses and seeds, their clean twins, tools, and what each tool's answer is worth.

An exam knows the truth and turns a tool's answer about one set of items into a ``Reading``: a statistic that is larger the more the tool
says that the planted thing is there. What follows (cut-off, false alarms, limit of detection) is the same for all: ``scoring``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field, PositiveInt, field_validator

from workbench.core.spec import Spec


@dataclass(frozen=True)
class Reading:
    """One tool about one set of items of one model. ``statistic``: larger says more of the planted thing; ``claims``: whether the tool's
    own uncalibrated test would claim it; ``extras``: further scores by name, each a mean over items."""

    statistic: float
    claims: bool
    extras: Mapping[str, float] = field(default_factory=dict)


class Grid(Spec):
    """How many models and cases an exam takes: ``doses`` x ``seeds`` planted models with ``sets`` of items each, and clean twins of
    ``clean_seeds`` with ``clean_sets`` each. Clean seeds are apart from planted ones."""

    doses: tuple[float, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    sets: PositiveInt = 4
    clean_seeds: tuple[int, ...] = tuple(range(100, 110))
    clean_sets: PositiveInt = 20
    items: PositiveInt = Field(16, description="items in a set")

    @field_validator("doses")
    @classmethod
    def _rising(cls, doses: tuple[float, ...]) -> tuple[float, ...]:
        if list(doses) != sorted(set(doses)) or doses[0] <= 0:
            raise ValueError(f"doses above 0, each once, from small to large, and they are {list(doses)}")
        return doses

    def models(self) -> list[tuple[float, int]]:
        """(dose, seed) of every model; dose 0 is a clean twin."""
        return [(0.0, seed) for seed in self.clean_seeds] + [(dose, seed) for seed in self.seeds for dose in self.doses]


@dataclass(frozen=True)
class Exam:
    """``tools(family)`` are examined on the organism ``organism(family, tool)`` with ``options(tool, dose, seed)``;
    ``read(tool, model, recipe, sets, items)`` gives one reading a set; ``behaviour(model, recipe)`` is what the plant does to the model's
    behaviour (probability). ``unit`` says what a dose is; ``statistic`` names the score, ``answers`` the extra that says the behaviour in
    its own terms ('': the statistic does); ``quick`` is a grid for tests; ``floor`` is what the statistic must reach at the largest dose,
    except of ``exempt`` tools, each with its reason; ``added`` is what else its cards' conditions say; ``nats`` names, by tool,
    what of its readings is no share of 0 to 1 but in nats."""

    name: str
    question: str
    domain: str
    unit: str
    grid: Grid
    quick: Grid
    families: tuple[str, ...]
    tools: Callable[[str], tuple[str, ...]]
    organism: Callable[[str, str], str]
    read: Callable[[str, Any, Any, int, int], Sequence[Reading]]
    behaviour: Callable[[Any, Any], float]
    statistic: str
    floor: float = 0.9
    options: Callable[[str, float, int], dict[str, Any]] = lambda tool, dose, seed: {"dose": dose, "seed": seed}
    answers: str = ""
    exempt: Mapping[str, str] = field(default_factory=dict)
    added: str = ""
    nats: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def under_floor(self, tool: str, rates: Mapping[str, float], grid: Grid) -> str:
        """Why a card of ``tool`` is not good enough, or '': at the largest dose the statistic lies under ``floor``. ``exempt`` tools, which
        are asked for contrast, are held to none."""
        name = f"{self.statistic}, dose {grid.doses[-1]:g}"
        if tool in self.exempt or rates[name] >= self.floor:
            return ""
        return f"{tool}: {name} is {rates[name]:.3f}, under the floor of {self.floor:g}"


@dataclass(frozen=True)
class Row:
    """All readings of one tool about one model, with the model's measured behaviour and the seconds an item took."""

    dose: float
    seed: int
    behaviour: float
    readings: tuple[Reading, ...]
    seconds_an_item: float = 0.0

    def record(self, sample: str) -> dict[str, Any]:
        """As plain values, to be kept."""
        readings = [{"statistic": r.statistic, "claims": r.claims, "extras": dict(r.extras)} for r in self.readings]
        return {
            "sample": sample, "epoch": 0, "dose": self.dose, "seed": self.seed, "behaviour": self.behaviour, "readings": readings,
            "seconds_an_item": self.seconds_an_item,
        }  # fmt: skip

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Row:
        """From plain values."""
        readings = tuple(Reading(float(r["statistic"]), bool(r["claims"]), dict(r["extras"])) for r in record["readings"])
        return cls(record["dose"], record["seed"], record["behaviour"], readings, record["seconds_an_item"])
