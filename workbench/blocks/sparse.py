"""Attention to a part of the row, whose time and memory grow with its length and not with the square of it.

    sliding window (Beltagy et al. 2020):       key j is seen from query i where |i - j| < window
    block-sparse (Child et al. 2019, Zaheer et al. 2020): both lie in blocks of ``size``; query block I sees key block J where
        |I - J| < local, or either is among the first ``leading`` blocks, or J is the last of every ``stride`` blocks

Causal order, segments and padding are heeded besides. Queries are taken in runs of neighbours, each over the keys its run can see, through
the fused kernel with a mask of that run alone; no mask of the whole row is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor
from torch.nn import functional

from workbench.core.spec import Spec

RUN = 128
"""Queries taken together, at least: shorter runs are more calls of the kernel than they save."""
Spans = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Sliding:
    """A query sees ``window`` tokens, itself included (and where order is no matter, as many to the other side)."""

    window: int

    @property
    def run(self) -> int:
        """How many queries are taken together."""
        return max(RUN, self.window)

    def seen(self, query: Int[Tensor, " *any query 1"], key: Int[Tensor, " *any 1 key"]) -> Bool[Tensor, " *any query key"]:
        """Whether each key is within the window of each query."""
        return (query - key).abs() < self.window

    def spans(self, first: int, last: int, end: int) -> Spans:
        """Half-open ranges of the keys before ``end``, in order and apart, outside which queries ``first`` to ``last`` - 1 see nothing."""
        return [(max(first - self.window + 1, 0), min(last + self.window - 1, end))]


class BlockSparse(Spec):
    """Blocks near by, the first ones, and one of every ``stride`` (0: none of those)."""

    size: PositiveInt = 64
    local: PositiveInt = 2
    leading: NonNegativeInt = 1
    stride: NonNegativeInt = 0

    @property
    def run(self) -> int:
        """How many queries are taken together: one block, since each sees blocks of its own."""
        return self.size

    def seen(self, query: Int[Tensor, " *any query 1"], key: Int[Tensor, " *any 1 key"]) -> Bool[Tensor, " *any query key"]:
        """Whether each key's block is seen from each query's."""
        here, there = query // self.size, key // self.size
        out = ((here - there).abs() < self.local) | (there < self.leading) | (here < self.leading)
        return out | (there % self.stride == self.stride - 1) if self.stride else out

    def spans(self, first: int, last: int, end: int) -> Spans:
        """Half-open ranges of the keys before ``end``, in order and apart, outside which queries ``first`` to ``last`` - 1 see nothing."""
        here, there, blocks = first // self.size, (last - 1) // self.size, -(-end // self.size)
        if here < self.leading:
            return [(0, end)]
        chosen = set(range(min(self.leading, blocks))) | set(range(max(here - self.local + 1, 0), min(there + self.local, blocks)))
        if self.stride:
            chosen |= set(range(self.stride - 1, blocks, self.stride))
        return joined([(block * self.size, min((block + 1) * self.size, end)) for block in sorted(chosen)])


Pattern = Sliding | BlockSparse


@dataclass(frozen=True)
class Sparse:
    """A pattern with the other rules of one pass: queries are the last of the keys, ``past`` keys before them."""

    pattern: Pattern
    past: int
    causal: bool
    segments: Int[Tensor, "batch pos"] | None = None
    valid: Bool[Tensor, "batch key"] | None = None

    def between(self, first: int, last: int, spans: Spans, device: torch.device) -> Bool[Tensor, "rows 1 query key"]:
        """Which of the keys in ``spans`` queries ``first`` to ``last`` - 1 (counted without the past) may see."""
        query = torch.arange(first, last, device=device)
        key = torch.cat([torch.arange(*span, device=device) for span in spans])
        row, column = query[:, None] + self.past, key[None]
        allowed = self.pattern.seen(row, column)[None]
        if self.causal:
            allowed = allowed & (column <= row)
        if self.segments is not None:
            allowed = allowed & (self.segments[:, query].unsqueeze(2) == self.segments[:, key].unsqueeze(1))
        if self.valid is not None:
            allowed = allowed & self.valid[:, key].unsqueeze(1)
        return allowed.unsqueeze(1)

    def whole(self, query: int, key: int, device: torch.device) -> Bool[Tensor, "rows 1 query key"]:
        """The dense mask: what is built only where someone looks at scores."""
        return self.between(0, query, [(0, key)], device)

    def attend(
        self,
        q: Float[Tensor, "batch head query d_head"],
        k: Float[Tensor, "batch head key d_head"],
        v: Float[Tensor, "batch head key d_head"],
    ) -> Float[Tensor, "batch head query d_head"]:
        """The mixed values, run by run."""
        n_query, n_key, out = q.shape[2], k.shape[2], []
        for first in range(0, n_query, self.pattern.run):
            last = min(first + self.pattern.run, n_query)
            end = last + self.past if self.causal else n_key
            spans = self.pattern.spans(first + self.past, last + self.past, end)
            keys, values = (_taken(x, spans) for x in (k, v))
            mask = self.between(first, last, spans, q.device)
            out.append(functional.scaled_dot_product_attention(q[:, :, first:last], keys, values, attn_mask=mask))
        return out[0] if len(out) == 1 else torch.cat(out, 2)


def joined(spans: Spans) -> Spans:
    """Neighbours as one span."""
    out: list[tuple[int, int]] = []
    for low, high in spans:
        if out and out[-1][1] == low:
            out[-1] = (out[-1][0], high)
        else:
            out.append((low, high))
    return out


def _taken(x: Tensor, spans: Spans) -> Tensor:
    return x[:, :, slice(*spans[0])] if len(spans) == 1 else torch.cat([x[:, :, low:high] for low, high in spans], 2)
