"""What is said of a head's rows as such: how even they are, and how much of them position alone decides.

    entropy(q)    - sum over keys of A[q, k] ln A[q, k]  in nats; at most ln n(q), with n(q) the keys that q may see
    positional    the mean attention on the key at one offset from the query, at the offset where that is largest

Rows that may see a single key have no entropy to speak of: they are left out, and counted. The offset is looked for on queries whose token
has not been seen before in its row (there a key before a repeat would stand at an offset as well), among offsets that at least half of
these queries have.

Source: positional heads, Voita, Talbot, Moiseev, Sennrich and Titov, ACL 2019 (arXiv:1905.09418), section 5.1; entropy of heads, Clark,
Khandelwal, Levy and Manning, BlackboxNLP 2019 (arXiv:1906.04341), section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.target import device_of
from probes.token_items import TokenItems
from workbench.core.protocol import HookedModel
from workbench.core.sites import Site

Patterns = Float[Tensor, "layer batch head query key"]
Sums = Float[Tensor, "layer head batch"]


def seen_keys(model: HookedModel, items: TokenItems, sites: Sequence[Site]) -> Bool[Tensor, "layer query key"]:
    """Which keys a query may see in each layer, padding aside, as the longest item's scores tell it (a masked one is as small as can be).

    A model that does not show its scores is taken at its word: all keys where it reads both ways, else those up to the query.
    """
    width = items.width
    shown = [site.name.replace("hook_pattern", "hook_attn_scores") for site in sites]
    table = model.sites()
    if not all(name in table for name in shown):
        every = torch.ones(width, width, dtype=torch.bool)
        return (every if getattr(model, "both_ways", False) else every.tril()).expand(len(sites), width, width)
    longest = int(items.lengths.argmax())
    row = slice(longest, longest + 1)
    one = TokenItems(items.ids[row], items.lengths[row], items.control[row], items.pieces[row], items.bos_added)
    trace = model.run(one.given(model, slice(0, 1), device_of(model)), capture=shown, logits=None)
    scores = torch.stack([trace[name][0].detach().cpu() for name in shown])
    return (scores > torch.finfo(scores.dtype).min / 2).any(1)


def ratio_error(sums: Float[np.ndarray, "*cell batch"], counts: Float[np.ndarray, "*#cell batch"]) -> Float[np.ndarray, "*cell"]:
    """Standard error of sum(sums) / sum(counts), items being the units drawn; NaN for fewer than two."""
    n = sums.shape[-1]
    total = np.broadcast_to(counts, sums.shape).sum(-1)
    if n < 2:
        return np.full(sums.shape[:-1], np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        residual = sums - (sums.sum(-1) / total)[..., None] * counts
        return np.sqrt(n / (n - 1) * (residual**2).sum(-1)) / total


# --- entropy --------------------------------------------------------------------------------------------------


def entropy_sums(patterns: Patterns, room: Int[Tensor, "layer batch query"]) -> tuple[Sums, Sums]:
    """Entropy (nats), and entropy as a share of its most, summed over an item's rows that may see two keys or more (``room``)."""
    counted = (room > 1)[:, :, None]
    entropy = torch.special.entr(patterns.double()).sum(-1)
    share = entropy / room.clamp_min(2).double().log()[:, :, None]
    summed = [torch.where(counted, each, 0.0).sum(-1).transpose(1, 2) for each in (entropy, share)]
    return summed[0], summed[1]


# --- position ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Offsets:
    """The offsets looked at (key minus query), the pairs counted ``[batch, query, key]``, and how many queries an item has for each."""

    offsets: tuple[int, ...]
    pairs: Bool[Tensor, "batch query key"]
    queries: Int[Tensor, "offset batch"]

    def sums(self, patterns: Patterns, part: slice) -> Float[Tensor, "offset layer head batch"]:
        """Attention at each offset, summed over the queries of the items in ``part``."""
        kept = torch.where(self.pairs[part][None, :, None], patterns.double(), 0.0)
        found = [torch.diagonal(kept, offset, -2, -1).sum(-1).transpose(1, 2) for offset in self.offsets]
        return torch.stack(found) if found else torch.zeros(0, *kept.shape[:1], kept.shape[2], kept.shape[1], dtype=torch.float64)


def offsets_of(usable: Bool[Tensor, "batch pos"], repeated: Bool[Tensor, "batch query"], seen: Bool[Tensor, "layer query key"]) -> Offsets:
    """Of the queries that are ``usable`` and not ``repeated``: the offsets that half of them or more have, to a usable key they see."""
    queries = usable & ~repeated
    pairs = queries[:, :, None] & usable[:, None, :] & seen.any(0)
    width = usable.shape[1]
    every = {offset: torch.diagonal(pairs, offset, -2, -1).sum(-1) for offset in range(1 - width, width)}
    least = int(queries.sum()) / 2
    kept = {offset: count for offset, count in every.items() if int(count.sum()) and int(count.sum()) >= least}
    return Offsets(tuple(kept), pairs, torch.stack(list(kept.values())) if kept else torch.zeros(0, len(usable), dtype=torch.long))


@dataclass(frozen=True)
class Positional:
    """Of each head its ``score`` at its best ``offset`` ``[layer, head]``, its error, the same of an even head, and the queries counted."""

    score: Float[np.ndarray, "layer head"]
    offset: Float[np.ndarray, "layer head"]
    error: Float[np.ndarray, "layer head"]
    uniform: float
    queries: int


def positional(sums: Float[np.ndarray, "offset layer head batch"], even: Float[np.ndarray, "offset batch"], of: Offsets) -> Positional:
    """The best offset of each head; NaN where no offset can be looked at. ``even`` are the sums of a head that attends evenly."""
    shape = sums.shape[1:3]
    if not of.offsets:
        nothing = np.full(shape, np.nan)
        return Positional(nothing, nothing, nothing, float("nan"), 0)
    counts = of.queries.numpy().astype(np.float64)
    total = counts.sum(1)
    means = sums.sum(-1) / total[:, None, None]
    best = means.argmax(0)
    errors = ratio_error(sums, counts[:, None, None])
    pick = lambda found: np.take_along_axis(found, best[None], 0)[0]  # noqa: E731
    offset = np.array(of.offsets, dtype=np.float64)[best]
    return Positional(pick(means), offset, pick(errors), float((even.sum(1) / total).max()), int(total.max()))
