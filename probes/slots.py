"""Slots: which tokens of a sentence are content, and what else its template puts in their place.

``labels`` ``[batch, pos]`` tells it in one of three ways: slot names as strings ('' at the frame; rows may be shorter than
the batch), slot numbers from 1 (0 at the frame), or a mask, in which the k-th run of neighbouring content tokens is slot k.
Without labels every real token but control tokens is content, and its slot is its position.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.places import Places
from probes.token_items import TokenItems
from workbench.core.errors import BadValue


def slot_names(items: TokenItems | Places, labels: Any) -> np.ndarray:
    """``[batch, pos]`` objects: the slot of each content token, None at the frame.

    Raises BadValue for labels of another shape or kind, content at padding or control tokens, and an item without content.
    """
    free = (items.real & ~items.control).numpy()
    names = np.full(free.shape, None, dtype=object)
    if labels is None:
        names[free] = np.broadcast_to(np.arange(free.shape[1]), free.shape)[free]
    else:
        given = _array(labels, free.shape)
        if given.dtype == bool:
            starts = given & ~np.pad(given, ((0, 0), (1, 0)))[:, :-1]
            given = np.cumsum(starts, axis=1) * given
        if given.dtype.kind == "i" and (given < 0).any():
            raise BadValue("a slot number of inputs.labels", int(given.min()), "0 (frame) or more")
        content = given != "" if given.dtype.kind == "U" else given > 0
        if (content & ~free).any():
            raise BadValue("inputs.labels", "content at padding or at a control token", "content at real tokens only")
        names[content] = given[content].tolist()
    if len(bare := np.flatnonzero(~content_of(names).numpy().any(1))):
        raise BadValue("inputs.labels", f"item {int(bare[0])} without content", "at least one content token an item")
    return names


def content_of(names: np.ndarray) -> Bool[Tensor, "batch pos"]:
    """True at content tokens."""
    return torch.tensor([[name is not None for name in row] for row in names])


def template_names(items: TokenItems, groups: Sequence[Hashable] | None, field: str) -> list[Hashable]:
    """The template of each item; raises BadValue unless there is one for every item."""
    if groups is None or len(groups) != len(items):
        raise BadValue(field, None if groups is None else len(groups), f"{len(items)} template names, one an item")
    return list(groups)


@dataclass(frozen=True)
class Filled:
    """Sentences as filled templates: slot names ``[batch, pos]``, the template of each, and embeddings ``[batch, pos, d_model]``."""

    names: np.ndarray
    templates: list[Hashable]
    embeddings: Tensor

    def cells(self, codes: dict[Hashable, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Row, position and cell number of every content token; ``codes`` numbers the (template, slot) cells as they appear."""
        row, pos = content_of(self.names).nonzero(as_tuple=True)
        pairs = [(self.templates[r], self.names[r, p]) for r, p in zip(row.tolist(), pos.tolist(), strict=True)]
        return row, pos, torch.tensor([codes.setdefault(pair, len(codes)) for pair in pairs])

    def at(self, row: Tensor, pos: Tensor) -> Tensor:
        return self.embeddings[row.to(self.embeddings.device), pos.to(self.embeddings.device)].double().cpu()


def slot_means(here: Filled, pool: Filled | None) -> Float[Tensor, "batch pos d_model"]:
    """The embeddings of ``here`` with each content token replaced by the mean of its (template, slot).

    The mean is over the tokens that ``pool`` has in that cell or, without a pool, over those of the *other* items: what an
    item itself puts into its slot, one token or several pieces, is taken out. Raises BadValue where there is none.
    """
    codes: dict[Hashable, int] = {}
    row, pos, cell = here.cells(codes)
    own = here.at(row, pos)
    if pool is None:
        both, index = torch.unique(torch.stack([row, cell]), dim=1, return_inverse=True)
        total, count = _sums(cell, own, len(codes))
        mine, n_mine = _sums(index, own, both.shape[1])
        total, count = total[cell] - mine[index], count[cell] - n_mine[index]
    else:
        other_row, other_pos, other_cell = pool.cells(codes)
        total, count = _sums(other_cell, pool.at(other_row, other_pos), len(codes))
        total, count = total[cell], count[cell]
    if len(alone := (count == 0).nonzero()):
        first = int(alone[0, 0])
        slot, template = here.names[row[first], pos[first]], here.templates[int(row[first])]
        raise BadValue(
            f"the number of other sentences with slot {slot!r} of template {template!r} (item {int(row[first])})", 0, "at least 1",
            do="Give more sentences, or a pool of them as inputs.reference.",
        )  # fmt: skip
    out = here.embeddings.clone()
    out[row.to(out.device), pos.to(out.device)] = (total / count[:, None]).to(out)
    return out


def _sums(index: Tensor, vectors: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Sum and number of the vectors at each index, in float64."""
    return torch.zeros(n, vectors.shape[1], dtype=torch.float64).index_add_(0, index, vectors), torch.bincount(index, minlength=n)


def _array(labels: Any, shape: tuple[int, ...]) -> np.ndarray:
    if isinstance(labels, Sequence) and len(labels) == shape[0] and all(isinstance(name, str) for row in labels for name in row):
        labels = np.array([[*row, *[""] * (shape[1] - len(row))] for row in labels]) if max(map(len, labels)) <= shape[1] else labels
    given = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels, dtype=None)
    if given.shape != shape or given.dtype.kind not in "biuU":
        raise BadValue("inputs.labels", f"{given.dtype} of shape {given.shape}", f"a content mask, slot numbers or slot names, {shape}")
    return given.astype(np.int64) if given.dtype.kind in "iu" else given
