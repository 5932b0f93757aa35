"""The features: a world of activation vectors whose features are known, to score dictionaries on.

A vector is the sum of the features that fire in it, each a unit direction times a strength, in a space with fewer dimensions than there
are features (superposition), plus a constant and noise:

    x = mean + sum over firing i of strength_i * direction_i + noise

Feature i fires with a chance falling as a power of its rank (Zipf), features of one group fire together more often than chance (a Gaussian
copula: one shared factor a group), and a *child* fires only where its parent does, which is what makes dictionaries absorb. A sample
depends on (spec, seed of the sample) alone. Truth comes with every sample: which features fired, and how strongly.

Source: superposition and correlated features in toy models: Elhage et al., Toy Models of Superposition, 2022 (arXiv:2209.10652); known
features to score sparse autoencoders: Sharkey et al., Taking features out of superposition with sparse autoencoders, 2022; parents and
children: Chanin et al., A is for Absorption, 2024 (arXiv:2409.14507).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from workbench.core.spec import Spec

MOST_OFTEN = 0.5
"""No feature fires in more than this share of vectors."""


class FeaturesSpec(Spec):
    """Everything about the features.

    ``active``: features that fire in a vector, on average, children aside. ``zipf``: chances fall as ``rank ** -zipf``. ``groups`` of
    features share a factor that explains ``correlation`` of each one's chance variable. The last ``children * parents`` features are
    children; each fires in ``child_share`` of the vectors of its parent, and the parents are the first features.
    """

    seed: int = 0
    features: int = Field(default=256, ge=4, le=4096)
    width: PositiveInt = 64
    active: float = Field(default=6.0, gt=0)
    zipf: float = Field(default=0.5, ge=0, le=2)
    groups: PositiveInt = 16
    correlation: float = Field(default=0.2, ge=0, lt=1)
    parents: int = Field(default=0, ge=0)
    children: PositiveInt = 2
    child_share: float = Field(default=0.3, gt=0, lt=0.5)
    strength_spread: float = Field(default=0.25, ge=0, lt=1)
    noise: float = Field(default=0.0, ge=0)
    offset: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.parents * (1 + self.children) > self.features:
            asked = self.parents * (1 + self.children)
            raise ValueError(
                f"{self.parents} parents with {self.children} children each are {asked} features, and there are {self.features}"
            )
        if self.parents and self.child_share * self.children > 1:
            raise ValueError(f"child_share times children is {self.child_share * self.children}, and it is at most 1: one child at a time")
        return self


@dataclass(frozen=True)
class Sample:
    """Vectors ``rows`` ``[row, width]`` and how strongly each feature fired in them (0: not at all)."""

    rows: Float[Tensor, "row width"]
    strength: Float[Tensor, "row feature"]


class Features:
    """The features by their spec: ``directions`` ``[feature, width]`` (unit), ``chance`` of firing, ``mean``, ``parent`` (-1: none)."""

    directions: Float[Tensor, "feature width"]
    chance: Float[Tensor, " feature"]
    mean: Float[Tensor, " width"]
    parent: Int[Tensor, " feature"]

    def __init__(self, spec: FeaturesSpec | None = None) -> None:
        self.spec = spec = spec or FeaturesSpec.parse({})
        draw = torch.Generator().manual_seed(spec.seed)
        directions = torch.randn(spec.features, spec.width, generator=draw, dtype=torch.float64)
        self.directions = directions / directions.norm(dim=1, keepdim=True)
        mean = torch.randn(spec.width, generator=draw, dtype=torch.float64)
        self.mean = spec.offset * mean / mean.norm()
        self.parent = torch.full((spec.features,), -1)
        young = spec.parents * spec.children
        if young:
            self.parent[-young:] = torch.arange(spec.parents).repeat_interleave(spec.children)
        own = spec.features - young
        chance = torch.arange(1, own + 1, dtype=torch.float64) ** -spec.zipf
        for _ in range(32):  # what the cap takes from the frequent ones goes to the others
            chance = (chance * spec.active / chance.sum()).clamp(max=MOST_OFTEN)
        self.chance = torch.cat([chance, spec.child_share * chance[: spec.parents].repeat_interleave(spec.children)])
        self._group = torch.arange(own) % spec.groups

    def sample(self, rows: int, seed: int) -> Sample:
        """``rows`` vectors; the same seed, the same vectors."""
        spec = self.spec
        draw = torch.Generator().manual_seed((spec.seed << 32) + seed)
        own = len(self._group)
        shared = torch.randn(rows, spec.groups, generator=draw)[:, self._group]
        alone = torch.randn(rows, own, generator=draw)
        level = torch.special.ndtri(1 - self.chance[:own]).float()
        fires = spec.correlation**0.5 * shared + (1 - spec.correlation) ** 0.5 * alone > level
        if spec.parents:
            which = (torch.rand(rows, spec.parents, generator=draw) / spec.child_share).long()  # at or past the last: no child
            child = which[:, :, None] == torch.arange(spec.children)
            fires = torch.cat([fires, (child & fires[:, : spec.parents, None]).flatten(1)], 1)
        strength = (1 + spec.strength_spread * torch.randn(rows, spec.features, generator=draw)).clamp(min=0.1) * fires
        x = strength @ self.directions.float() + self.mean.float()
        if spec.noise:
            x = x + spec.noise * torch.randn(x.shape, generator=draw)
        return Sample(x, strength)

    def stream(self, rows: int, first: int = 0) -> Iterator[Tensor]:
        """Batches of ``rows`` vectors without end, from batch ``first`` on; batch i is always the same."""
        number = first
        while True:
            yield self.sample(rows, 1 + number).rows
            number += 1
