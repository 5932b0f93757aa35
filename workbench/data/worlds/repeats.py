"""Repeats: rows of a random string, written over and over. Nothing but what came before tells what comes next.

A row depends on (spec, split, index) alone. The string's symbols are all different, so the only clue to a symbol's successor is what
followed it the last time: what Olsson et al., In-context Learning and Induction Heads, 2022 (arXiv:2209.11895) call induction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from pydantic import Field, PositiveInt, model_validator

from workbench.core.batch import TokenBatch
from workbench.core.errors import BadValue
from workbench.core.spec import Spec
from workbench.data.counter import Draw


class RepeatsSpec(Spec):
    """``symbols`` there are; a string has ``shortest`` to ``longest`` different ones, and is written until the row of ``length`` is full.
    ``shuffled``: after its first time, the string is drawn anew each time, so that nothing tells what comes next."""

    seed: int = 0
    symbols: int = Field(64, ge=2, le=10_000)
    shortest: int = Field(6, ge=2)
    longest: int = Field(25, ge=2)
    length: PositiveInt = 64
    held_out: PositiveInt = 200
    shuffled: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.shortest <= self.longest <= self.symbols:
            raise ValueError(f"shortest ({self.shortest}) at most longest ({self.longest}), and that at most symbols ({self.symbols})")
        if self.length < 2 * self.longest:
            raise ValueError(f"length at least twice longest, {2 * self.longest}, so that every string is repeated, not {self.length}")
        return self


@dataclass(frozen=True)
class RepeatRows:
    """Rows of one split to train on or to score."""

    spec: RepeatsSpec
    split: str
    count: int

    def __len__(self) -> int:
        return self.count

    def period(self, index: int) -> int:
        """How many symbols the ``index``-th row repeats."""
        return len(self._string(index, Draw("repeats", self.spec.seed, self.split, index)))

    def row(self, index: int) -> list[int]:
        """The symbols of a row, ``length`` + 1 of them. Raises BadValue when there is no such row."""
        if not 0 <= index < self.count:
            raise BadValue("row index", index, f"within 0 to {self.count - 1}")
        draw = Draw("repeats", self.spec.seed, self.split, index)
        string = self._string(index, draw)
        out = list(string)
        while len(out) <= self.spec.length:
            out += self._drawn(draw, len(string)) if self.spec.shuffled else string
        return out[: self.spec.length + 1]

    def _string(self, index: int, draw: Draw) -> list[int]:
        return self._drawn(draw, self.spec.shortest + draw.below(self.spec.longest - self.spec.shortest + 1))

    def _drawn(self, draw: Draw, count: int) -> list[int]:
        left = list(range(self.spec.symbols))
        return [left.pop(draw.below(len(left))) for _ in range(count)]

    def batch(self, indices: Sequence[int]) -> TokenBatch:
        """``tokens`` and ``targets`` ``[row, length]``: every next symbol is predicted, those that nothing tells as well."""
        rows = torch.tensor([self.row(index) for index in indices])
        return TokenBatch(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())

    def digest(self) -> str:
        return hashlib.sha256(f"repeats:{self.spec.digest()}:{self.split}:{self.count}".encode()).hexdigest()
