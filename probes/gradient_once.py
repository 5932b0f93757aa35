"""What the two one-pass attributions share: a spec, and the gradient at the input itself."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from probes.places import Places, is_own_batch, place_gradients, read_places, stack_of
from probes.target import Quantity, Target, embeddings_of, gradients_of, read_target, values_of
from probes.token_items import TokenItems, read_items, rows_a_pass, slices
from workbench.core.batch import EncoderBatch
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.spec import Spec

ANSWERS = ("tokens", "pixels", "pairs", "sequences", "noise")
"""What models read that can be asked about one answer: a token, a class, a pair, or one value of a predicted image."""


class GradientSpec(Spec):
    """What is explained."""

    quantity: Quantity = Field(default="logit", description="the scalar explained; 'logit-difference' is target minus foil")
    position: int | None = Field(
        default=None, description="whose logits are read: None is each item's last real token, negative counts from it"
    )
    stack: str = Field(default="", description="whose input is asked about, in a family of several stacks; '' is the first")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    tokens_a_pass: int = Field(default=16384, ge=1, description="tokens in one forward pass at most")


def gradient_at_input(
    model: HookedModel, inputs: Inputs, spec: GradientSpec, progress: Progress
) -> tuple[TokenItems | Places, Target, Tensor, Tensor, Tensor]:
    """Items, target, embeddings ``[batch, pos, d_model]``, gradient of the same shape, and the target's scalar ``[batch]``.

    Items are tokens, or the positions of one stack where the batch is of the family's own type.
    """
    stack = stack_of(model, spec.stack)
    if is_own_batch(model, inputs.batch):
        places = read_places(model, inputs, stack)
        target, x, gradient, value = place_gradients(model, places, inputs, spec.quantity, spec.position)
        progress(len(places), len(places), "items")
        return places, target, x, gradient, value
    items = read_items(model, inputs, bos=spec.bos)
    if getattr(model, "both_ways", False):
        places = Places(EncoderBatch(items.ids, mask=items.real), stack, items.pieces, items.control)
        target, x, gradient, value = place_gradients(model, places, inputs, spec.quantity, spec.position)
        progress(len(places), len(places), "items")
        return places, target, x, gradient, value
    target = read_target(model, items, inputs, spec.quantity, spec.position)
    x = embeddings_of(model, items.ids, spec.tokens_a_pass)
    parts = []
    for part in slices(len(items), rows_a_pass(spec.tokens_a_pass, items.ids.shape[1])):
        parts.append(gradients_of(model, items.ids[part], x[part], target.rows(part)))
        progress(part.stop, len(items), "items")
    return items, target, x, torch.cat(parts), values_of(model, items.ids, x, target, spec.tokens_a_pass)
