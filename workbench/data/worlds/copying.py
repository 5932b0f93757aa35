"""Copying: strings of random symbols that are to be written again, as they are or backwards.

The first word of a source says which. A row depends on (spec, split, index) alone. A string belongs to one split for good, whatever
the seed and whichever is asked of it, so held-out strings never occur in training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from workbench.core.errors import BadValue, UnknownName
from workbench.core.spec import Spec
from workbench.data.counter import Draw, key_of
from workbench.data.pairs import PairRows, Words

Split = Literal["train", "validation", "test"]
Order = Literal["copy", "reverse"]
ORDERS: tuple[Order, ...] = ("copy", "reverse")
_TENTHS: dict[str, tuple[int, ...]] = {"train": tuple(range(8)), "validation": (8,), "test": (9,)}


class CopyingSpec(Spec):
    """Everything about the strings.

    ``rows`` and ``held_out``: strings of the training split and of each of validation and test. ``symbols``: how many symbols there are;
    a string has ``shortest`` to ``longest`` of them. ``orders``: what is asked, each as often.
    """

    seed: int = 0
    rows: PositiveInt = 20_000
    held_out: PositiveInt = 500
    symbols: int = Field(16, ge=2, le=1000)
    shortest: int = Field(3, ge=1)
    longest: int = Field(10, ge=1, le=200)
    orders: tuple[Order, ...] = ORDERS

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.shortest > self.longest:
            raise ValueError(f"shortest must be at most longest ({self.longest}), and it is {self.shortest}")
        if self.symbols**self.longest < 1000:
            found = self.symbols**self.longest
            raise ValueError(f"there must be at least 1000 strings, or a split could be empty; of {self.longest} symbols there are {found}")
        if not self.orders or len(set(self.orders)) != len(self.orders):
            raise ValueError(f"orders must be different ones of {', '.join(ORDERS)}, at least one")
        return self


@dataclass(frozen=True)
class Item:
    """One row: what is asked, and of which symbols."""

    order: Order
    symbols: tuple[str, ...]

    @property
    def source(self) -> tuple[str, ...]:
        """What is read."""
        return (self.order, *self.symbols)

    @property
    def target(self) -> tuple[str, ...]:
        """What is to be written."""
        return self.symbols if self.order == "copy" else self.symbols[::-1]


class Copying:
    """The strings by their spec."""

    def __init__(self, spec: CopyingSpec | None = None) -> None:
        self.spec = spec or CopyingSpec.parse({})
        self.symbols = tuple(f"s{i}" for i in range(self.spec.symbols))
        self.words = Words([*ORDERS, *self.symbols])

    def size(self, split: Split = "train") -> int:
        """How many rows a split has. Raises UnknownName for another split."""
        if split not in _TENTHS:
            raise UnknownName("split", split, _TENTHS)
        return self.spec.rows if split == "train" else self.spec.held_out

    def item(self, index: int, split: Split = "train") -> Item:
        """The ``index``-th row of a split. Raises BadValue when there is none."""
        if not 0 <= index < self.size(split):
            raise BadValue("row index", index, f"within 0 to {self.size(split) - 1} in split '{split}'")
        draw = Draw("copying", self.spec.seed, split, index)
        order = self.spec.orders[index % len(self.spec.orders)]
        while True:  # a tenth of the strings belong to the rarest split, so this ends
            length = self.spec.shortest + draw.below(self.spec.longest - self.spec.shortest + 1)
            symbols = tuple(draw.pick(self.symbols) for _ in range(length))
            if key_of("copying split", *symbols) % 10 in _TENTHS[split]:
                return Item(order, symbols)

    def rows(self, split: Split = "train") -> PairRows:
        """A split as rows to train on."""
        items = (self.item(i, split) for i in range(self.size(split)))
        return PairRows([(item.source, item.target) for item in items], self.words)

    def truth(self) -> dict[str, Any]:
        """What the world is, as plain JSON values."""
        return {"world": "copying", "spec": self.spec.model_dump(mode="json"), "spec_digest": self.spec.digest()}
