"""The rows of one shard while it is made: one pile a site, filled pass by pass, and filled again for a later shard.

Passes come in the order of lengths and rows are stored in the order of items. Nothing is moved for that in memory: the order is kept
beside the pile, and who writes it is handed rows in that order, a piece at a time that stays in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

PIECE = 1 << 19
"""Bytes that are put in order, hashed and written at a time."""


class Pile:
    """Rows one upon another in memory that is kept: what was never touched costs a fault a page, in a harvest as much as a copy."""

    def __init__(self, expected: int = 0) -> None:
        self._memory, self._count, self._expected = np.empty(0, np.uint8), 0, expected
        self._shape: tuple[int, ...] = ()
        self._dtype = torch.float32

    def clear(self, expected: int) -> None:
        """Begin anew; about so many rows are expected."""
        self._count, self._expected = 0, expected

    def room(self, count: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """``[count, *shape]``: the next rows, to be filled. Rows of one pile are of one shape and dtype."""
        self._shape, self._dtype = shape, dtype
        start, wide = self._count, prod(shape) * dtype.itemsize
        self._count += count
        if self._count * wide > len(self._memory):
            before = self._memory
            self._memory = np.empty(max(self._count * wide, self._expected * wide, len(before) * 3 // 2), np.uint8)
            self._memory[: start * wide] = before[: start * wide]
        return self._rows(start)

    def rows(self) -> Tensor:
        """``[row, *shape]``: all rows; they are the pile's own memory."""
        return self._rows(0)

    def _rows(self, start: int) -> Tensor:
        if start == self._count:
            return torch.empty((0, *self._shape), dtype=self._dtype)
        wide = prod(self._shape) * self._dtype.itemsize
        held = torch.from_numpy(self._memory[start * wide : self._count * wide])
        return held.view(self._dtype).view(self._count - start, *self._shape)


@dataclass(frozen=True)
class Ordered:
    """``rows`` ``[row, ...]``, and the order in which they are stored; None is as they lie."""

    rows: Tensor
    order: Int[Tensor, " row"] | None

    def pieces(self) -> Iterator[memoryview]:
        """The bytes in the order of storage, each piece to be used before the next is asked for."""
        if not len(self.rows):
            return
        wide = prod(self.rows.shape[1:])
        content = self.rows.contiguous().view(len(self.rows), wide).view(torch.uint8).numpy()
        wide *= self.rows.element_size()
        many = max(1, PIECE // max(1, wide))
        order = None if self.order is None else self.order.numpy()
        piece = np.empty((0 if order is None else min(many, len(order)), wide), np.uint8)
        for low in range(0, len(content), many):
            if order is None:
                yield content[low : low + many].reshape(-1).data
            else:
                chosen = order[low : low + many]
                taken = piece[: len(chosen)]
                np.take(content, chosen, axis=0, out=taken, mode="clip")  # another mode would copy once more
                yield taken.reshape(-1).data
