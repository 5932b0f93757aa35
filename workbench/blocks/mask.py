"""Which token may attend to which: causal order, segments, padding and a given mask, as one value.

Where causal order is all there is, no mask is built and the fused kernel is told so; a pattern (``sparse``) builds small ones as it goes;
otherwise one bool tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.blocks.forest import Forest
from workbench.blocks.ragged import Ragged
from workbench.blocks.sparse import Pattern, Sparse


@dataclass(frozen=True)
class AttentionMask:
    """``causal``: query i sees keys up to i (as many queries as keys), nothing else to heed. ``allowed``: a bool tensor
    ``[batch or 1, 1, query, key]``, true = may attend. ``sparse``: a pattern, a forest or rows of their own
    lengths, with rules of their own. None of them: every query sees every key."""

    causal: bool = False
    allowed: Bool[Tensor, "rows 1 query key"] | None = None
    sparse: Sparse | Forest | Ragged | None = None

    def shown(self, query: int, key: int, device: torch.device) -> Bool[Tensor, "rows 1 query key"] | None:
        """The mask as a tensor also where the fused kernel needs none; None: everything is allowed."""
        if self.sparse is not None:
            return self.sparse.whole(query, key, device)
        return _earlier(query, key, device)[None, None] if self.causal else self.allowed


def _earlier(query: int, key: int, device: torch.device) -> Bool[Tensor, "query key"]:
    """Causal order with the queries at the end of the keys."""
    return torch.ones(query, key, dtype=torch.bool, device=device).tril(key - query)


def attention_mask(
    query: int,
    past: int,
    device: torch.device,
    *,
    causal: bool = True,
    segments: Int[Tensor, "batch query"] | None = None,
    valid: Bool[Tensor, "batch key"] | None = None,
    given: Bool[Tensor, "rows query key"] | None = None,
) -> AttentionMask:
    """The mask of ``query`` tokens that follow ``past`` cached ones (key axis: past, then current).

    ``segments`` (only without ``past``): equal numbers see each other. ``valid``: keys that are no padding. ``given``
    replaces the causal rule (a token tree needs its own) and is combined with the others. A query left without any key
    attends to nothing: its attention output is zero.
    """
    assert segments is None or past == 0, "the segments of cached tokens are not known"
    key = past + query
    if segments is None and valid is None and given is None:
        if not causal or query == 1:
            return AttentionMask()
        return AttentionMask(causal=True) if past == 0 else AttentionMask(allowed=_earlier(query, key, device)[None, None])
    allowed: Tensor | None = given
    if given is None and causal:
        allowed = _earlier(query, key, device)[None]
    if segments is not None:
        same = segments.unsqueeze(2) == segments.unsqueeze(1)
        allowed = same if allowed is None else allowed & same
    if valid is not None:
        allowed = valid.unsqueeze(1).expand(-1, query, -1) if allowed is None else allowed & valid.unsqueeze(1)
    assert allowed is not None, "one of the rules applies"
    return AttentionMask(allowed=allowed.unsqueeze(1))


def narrowed(mask: AttentionMask, pattern: Pattern, positions: Int[Tensor, "rows query"], past: int, key: int) -> AttentionMask:
    """``mask`` within a pattern that counts by ``positions``, for a run whose own mask or positions say that places in the row are not
    positions (a token tree); the ``past`` tokens are at 0 to ``past`` - 1."""
    before = torch.arange(past, device=positions.device).expand(len(positions), -1)
    seen = pattern.seen(positions.unsqueeze(2), torch.cat([before, positions], 1).unsqueeze(1)).unsqueeze(1)
    dense = mask.shown(positions.shape[1], key, positions.device)
    return AttentionMask(allowed=seen if dense is None else dense & seen)
