"""The batches a family trains on and can be run on: frozen values of tensors whose first axis is the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

IGNORE = -100
"""A target that is not predicted."""


@dataclass(frozen=True)
class Batch:
    """Base of the batch types: every field is a tensor ``[batch, ...]`` or None."""

    def to(self, device: torch.device | str) -> Self:
        """The batch on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def rows(self, chosen: slice | Sequence[int]) -> Self:
        """The chosen rows."""
        return self._each(lambda tensor: tensor[chosen])

    def _each(self, change: Any) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: None if value is None else change(value) for name, value in values.items()})


@dataclass(frozen=True)
class TokenBatch(Batch):
    """Rows of token ids with next-token targets.

    ``tokens``, ``targets`` ``[batch, pos]`` (target ``IGNORE`` = not predicted); ``segments`` ``[batch, pos]``: tokens
    attend only within equal segment numbers (None: one segment a row); ``positions`` ``[batch, pos]`` restart in each segment.
    """

    tokens: Int[Tensor, "batch pos"]
    targets: Int[Tensor, "batch pos"]
    segments: Int[Tensor, "batch pos"] | None = None
    positions: Int[Tensor, "batch pos"] | None = None


@dataclass(frozen=True)
class EncoderBatch(Batch):
    """Token ids read in both directions.

    ``mask`` ``[batch, pos]`` is true at real tokens (None: all are); ``types`` ``[batch, pos]`` number the sentence a token
    belongs to (None: all 0); ``targets`` are ``[batch, pos]`` (a token's or a masked token's, ``IGNORE`` = not predicted), ``[batch]``
    (the sequence's class), ``[batch, 2]`` (where an answer begins and ends) or ``[batch, number]``, real-valued (regression).
    """

    tokens: Int[Tensor, "batch pos"]
    targets: Shaped[Tensor, "batch *rest"] | None = None
    mask: Bool[Tensor, "batch pos"] | None = None
    types: Int[Tensor, "batch pos"] | None = None


@dataclass(frozen=True)
class SequenceBatch(Batch):
    """A source for an encoder, and the tokens that a decoder writes about it.

    ``source`` is ids ``[batch, pos]``, mel frames ``[batch, mel, frame]`` or pixels ``[batch, channel, height, width]``; ``mask``
    ``[batch, source pos]`` is true where a source position is real. ``tokens`` ``[batch, pos]`` are what the decoder has read,
    ``targets`` what follows each (``IGNORE`` = not predicted).
    """

    source: Tensor
    tokens: Int[Tensor, "batch pos"]
    targets: Int[Tensor, "batch pos"] | None = None
    mask: Bool[Tensor, "batch source"] | None = None


@dataclass(frozen=True)
class ImageBatch(Batch):
    """Images ``[batch, channel, height, width]`` and their classes ``[batch]``."""

    pixels: Float[Tensor, "batch channel height width"]
    targets: Int[Tensor, " batch"] | None = None


@dataclass(frozen=True)
class PairBatch(Batch):
    """Images with the text of each; ``mask`` ``[batch, pos]`` is true at real tokens (None: all are)."""

    pixels: Float[Tensor, "batch channel height width"]
    tokens: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"] | None = None


@dataclass(frozen=True)
class DiffusionBatch(Batch):
    """Noisy images at one step of noise each, with the text of each and what is to be predicted of it.

    ``pixels`` and ``targets`` ``[batch, channel, height, width]``; ``step`` ``[batch]`` counts the noise from 0, the least; ``mask``
    ``[batch, pos]`` is true at real tokens (None: all are), and a row without any is the null text; ``low`` ``[batch, channel, low
    height, low width]`` is the smaller image that an upsampling stage enlarges (None: there is none).
    """

    pixels: Float[Tensor, "batch channel height width"]
    step: Int[Tensor, " batch"]
    tokens: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"] | None = None
    low: Float[Tensor, "batch channel low_height low_width"] | None = None
    targets: Float[Tensor, "batch channel height width"] | None = None


@runtime_checkable
class RowData(Protocol):
    """Rows a training loop can draw by number, as the batch type of the family that is trained."""

    def __len__(self) -> int: ...
    def batch(self, indices: Sequence[int]) -> Any: ...
    def digest(self) -> str:
        """sha256 (hex) of everything the rows hold."""
        ...
