"""The keys and values of tokens already read, as an immutable value: ``Trace.past``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

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

    def _each(self, change: Callable[[Tensor], Tensor]) -> KVCache:
        layers, memory = (tuple((change(k), change(v)) for k, v in pairs) for pairs in (self.layers, self.memory))
        return KVCache(layers, memory, change(self.seen) if self.seen is not None else None)


def joined(past: LayerCache | None, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """``past`` followed by the current keys and values ``[batch, pos, kv_head, d_head]``."""
    if past is None:
        return keys, values
    return torch.cat((past[0], keys), dim=1), torch.cat((past[1], values), dim=1)
