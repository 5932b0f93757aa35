"""Attention of one token a row over rows of different lengths, a few rows of like width at a time.

A row meets its own columns and, up to a multiple of ``WIDE``, columns it does not see: for one query those change no bit of the sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from workbench.blocks.sparse import Pattern

WIDE = 16
"""Columns that are met are a multiple of this."""
RUN = 16
"""Rows taken together, over as many columns as the longest of them needs."""


@dataclass(frozen=True)
class Ragged:
    """``seen``: for each run of rows, the columns that each of its rows sees; row i has its one query at position ``lengths[i]``."""

    lengths: tuple[int, ...]
    seen: tuple[Bool[Tensor, "row 1 1 _key"], ...]

    @property
    def width(self) -> int:
        """The most columns that any row meets."""
        return max(one.shape[3] for one in self.seen)

    def attend(
        self,
        q: Float[Tensor, "row head 1 d_head"],
        k: Float[Tensor, "row head key d_head"],
        v: Float[Tensor, "row head key d_head"],
        masks: Sequence[Tensor] | None = None,
    ) -> Float[Tensor, "row head 1 d_head"]:
        """The mixed values, run by run; ``masks`` are ``added``, where many layers share them."""
        out = []
        for number, mask in enumerate(masks or self.seen):
            at, width = slice(number * RUN, number * RUN + RUN), mask.shape[3]
            out.append(functional.scaled_dot_product_attention(q[at], k[at, :, :width], v[at, :, :width], attn_mask=mask))
        return torch.cat(out)

    def added(self, dtype: torch.dtype) -> list[Float[Tensor, "row 1 1 _key"]]:
        """What is seen, as the kernel adds it to scores: 0, or minus infinity."""
        return [torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -math.inf) for seen in self.seen]

    def whole(self, query: int, key: int, device: torch.device) -> Bool[Tensor, "row 1 1 key"]:
        """The dense mask: what is built only where someone looks at scores."""
        return torch.cat([functional.pad(seen, (0, key - seen.shape[3])) for seen in self.seen]).to(device)


def ragged(lengths: Sequence[int], device: torch.device, pattern: Pattern | None = None) -> Ragged:
    """The arrangement for rows that hold ``lengths`` tokens before the one they add."""
    seen = []
    for first in range(0, len(lengths), RUN):
        some = torch.tensor(lengths[first : first + RUN], device=device)[:, None]
        column = torch.arange(-(-(int(some.max()) + 1) // WIDE) * WIDE, device=device)[None]
        allowed = column <= some
        seen.append((allowed if pattern is None else allowed & pattern.seen(some, column))[:, None, None])
    return Ragged(tuple(lengths), tuple(seen))
