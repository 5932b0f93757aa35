"""Where a path of integrated gradients starts. The choice changes the ranking, so it is named and shown.

``zero``           the zero vector at every position.
``unknown-token``  content tokens replaced by one neutral id.
``template-mean``  content tokens replaced by the mean embedding of the same slot in the other sentences of the template.
``token``          a batch of reference ids, compared position by position.

The last three leave the frame at its own value, so a frame token's attribution is zero by construction and only
content tokens are candidates. ``probes.slots`` says how ``inputs.labels`` tells content and slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.slots import Filled, content_of, slot_means, slot_names, template_names
from probes.target import embeddings_of
from probes.token_items import TokenItems, control_ids, read_items, vocabulary_size
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
    bos: bool,
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
    return _template_mean(model, items, inputs, x, bos, tokens_a_pass)


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
    content = content_of(slot_names(items, inputs.labels))
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


def _template_mean(model: HookedModel, items: TokenItems, inputs: Inputs, x: Tensor, bos: bool, tokens_a_pass: int) -> Baseline:
    names = slot_names(items, inputs.labels)
    content = content_of(names)
    if inputs.reference is not None and not isinstance(inputs.reference, Inputs):
        given = torch.as_tensor(inputs.reference)
        if not given.is_floating_point() or given.shape != x.shape:
            raise BadValue(
                "inputs.reference", f"{given.dtype} of shape {tuple(given.shape)}",
                f"an Inputs with the template's other sentences, or baseline embeddings of shape {tuple(x.shape)}",
            )  # fmt: skip
        if not bool(torch.isfinite(given).all()):
            raise BadValue("inputs.reference", "NaN or infinity in the embeddings", "finite numbers")
        note = _frame_note("content tokens replaced by the given embeddings", content)
        return Baseline(_blend(content, given.to(x), x), content, (note,))
    here = Filled(names, template_names(items, inputs.groups, "inputs.groups"), x)
    if inputs.reference is None:
        note = _frame_note("content tokens replaced by the mean embedding of their slot over the template's other sentences", content)
        return Baseline(_blend(content, slot_means(here, None), x), content, (note,))
    pool = read_items(model, inputs.reference, bos=bos)
    templates = template_names(pool, inputs.reference.groups, "inputs.reference.groups")
    there = Filled(slot_names(pool, inputs.reference.labels), templates, embeddings_of(model, pool.ids, tokens_a_pass))
    note = _frame_note(f"content tokens replaced by the mean embedding of their slot over {len(pool)} reference sentences", content)
    return Baseline(_blend(content, slot_means(here, there), x), content, (note,))


def _blend(moved: Tensor, start: Tensor, x: Tensor) -> Tensor:
    return torch.where(moved.to(x.device)[..., None], start.to(x), x)
