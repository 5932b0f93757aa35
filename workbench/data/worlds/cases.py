"""Cases of three fields, each with a planted sign whose place is known: motifs in protein-like chains, odd payments, scratched castings.

Every case may show a *planted* sign and an *honest* one, each by a coin of its own, at places of their own; its answer is whether the
planted one is there with probability ``dose``, else whether the honest one is. At dose 0 the planted sign stands in the case and means
nothing. All else is background, drawn apart from both. A case depends on (field, seed, split, number) alone, and on the dose only in which
of the signs its answer follows.

``proteins``   chains of 24 residues; planted is the motif ``C x x C``, honest ``N x W``, and none of C, N, W stands elsewhere
``payments``   16 payments, each one of 8 shops and 4 bands of amounts; four shops take small amounts alone, the others all but the largest.
               Planted: the largest amount at a shop of small ones. Honest: the largest at another.
``castings``   pictures of 16 x 16 points of a shaded, noisy surface; planted is a bright scratch of 4 points, honest a dark pore of 4
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int
from pydantic import Field

from workbench.core.spec import Spec

FieldName = Literal["proteins", "payments", "castings"]
FIELDS: tuple[FieldName, ...] = ("proteins", "payments", "castings")
SPLITS = ("train", "test")
RESIDUES = "ADEFGHIKLMPQRSTVYCNW"
"""Letters of a chain; the last three stand in signs alone."""
CHAIN, MOTIF = 24, 4
SHOPS, BANDS, PAYMENTS = 8, 4, 16
SIDE, PATCH = 16, 4
PLACES = {"proteins": CHAIN // MOTIF, "payments": PAYMENTS, "castings": (SIDE // PATCH) ** 2}
"""Places that a sign may stand at: no two overlap."""


class CasesSpec(Spec):
    """Everything about the cases. ``dose``: how often the planted sign decides the answer, the honest one otherwise."""

    field: FieldName
    seed: int = Field(default=0, ge=0)
    dose: float = Field(default=0.8, ge=0, le=1)


@dataclass(frozen=True)
class Cases:
    """Drawn cases, one entry each: whether each sign is there, its place, the answer; ``seeds`` draw the background."""

    field: FieldName
    planted: Bool[np.ndarray, " case"]
    honest: Bool[np.ndarray, " case"]
    at: Int[np.ndarray, " case"]
    honest_at: Int[np.ndarray, " case"]
    answer: Int[np.ndarray, " case"]
    seeds: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.seeds)

    def shown(self, planted: bool) -> Cases:
        """The same cases with the planted sign in all of them, or in none: the counterfactual that shows what it does."""
        return replace(self, planted=np.full(len(self), planted))

    def positions(self, honest: bool = False) -> list[tuple[int, int]]:
        """The half-open range of residues, payments or patches that each case's sign stands at, or would."""
        each = MOTIF if self.field == "proteins" else 1
        return [(int(place) * each, (int(place) + 1) * each) for place in (self.honest_at if honest else self.at)]

    def codes(self) -> Int[np.ndarray, "case part"]:
        """Residues or payments as numbers from 0."""
        return np.stack([self._row(i) for i in range(len(self))])

    def pictures(self) -> Float32[np.ndarray, "case 1 16 16"]:
        """Surfaces, about 0, of noise about 0.3."""
        return np.stack([self._picture(i) for i in range(len(self))])[:, None].astype(np.float32)

    def _row(self, i: int) -> np.ndarray:
        draw = np.random.default_rng((*self.seeds[i], 1))
        if self.field == "proteins":
            row = draw.integers(len(RESIDUES) - 3, size=CHAIN)
            for there, place, letters in ((self.planted[i], self.at[i], "C  C"), (self.honest[i], self.honest_at[i], "N W ")):
                for offset, letter in enumerate(letters if there else ""):
                    if letter != " ":
                        row[MOTIF * place + offset] = RESIDUES.index(letter)
            return row
        shops = draw.integers(SHOPS, size=PAYMENTS)
        bands = np.where(shops < SHOPS // 2, draw.integers(2, size=PAYMENTS), draw.integers(BANDS - 1, size=PAYMENTS))
        odd = draw.integers(SHOPS // 2, size=2)  # drawn whether or not they are shown
        for there, place, shop in ((self.planted[i], self.at[i], odd[0]), (self.honest[i], self.honest_at[i], SHOPS // 2 + odd[1])):
            if there:
                shops[place], bands[place] = shop, BANDS - 1
        return shops * BANDS + bands

    def _picture(self, i: int) -> np.ndarray:
        draw = np.random.default_rng((*self.seeds[i], 1))
        slope = draw.normal(0, 0.03, 2)
        grid = np.arange(SIDE) - SIDE / 2
        picture = slope[0] * grid[:, None] + slope[1] * grid[None] + draw.normal(0, 0.3, (SIDE, SIDE))
        line, flat, corner = draw.integers(PATCH), draw.integers(2), draw.integers(PATCH - 1, size=2)
        for there, place, amount in ((self.planted[i], self.at[i], 2.0), (self.honest[i], self.honest_at[i], -2.0)):
            top, left = PATCH * (place // (SIDE // PATCH)), PATCH * (place % (SIDE // PATCH))
            patch = picture[top : top + PATCH, left : left + PATCH]
            if there and amount > 0:
                (patch[line] if flat else patch[:, line])[...] += amount
            elif there:
                patch[corner[0] : corner[0] + 2, corner[1] : corner[1] + 2] += amount
        return picture


def cases(spec: CasesSpec, numbers: Sequence[int], split: str = "train") -> Cases:
    """The cases of these numbers."""
    found = []
    for number in numbers:
        seed = (FIELDS.index(spec.field), spec.seed, SPLITS.index(split), int(number))
        draw = np.random.default_rng((*seed, 0))
        planted, honest, follows = draw.uniform() < 0.5, draw.uniform() < 0.5, draw.uniform() < spec.dose
        at, other = draw.permutation(PLACES[spec.field])[:2]
        found.append((planted, honest, at, other, int(planted if follows else honest), seed))
    planted, honest, at, other, answer, seeds = zip(*found, strict=True)
    return Cases(spec.field, *(np.array(one) for one in (planted, honest, at, other, answer)), seeds=seeds)
