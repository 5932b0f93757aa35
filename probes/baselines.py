"""Where a path of integrated gradients starts. The choice changes the ranking, so it is named and shown.

``zero``           the zero vector at every position.
``unknown-token``  content tokens replaced by one neutral id.
``template-mean``  content tokens replaced by the mean embedding of the same slot in the other sentences of the template.
``token``          a batch of reference ids, compared position by position.

The last three leave the frame at its own value, so a frame token's attribution is zero by construction and only
content tokens are candidates. Content is told by ``inputs.labels`` ``[batch, pos]``: true at content tokens, or a slot
number from 1 (0 at the frame). Without it every real token but control tokens is content.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.target import embeddings_of
from probes.token_items import TokenItems, control_ids, vocabulary_size
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel, Inputs

BaselineName = Literal["zero", "unknown-token", "template-mean", "token"]


@dataclass(frozen=True)
class Baseline:
    """Start of the path for each item; ``moved`` is true where it can differ from the item itself."""

    embeddings: Float[Tensor, "batch pos d_model"]
    moved: Bool[Tensor, "batch pos"]
    notes: tuple[str, ...]


def make_baseline(
    name: BaselineName,
    model: HookedModel,
    items: TokenItems,
    inputs: Inputs,
    x: Float[Tensor, "batch pos d_model"],
    *,
    neutral_id: int | None,
    tokens_a_pass: int,
) -> Baseline:
    """The baseline ``name`` for embeddings ``x`` of ``items``. Raises BadValue for what it needs and did not get."""
    if name == "zero":
        if inputs.reference is not None:
            raise BadValue("inputs.reference", "given", "left out for the baseline 'zero'")
        return Baseline(torch.zeros_like(x), items.real, ("Baseline: the zero embedding at every token, control tokens included.",))
    if name == "unknown-token":
        return _unknown(model, items, inputs, x, neutral_id, tokens_a_pass)
    if name == "token":
        return _token(model, items, inputs, x, tokens_a_pass)
    return _template_mean(items, inputs, x)


def slots_of(items: TokenItems, labels: object) -> Int[Tensor, "batch pos"]:
    """Slot number of each token, 0 at the frame, from ``inputs.labels`` (None, a boolean mask, or slot numbers).

    In a mask, the k-th run of neighbouring content tokens is slot k. Raises BadValue for another shape, a negative
    number, content at padding or control tokens, and an item without content.
    """
    if labels is None:
        numbers = torch.arange(1, items.ids.shape[1] + 1).expand_as(items.ids)
        slots = torch.where(items.real & ~items.control, numbers, 0)
    else:
        given = torch.as_tensor(labels).cpu()
        if given.shape != items.ids.shape or given.is_floating_point():
            raise BadValue(
                "inputs.labels", f"{given.dtype} of shape {tuple(given.shape)}", f"a content mask or slot numbers, {tuple(items.ids.shape)}"
            )
        if given.dtype == torch.bool:
            starts = given & ~torch.nn.functional.pad(given, (1, 0))[:, :-1]
            given = starts.long().cumsum(1) * given
        if bool((given < 0).any()):
            raise BadValue("a slot number of inputs.labels", int(given.min()), "0 (frame) or more")
        if bool(((given > 0) & (~items.real | items.control)).any()):
            raise BadValue("inputs.labels", "content at padding or at a control token", "content at real tokens only")
        slots = given.long()
    if bool((slots.amax(1) == 0).any()):
        raise BadValue(
            "inputs.labels", f"item {int((slots.amax(1) == 0).nonzero()[0, 0])} without content", "at least one content token an item"
        )
    return slots


def _frame_note(what: str, moved: Tensor) -> str:
    counts = moved.sum(1)
    chance = float((1 / counts.double()).mean())
    return (
        f"Baseline: {what}. Every other token keeps its own embedding, so its attribution is zero by construction: "
        f"{int(counts.min())} to {int(counts.max())} candidates an item, a chance of {chance:.3f} of coming first."
    )


def _unknown(model: HookedModel, items: TokenItems, inputs: Inputs, x: Tensor, neutral_id: int | None, tokens_a_pass: int) -> Baseline:
    if inputs.reference is not None:
        raise BadValue("inputs.reference", "given", "left out for the baseline 'unknown-token'")
    tokenizer = model.tokenizer
    neutral = neutral_id if neutral_id is not None else tokenizer.pad_id if tokenizer is not None else None
    if neutral is None:
        raise BadValue("neutral_id", None, "a token id, since this model's tokenizer offers no padding id to fall back on")
    size = vocabulary_size(model)
    if neutral < 0 or (size is not None and neutral >= size):
        raise BadValue("neutral_id", neutral, f"from 0 to {size - 1 if size is not None else '…'}, the model's vocabulary")
    content = slots_of(items, inputs.labels) > 0
    start = embeddings_of(model, items.ids.masked_fill(content, neutral), tokens_a_pass)
    kind = "the control id" if neutral in control_ids(tokenizer) else "the id"
    return Baseline(_blend(content, start, x), content, (_frame_note(f"content tokens replaced by {kind} {neutral}", content),))


def _token(model: HookedModel, items: TokenItems, inputs: Inputs, x: Tensor, tokens_a_pass: int) -> Baseline:
    if inputs.reference is None:
        raise BadValue("inputs.reference", None, "reference ids [batch, pos] for the baseline 'token'")
    reference = torch.as_tensor(inputs.reference)
    if reference.is_floating_point() or reference.dtype == torch.bool or reference.shape not in (items.ids.shape, items.ids.shape[1:]):
        raise BadValue(
            "inputs.reference",
            f"{reference.dtype} of shape {tuple(reference.shape)}",
            f"token ids of shape {tuple(items.ids.shape)} for the baseline 'token'",
        )
    reference = reference.long().cpu().expand_as(items.ids)
    size = vocabulary_size(model)
    if int(reference.min()) < 0 or (size is not None and int(reference.max()) >= size):
        raise BadValue("a token id of inputs.reference", [int(reference.min()), int(reference.max())], f"from 0 to {size}, the vocabulary")
    moved = (reference != items.ids) & items.real
    if bool((~moved.any(1)).any()):
        raise BadValue("inputs.reference", f"item {int((~moved.any(1)).nonzero()[0, 0])} equal to its reference", "different somewhere")
    start = embeddings_of(model, torch.where(items.real, reference, items.ids), tokens_a_pass)
    return Baseline(_blend(moved, start, x), moved, (_frame_note("the reference ids where they differ", moved),))


def _template_mean(items: TokenItems, inputs: Inputs, x: Tensor) -> Baseline:
    slots = slots_of(items, inputs.labels)
    content = slots > 0
    if inputs.reference is not None:
        given = torch.as_tensor(inputs.reference)
        if not given.is_floating_point() or given.shape != x.shape:
            raise BadValue(
                "inputs.reference", f"{given.dtype} of shape {tuple(given.shape)}", f"baseline embeddings of shape {tuple(x.shape)}"
            )
        if not bool(torch.isfinite(given).all()):
            raise BadValue("inputs.reference", "NaN or infinity in the embeddings", "finite numbers")
        note = _frame_note("content tokens replaced by the given mean embeddings", content)
        return Baseline(_blend(content, given.to(x), x), content, (note,))
    if inputs.groups is None or len(inputs.groups) != len(items):
        raise BadValue("inputs.groups", None if inputs.groups is None else len(inputs.groups), f"{len(items)} template names, one an item")
    note = _frame_note("content tokens replaced by the mean embedding of their slot over the template's other sentences", content)
    return Baseline(_blend(content, _slot_means(inputs.groups, slots, x), x), content, (note,))


def _slot_means(groups: object, slots: Tensor, x: Tensor) -> Tensor:
    """For each content token, the mean embedding of its (template, slot) over the other items; raises BadValue where none is."""
    templates: dict[Hashable, int] = {}
    template = np.array([templates.setdefault(g, len(templates)) for g in groups])  # type: ignore[attr-defined]  # any sequence of hashables
    row, pos = (slots > 0).nonzero(as_tuple=True)
    cell = torch.from_numpy(template)[row] * (int(slots.max()) + 1) + slots[row, pos]
    cells, index = torch.unique(cell, return_inverse=True)
    vectors = x[row.to(x.device), pos.to(x.device)].double()
    everyone = torch.zeros(len(cells), x.shape[-1], dtype=torch.float64, device=x.device).index_add_(0, index.to(x.device), vectors)
    count = torch.bincount(index, minlength=len(cells))
    # What an item itself puts into its own slot (one token, or several pieces) is taken out: the mean is over the others.
    own_cells, own_index = torch.unique(torch.stack([row, cell]), dim=1, return_inverse=True)
    own = torch.zeros(own_cells.shape[1], x.shape[-1], dtype=torch.float64, device=x.device).index_add_(0, own_index.to(x.device), vectors)
    others = count[index] - torch.bincount(own_index, minlength=own_cells.shape[1])[own_index]
    if bool((others == 0).any()):
        lonely = int(row[others == 0][0])
        raise BadValue(
            "inputs.groups", f"item {lonely} alone with a slot of its template", "at least two sentences to every template and slot"
        )
    mean = (everyone[index.to(x.device)] - own[own_index.to(x.device)]) / others.to(x.device)[:, None]
    out = x.clone()
    out[row.to(x.device), pos.to(x.device)] = mean.to(x.dtype)
    return out


def _blend(moved: Tensor, start: Tensor, x: Tensor) -> Tensor:
    return torch.where(moved.to(x.device)[..., None], start.to(x), x)
