"""The keys and values of tokens already read, as an immutable value: ``Trace.past``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.blocks.ragged import WIDE

LayerCache = tuple[Float[Tensor, "batch _key kv_head d_head"], Float[Tensor, "batch _key kv_head d_head"]]


@dataclass(frozen=True)
class KVCache:
    """One (keys, values) pair a layer, each ``[batch, pos, kv_head, d_head]``; keys are stored turned, ready to be met.

    ``memory`` has, a layer, the keys and values of the other stack that cross-attention reads (empty where there is none). What an
    edit changed is stored changed: continuing from a past continues that run. ``seen`` ``[batch, key]`` is true where the memory is real
    (None: everywhere).
    """

    layers: tuple[LayerCache, ...]
    memory: tuple[LayerCache, ...] = ()
    seen: Bool[Tensor, "batch key"] | None = None

    @property
    def batch(self) -> int:
        return self.layers[0][0].shape[0]

    @property
    def length(self) -> int:
        """Tokens held."""
        return self.layers[0][0].shape[1]

    def expand(self, batch: int) -> KVCache:
        """A past of one row, shared by ``batch`` rows without copying."""
        return self._each(lambda held: held.expand(batch, *held.shape[1:]))

    def rows(self, chosen: Sequence[int] | Tensor) -> KVCache:
        """The chosen rows (a copy)."""
        index = torch.as_tensor(chosen, device=self.layers[0][0].device)
        return self._each(lambda held: held[index])

    def leading(self, rows: int) -> KVCache:
        """The first rows, without copying."""
        return self._each(lambda held: held[:rows])

    def first(self, length: int) -> KVCache:
        """The first ``length`` tokens; the memory stays whole."""
        return KVCache(tuple((k[:, :length], v[:, :length]) for k, v in self.layers), self.memory, self.seen)

    def room(self, rows: int, length: int) -> Room:
        """Empty room for ``rows`` texts of up to ``length`` tokens each, for a model with such keys and values."""
        length = -(-length // WIDE) * WIDE
        # In memory a head's columns are neighbours: that is how a step reads them.
        empty = lambda held: _zeros((rows, held.shape[2], length, held.shape[3]), held).transpose(1, 2)  # noqa: E731
        return Room(tuple((empty(k), empty(v)) for k, v in self.layers), [0] * rows)

    def _each(self, change: Callable[[Tensor], Tensor]) -> KVCache:
        layers, memory = (tuple((change(k), change(v)) for k, v in pairs) for pairs in (self.layers, self.memory))
        return KVCache(layers, memory, change(self.seen) if self.seen is not None else None)


ALIGNED = 64
"""Bytes that torch's own tensors begin at a multiple of."""


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Zeros of the dtype and the device of ``like``. On a CPU the memory is numpy's, which asks the system for pages of 2 MiB where it has
    them: a step reads all of it, and a large page costs one fault and one entry in the processor's table of pages in place of 512."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    size = prod(shape) * like.element_size()
    memory = np.zeros(size + ALIGNED, np.uint8)
    first = -memory.ctypes.data % ALIGNED
    return torch.from_numpy(memory[first : first + size]).view(like.dtype).view(shape)


class Room:
    """Room for many texts of different lengths, each a row, to which a run of one token a row adds to all of them in place.

    A token stands in the column of its position, so what a row is does not depend on the others.
    """

    def __init__(self, layers: tuple[LayerCache, ...], lengths: list[int]) -> None:
        self.layers, self.lengths = layers, lengths

    def take(self, row: int, past: KVCache, tokens: Sequence[int]) -> None:
        """Begin ``row`` anew with those ``tokens`` of a one-row ``past``, in their order."""
        self.fill([row], past, [tokens])

    def fill(self, rows: Sequence[int], past: KVCache, paths: Sequence[Sequence[int]]) -> None:
        """Begin each of ``rows`` anew with the tokens of its path in a one-row ``past``, in their order."""
        device, each = self.layers[0][0].device, list(zip(rows, paths, strict=True))
        places = [(row, column, token) for row, path in each for column, token in enumerate(path)]
        row, column, token = torch.tensor(places, dtype=torch.long, device=device).reshape(-1, 3).unbind(1)
        for whole, held in zip(self.layers, past.layers, strict=True):
            for mine, theirs in zip(whole, held, strict=True):
                mine[row, column] = theirs[0].index_select(0, token)
        for number, path in each:
            self.lengths[number] = len(path)

    def kept(self, rows: Sequence[int], size: int) -> Room:
        """This room as one of ``size`` rows, the first of them these, in the same memory; what else was held is lost."""
        index, used = torch.tensor(rows, device=self.layers[0][0].device), max(self.lengths[row] for row in rows)
        for held in (one for pair in self.layers for one in pair):
            held[: len(rows), :used] = held[:, :used].index_select(0, index)
        lengths = [self.lengths[row] for row in rows] + [0] * (size - len(rows))
        return Room(tuple((keys[:size], values[:size]) for keys, values in self.layers), lengths)

    def step(self) -> Step:
        """What a run of one token a row is given as its past."""
        at = torch.tensor(self.lengths, device=self.layers[0][0].device)
        width = -(-(max(self.lengths) + 1) // WIDE) * WIDE
        return Step(tuple(StepLayer(keys, values, at, width) for keys, values in self.layers), tuple(self.lengths))


@dataclass(frozen=True)
class StepLayer:
    """One layer of a room: where each row's next token goes, and how many columns are met."""

    keys: Float[Tensor, "batch room kv_head d_head"]
    values: Float[Tensor, "batch room kv_head d_head"]
    at: Int[Tensor, " batch"]
    width: int

    def put(self, keys: Tensor, values: Tensor) -> LayerCache:
        """Write one token a row, and give all columns that are met."""
        assert keys.shape[1] == 1, "a step adds one token a row"
        rows = torch.arange(len(self.at), device=self.at.device)
        self.keys[rows, self.at], self.values[rows, self.at] = keys[:, 0], values[:, 0]
        return self.keys[:, : self.width], self.values[:, : self.width]


@dataclass(frozen=True)
class Step:
    """A past that the run writes to: ``lengths`` are the tokens each row holds before."""

    layers: tuple[StepLayer, ...]
    lengths: tuple[int, ...]
    memory: tuple[LayerCache, ...] = ()
    seen: Bool[Tensor, "batch key"] | None = None

    @property
    def batch(self) -> int:
        return len(self.lengths)


def joined(past: LayerCache | StepLayer | None, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """``past`` followed by the current keys and values ``[batch, pos, kv_head, d_head]``."""
    if past is None:
        return keys, values
    if isinstance(past, StepLayer):
        return past.put(keys, values)
    return torch.cat((past[0], keys), dim=1), torch.cat((past[1], values), dim=1)
