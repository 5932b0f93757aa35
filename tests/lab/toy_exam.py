"""An exam that trains nothing: its models are the families' small ones, and a tool is as right as the dose says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest

from workbench.calibration.exam import Exam, Grid, Reading
from workbench.calibration.exams.places import EXAM as PLACES
from workbench.core.finding import Card
from workbench.families import FAMILIES
from workbench.lab import calibrate as lab

GRID = Grid.parse({"doses": (0.25, 0.5, 1.0), "seeds": (0, 1), "sets": 2, "clean_seeds": (100, 101), "clean_sets": 2})
QUICK = Grid.parse({"doses": (0.5, 1.0), "seeds": (0,), "sets": 2, "clean_seeds": (100, 101), "clean_sets": 2})
TOOLS = ("occlusion", "saliency")


@dataclass
class Toy:
    """What was asked, and what happens at the next question. ``best`` is the statistic of a wholly planted thing."""

    best: float = 1.0
    asked: list[tuple[str, str, float]] = field(default_factory=list)
    before: Callable[[int], None] = lambda number: None

    def read(self, tool: str, model: Any, made: Any, sets: int, items: int) -> list[Reading]:
        self.before(len(self.asked))
        self.asked.append((model.family, tool, made.world.dose))
        return [Reading(self.best * (0.5 + made.world.dose / 2) - 0.01 * number, made.world.dose > 0) for number in range(sets)]

    def behaviour(self, model: Any, made: Any) -> float:
        return made.world.dose


@cache
def _small(family: str) -> Any:
    return FAMILIES.load(family).tiny(seed=0)[0].eval()


def loaded(ref: str, store: Any) -> Any:
    """The small model of the family that an organism of marks is of."""
    return _small(ref.partition("@")[0].removeprefix("organism:shortcut-"))


def put(monkeypatch: pytest.MonkeyPatch) -> Toy:
    """From now on the exam of places is a toy of two families and two tools, in this process and in those forked from it. None of its cards
    is shipped."""
    made = Toy()
    exam = Exam(**{
        **vars(PLACES), "grid": GRID, "quick": QUICK, "families": ("bert", "gpt"), "tools": lambda family: TOOLS,
        "read": made.read, "behaviour": made.behaviour, "exempt": {},
    })  # fmt: skip
    monkeypatch.setattr(lab.EXAMS, "load", lambda name: exam)
    monkeypatch.setattr(lab, "load", loaded)
    monkeypatch.setattr(lab, "shipped", tuple)
    return made


class Stopped:
    """Ctrl-C at the n-th question, once."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self, number: int) -> None:
        if number == self.at:
            self.at = -1
            raise KeyboardInterrupt


def untimed(cards: tuple[Card, ...]) -> list[Card]:
    """The cards without what they say of time."""
    return [card.model_copy(update={"seconds_an_item": None}) for card in cards]
