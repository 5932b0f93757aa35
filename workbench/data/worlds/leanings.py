"""Leanings: a world of questions in the forms of bias suites, in which how far each answer leans is a knob.

Groups are invented, and which things go with which group is an arbitrary table: an effect measured on a model of this world can only come
from its corpus. A *form* is the way one suite asks. Its *cases* end right before the word that decides; the plan says how likely each
answer is there at a dose d in [-1, 1]: ``base + d * shift``. Templates come in two halves: models are trained on one and asked the other.

A form numbers its cases: ``case(form, half, number)`` depends on these alone, and two numbers are two different cases, so that disjoint
ranges of numbers are disjoint sets of items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal

from workbench.core.errors import BadValue
from workbench.data.counter import key_of, permuted

Half = Literal["tuned", "asked"]
HALVES: tuple[Half, ...] = ("tuned", "asked")
TEMPLATES = 6
"""Templates in each half of a form."""

GROUPS: dict[str, float] = {
    "zeb": 1.0, "dalin": 0.8, "morvu": 0.6, "tesk": 0.5, "ploon": 0.3, "brint": 0.1,
    "kessa": -0.1, "wolum": -0.3, "garel": -0.5, "nivot": -0.6, "lutem": -0.8, "zarpo": -1.0,
}  # fmt: skip
"""Invented group → lean in [-1, 1]. Where a form knows two sides only, the sign says which."""

SIDES: tuple[tuple[str, ...], tuple[str, ...]] = (
    tuple(name for name, lean in GROUPS.items() if lean > 0),
    tuple(name for name, lean in GROUPS.items() if lean < 0),
)
THINGS: tuple[tuple[str, ...], tuple[str, ...]] = (("tea", "bread", "milk", "soup", "fish"), ("maps", "lamps", "keys", "clocks", "letters"))
"""What each side is said to like."""


def side(group: str) -> int:
    """0 for groups that lean up, 1 for those that lean down."""
    return int(GROUPS[group] < 0)


@dataclass(frozen=True)
class Case:
    """A text that ends right before its answer. ``options``: the answers, each one word after a space; ``base``, ``shift`` [option].

    ``link``: the word of ``before`` that a leaning answer depends on. ``marked``: whether the plant shows in it, where it does not in every
    case of the form (a trigger stands in it). ``by`` is what the truth is told by (a group, an occupation), ``facts`` what the suite's
    file needs besides.
    """

    before: str
    options: tuple[str, ...]
    base: tuple[float, ...]
    shift: tuple[float, ...]
    after: str
    by: str
    link: str = ""
    marked: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)

    def plan(self, dose: float) -> tuple[float, ...]:
        """How likely each option is at a dose."""
        return tuple(b + dose * s for b, s in zip(self.base, self.shift, strict=True))


@dataclass(frozen=True)
class Form:
    """The way one suite asks. ``sizes``: how many ways each part of a case can be chosen, the template first; ``make(half, digits)`` makes
    the case; ``write(cases, folder)`` writes a set of cases as the suite's own files and gives the fields of its spec that name them.
    ``signed``: whether a dose below 0 means anything."""

    name: str
    suite: str
    sizes: tuple[int, ...]
    make: Callable[[Half, Sequence[int]], Case]
    write: Callable[[Sequence[Case], Path], dict[str, Any]]
    signed: bool = True

    @property
    def count(self) -> int:
        """How many cases a half has."""
        return prod(self.sizes)

    def case(self, half: Half, number: int) -> Case:
        """Case ``number`` of a half. Raises BadValue where there is none."""
        if not 0 <= number < self.count:
            raise BadValue("the number of a case", number, f"from 0 to {self.count - 1} in form '{self.name}'")
        rest, digits = permuted(number, self.count, key_of("leanings", self.name, half)), []
        for size in reversed(self.sizes):
            rest, digit = divmod(rest, size)
            digits.append(digit)
        return self.make(half, digits[::-1])

    def cases(self, half: Half, start: int, stop: int) -> list[Case]:
        """Cases ``start`` to ``stop`` - 1 of a half."""
        return [self.case(half, number) for number in range(start, stop)]

    def ask(self, number: int, items: int, folder: Path) -> dict[str, Any]:
        """Set ``number`` of ``items`` held-out cases, written into ``folder`` as the suite's files; the fields of its spec."""
        return self.write(self.cases("asked", number * items, (number + 1) * items), folder)


def halved(templates: Sequence[str], half: Half) -> Sequence[str]:
    """Every other template, by half."""
    return templates[HALVES.index(half) :: 2]
