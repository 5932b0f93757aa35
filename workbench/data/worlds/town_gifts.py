"""Gifts of the town: two people, one of whom gives the other something. Who gets it is the one who was named once.

    yesterday kim and sam met near the mill. sam gave the map to kim.

The indirect object identification of Wang et al., Interpretability in the Wild, 2022 (arXiv:2211.00593), in sentences of our own. The
giver is drawn by a coin, so neither order nor names tell. A twin is the same document with the giver exchanged: it has the other answer.
A document depends on (spec, split, index) alone; the two who meet decide which split it is in, so held-out pairs never met in training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field, PositiveInt

from workbench.core.errors import BadValue, UnknownName
from workbench.core.spec import Spec
from workbench.data.counter import Draw, key_of
from workbench.data.worlds.town_words import NAMES, RULES

Split = Literal["train", "validation", "test"]
_TENTHS: dict[str, tuple[int, ...]] = {"train": tuple(range(8)), "validation": (8,), "test": (9,)}
FRAMES: tuple[str, ...] = (
    "yesterday {a} and {b} met near the {building}. {giver} gave the {thing} to {other}.",
    "when {a} and {b} were at the {building}, {giver} handed the {thing} to {other}.",
    "in the morning {a} and {b} went to the {building}, and {giver} lent the {belonging} to {other}.",
    "after {a} and {b} had talked about the {topic}, {giver} showed the {thing} to {other}.",
    "on {day} {a} and {b} walked past the {building}. later {giver} sold the {belonging} to {other}.",
    "the {role} saw {a} and {b} at the {building}, where {giver} passed the {belonging} to {other}.",
)


class GiftsSpec(Spec):
    """``rows`` and ``held_out``: documents of the training split and of each other; ``people``: how many of the town's names there are."""

    seed: int = 0
    rows: PositiveInt = 20_000
    held_out: PositiveInt = 400
    people: int = Field(40, ge=16, le=len(NAMES))


@dataclass(frozen=True)
class Gift:
    """One document: its frame with everything but the names filled in, the two who meet in their order, and whether the first gives."""

    frame: str
    a: str
    b: str
    first_gives: bool

    @property
    def giver(self) -> str:
        """Who is named twice."""
        return self.a if self.first_gives else self.b

    @property
    def other(self) -> str:
        """Who gets it: the answer."""
        return self.b if self.first_gives else self.a

    @property
    def text(self) -> str:
        """The whole document."""
        return self.frame.format(a=self.a, b=self.b, giver=self.giver, other=self.other)

    @property
    def prompt(self) -> str:
        """The document up to the answer, without the blank before it."""
        return self.text[: self.text.rindex(f" {self.other}.")]

    @property
    def twin(self) -> Gift:
        """The same with the giver exchanged."""
        return replace(self, first_gives=not self.first_gives)


class Gifts:
    """The documents by their spec."""

    def __init__(self, spec: GiftsSpec | None = None) -> None:
        self.spec = spec or GiftsSpec.parse({})
        self.people = NAMES[: self.spec.people]

    def size(self, split: str = "train") -> int:
        """How many documents a split has. Raises UnknownName for another split."""
        if split not in _TENTHS:
            raise UnknownName("split", split, _TENTHS)
        return self.spec.rows if split == "train" else self.spec.held_out

    def document(self, index: int, split: Split = "train") -> Gift:
        """The ``index``-th document of a split. Raises BadValue where there is none."""
        if not 0 <= index < self.size(split):
            raise BadValue("document index", index, f"within 0 to {self.size(split) - 1} in split '{split}'")
        draw = Draw("gifts", self.spec.seed, split, index)
        while True:  # of a hundred pairs ten or more are in the rarest split, so this ends
            a, b = draw.pick(self.people), draw.pick(self.people)
            if a != b and key_of("gifts split", *sorted((a, b))) % 10 in _TENTHS[split]:
                break
        words = {word: draw.pick(RULES[word]) for word in ("building", "thing", "belonging", "topic", "day", "role")}
        names = {name: "{" + name + "}" for name in ("a", "b", "giver", "other")}
        return Gift(draw.pick(FRAMES).format(**words, **names), a, b, bool(draw.below(2)))

    def documents(self, split: Split = "train") -> list[Gift]:
        """The documents of a whole split."""
        return [self.document(index, split) for index in range(self.size(split))]
