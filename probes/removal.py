"""What stands where a position was taken away. The choice is named, since it changes the numbers.

``zero``   the zero embedding.
``token``  the embedding of one id: given, or the tokenizer's mask id, or its padding id.
``mean``   the mean embedding of all items' positions that are no control tokens.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from probes.asked import Asked
from probes.places import Places
from probes.target import device_of, embeddings_of
from probes.token_items import TokenItems, vocabulary_size
from workbench.core.batch import EncoderBatch
from workbench.core.errors import BadValue

Replacement = Literal["zero", "token", "mean"]


def replacement_of(asked: Asked, name: Replacement, given: int | None = None) -> tuple[Float[Tensor, "batch pos d_model"], str]:
    """The embeddings that take the place of what is removed, and a sentence about them. Raises BadValue for what is missing."""
    if name != "token" and given is not None:
        raise BadValue("filler_id", given, f"left out for the filler '{name}'", do="Ask for 'token' to use it.")
    if name == "zero":
        return torch.zeros_like(asked.x), "Removed means: the zero embedding in its place."
    if name == "mean":
        mean = asked.x[asked.features.to(asked.x.device)].double().mean(0).to(asked.x)
        return mean.expand_as(asked.x), "Removed means: the mean embedding of all items' positions in its place."
    return _token(asked, given)


def _token(asked: Asked, given: int | None) -> tuple[Tensor, str]:
    model, items = asked.model, asked.items
    if isinstance(items, Places) and not isinstance(items.batch, EncoderBatch):
        raise BadValue("filler", "token", "'zero' or 'mean' where positions are not the ids of one text")
    tokenizer = model.tokenizer
    held = [getattr(tokenizer, name, None) for name in ("mask_id", "pad_id")] if tokenizer is not None else []
    neutral = given if given is not None else next((one for one in held if one is not None), None)
    if neutral is None:
        raise BadValue("filler_id", None, "a token id, since this model's tokenizer offers no mask or padding id")
    size = vocabulary_size(model)
    if neutral < 0 or (size is not None and neutral >= size):
        raise BadValue("filler_id", neutral, f"from 0 to {size - 1 if size is not None else '…'}, the model's vocabulary")
    words = f"Removed means: the token {neutral} in its place."
    if isinstance(items, TokenItems):
        return embeddings_of(model, torch.full_like(items.ids, neutral), asked.tokens_a_pass), words
    assert isinstance(items.batch, EncoderBatch)
    batch = EncoderBatch(torch.full_like(items.batch.tokens, neutral), mask=items.batch.mask, types=items.batch.types)
    found = Places(batch, items.stack, items.pieces, items.controls).passes(device_of(model))
    return torch.cat([model.run(part, capture=asked.site, logits=None)[asked.site].detach() for _, part in found]), words
