"""Many texts that share beginnings, run as one row in which every shared beginning stands once, each token seeing its own path alone.

Tokens are flat: whatever acts on one token at a time (maps, norms, activations) does so without padding. Attention is brought into one
shape for each stretch of positions: rows of ``W`` queries over the ``K`` keys before the stretch's end, where a token's slot and the
columns of its keys follow from their positions. Nothing of a token's own sum then depends on which other texts are there: neither how
many keys there are, nor where they stand, nor the shape of the product. On a CPU those change the last bits of a float32 sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from workbench.blocks.sparse import Pattern
from workbench.core.errors import BadValue

ROOT = -1
STRETCHES = ((256, 16), (1024, 32), (1 << 62, 64))
"""Up to each position, how many are taken together: short where texts branch often, longer where gathering keys would cost more."""
CELLS = 1 << 22
"""Numbers of keys gathered at once: 16 MiB in float32."""


@dataclass(frozen=True)
class Stretch:
    """The rows of one stretch of positions, as indices of tokens. Slots that no token needs hold another token of the row's path."""

    queries: Int[Tensor, "row slot"]
    keys: Int[Tensor, "row key"]
    seen: Bool[Tensor, "1 1 slot key"]


@dataclass(frozen=True)
class Forest:
    """``parents[i]`` is the token that token ``i`` follows (``ROOT``: it begins a text). ``slots[i]`` is where its output lies among the
    slots of all stretches."""

    parents: Int[Tensor, " pos"]
    depth: Int[Tensor, " pos"]
    stretches: tuple[Stretch, ...]
    slots: Int[Tensor, " pos"]
    pattern: Pattern | None = None

    def attend(
        self, q: Float[Tensor, "1 head pos d_head"], k: Float[Tensor, "1 head pos d_head"], v: Float[Tensor, "1 head pos d_head"]
    ) -> Float[Tensor, "1 head pos d_head"]:
        """The values mixed along each token's own path."""
        flat = [x[0].transpose(0, 1).contiguous() for x in (q, k, v)]
        heads, width = q.shape[1], q.shape[3]
        out: list[Tensor] = []
        for stretch in self.stretches:
            row = stretch.keys.shape[1] * heads * width
            step = max(2, CELLS // row // 2 * 2)  # rows are even in number, so one never stands alone
            for first in range(0, len(stretch.queries), step):
                at = slice(first, first + step)
                index = (stretch.queries[at], stretch.keys[at], stretch.keys[at])
                met = [x.index_select(0, i.reshape(-1)).view(*i.shape, heads, width).transpose(1, 2) for x, i in zip(flat, index)]
                mixed = functional.scaled_dot_product_attention(*met, attn_mask=stretch.seen)
                out.append(mixed.transpose(1, 2).reshape(-1, heads, width))
        return torch.cat(out).index_select(0, self.slots).transpose(0, 1).unsqueeze(0)

    def whole(self, query: int, key: int, device: torch.device) -> Bool[Tensor, "1 1 query key"]:
        """The dense mask: what is built only where someone looks at scores."""
        parents, seen = self.parents.tolist(), np.zeros((query, key), dtype=bool)
        for token, parent in enumerate(parents):
            if parent != ROOT:
                seen[token] = seen[parent]
            seen[token, token] = True
        out = torch.from_numpy(seen).to(device)
        if self.pattern is not None:
            out = out & self.pattern.seen(self.depth[:, None], self.depth[None])
        return out[None, None]


def forest(parents: Tensor, device: torch.device, pattern: Pattern | None = None) -> Forest:
    """The arrangement of ``parents`` ``[pos]``. Raises BadValue unless each parent is ``ROOT`` or stands before its token."""
    if parents.ndim != 1 or parents.numel() == 0 or parents.is_floating_point() or parents.dtype == torch.bool:
        raise BadValue("resume.parents", f"{tuple(parents.shape)} {parents.dtype}", "integers [pos], at least one")
    above = parents.cpu().numpy().astype(np.int64)
    if bool((above >= np.arange(len(above))).any() or (above < ROOT).any()):
        raise BadValue("resume.parents", above.tolist()[:8], f"each {ROOT} (a text begins) or the number of an earlier token")
    depth = _depths(above)
    slots, stretches, base = np.zeros(len(above), dtype=np.int64), [], 0
    for queries, keys, own in _arranged(above, depth):
        first, width = keys.shape[1] - queries.shape[1], queries.shape[1]
        placed = (own != ROOT).nonzero()
        slots[own[placed]] = base + placed[0] * width + placed[1]
        base += queries.size
        query, key = torch.arange(first, first + width)[:, None], torch.arange(first + width)[None]
        seen = key <= query if pattern is None else (key <= query) & pattern.seen(query, key)
        stretches.append(Stretch(torch.from_numpy(queries).to(device), torch.from_numpy(keys).to(device), seen[None, None].to(device)))
    depths, at = torch.from_numpy(depth).to(device), torch.from_numpy(slots).to(device)
    return Forest(torch.from_numpy(above).to(device), depths, tuple(stretches), at, pattern)


def _depths(parents: np.ndarray) -> np.ndarray:
    depth: list[int] = []
    for parent in parents.tolist():
        depth.append(0 if parent == ROOT else depth[parent] + 1)
    return np.asarray(depth, dtype=np.int64)


def stretches(length: int) -> Iterator[tuple[int, int]]:
    """(first, end) of the stretches that hold positions 0 to ``length`` - 1; they follow from the position alone."""
    first = 0
    for bound, width in STRETCHES:
        while first < min(bound, length):
            yield first, first + width
            first += width


def _arranged(parents: np.ndarray, depth: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each stretch: the token of every query slot, of every key column, and the slots' own tokens (``ROOT`` where there is none).

    A row is a path to a token without children, or to the stretch's last position; its keys begin with those of the row before it.
    """
    parent_of = np.zeros(len(parents), dtype=bool)
    parent_of[parents[parents != ROOT]] = True
    before: np.ndarray = np.zeros((0, 0), dtype=np.int64)
    row_of = np.full(len(parents), ROOT)
    for first, end in stretches(int(depth.max()) + 1):
        ends = ((depth >= first) & (depth < end) & ((depth == end - 1) | ~parent_of)).nonzero()[0]
        if len(ends) % 2:
            ends = np.append(ends, ends[-1])
        own, now = np.full((len(ends), end - first), ROOT), ends.copy()
        for position in range(end - 1, first - 1, -1):
            here = depth[now] == position
            own[here, position - first] = now[here]
            now = np.where(here & (position > 0), parents[now], now)
        keys = np.concatenate([before[row_of[now]], own], axis=1) if first else own
        beginning = keys[:, :1]
        yield np.where(own == ROOT, own[:, :1], own), np.where(keys == ROOT, beginning, keys), own
        row_of[ends] = np.arange(len(ends))
        before = keys
