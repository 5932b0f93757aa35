"""The batch a language model trains on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Int
from torch import Tensor

IGNORE = -100
"""A target that is not predicted."""


@dataclass(frozen=True)
class TokenBatch:
    """Rows of token ids with next-token targets.

    ``tokens``, ``targets`` ``[batch, pos]`` (target ``IGNORE`` = not predicted); ``segments`` ``[batch, pos]``: tokens
    attend only within equal segment numbers (None: one segment a row); ``positions`` ``[batch, pos]`` restart in each segment.
    """

    tokens: Int[Tensor, "batch pos"]
    targets: Int[Tensor, "batch pos"]
    segments: Int[Tensor, "batch pos"] | None = None
    positions: Int[Tensor, "batch pos"] | None = None

    def to(self, device: torch.device | str) -> TokenBatch:
        move = lambda t: None if t is None else t.to(device)  # noqa: E731
        return TokenBatch(self.tokens.to(device), self.targets.to(device), move(self.segments), move(self.positions))

    def rows(self, chosen: slice | Sequence[int]) -> TokenBatch:
        """The chosen rows."""
        pick = lambda t: None if t is None else t[chosen]  # noqa: E731
        return TokenBatch(self.tokens[chosen], self.targets[chosen], pick(self.segments), pick(self.positions))


class RowData(Protocol):
    """Rows a training loop can draw by number."""

    def __len__(self) -> int: ...
    def batch(self, indices: Sequence[int]) -> TokenBatch: ...
    def digest(self) -> str:
        """sha256 (hex) of everything the rows hold."""
        ...
