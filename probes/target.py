"""What an attribution explains: one scalar an item, read from the logits at one position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.token_items import TokenItems, rows_a_pass, slices, vocabulary_size
from workbench.core.errors import BadValue
from workbench.core.protocol import Edit, HookedModel, Inputs, Replace

Quantity = Literal["logit", "logprob", "logit-difference"]
EMBEDDING = "hook_embed"


@dataclass(frozen=True)
class Target:
    """Which scalar is explained: the ``quantity`` of ``ids`` (against ``foils``) at ``positions``, one each an item."""

    quantity: Quantity
    ids: Int[Tensor, "batch"]
    foils: Int[Tensor, "batch"] | None
    positions: Int[Tensor, "batch"]

    def rows(self, chosen: Tensor | slice) -> Target:
        """The same for the chosen items (repeats allowed)."""
        return Target(self.quantity, self.ids[chosen], None if self.foils is None else self.foils[chosen], self.positions[chosen])

    def read(self, logits: Float[Tensor, "batch d_vocab"]) -> Float[Tensor, "batch"]:
        """The scalar of each item from the logits at its position: logits and differences in logit units, log-probs in nats."""
        pick = lambda ids: logits.gather(1, ids.to(logits.device)[:, None])[:, 0]  # noqa: E731
        if self.quantity == "logit-difference":
            assert self.foils is not None
            return pick(self.ids) - pick(self.foils)
        if self.quantity == "logprob":
            return pick(self.ids) - logits.logsumexp(-1)
        return pick(self.ids)


def read_target(model: HookedModel, items: TokenItems, inputs: Inputs, quantity: Quantity, position: int | None) -> Target:
    """The target of ``inputs``, checked.

    ``position`` None is the last real token; a negative one counts from the end of each item's real tokens. Raises
    BadValue for ids outside the vocabulary, a missing foil, a foil equal to its target, and a position an item lacks.
    """
    ids = _ids_of("targets", inputs.targets, items, model)
    foils = None
    if quantity == "logit-difference":
        if inputs.foils is None:
            raise BadValue("inputs.foils", None, "given: a logit difference needs the id each target is contrasted with")
        foils = _ids_of("foils", inputs.foils, items, model)
        if bool((foils == ids).any()):
            raise BadValue("inputs.foils", int(foils[foils == ids][0]), "different from the item's target")
    elif inputs.foils is not None:
        raise BadValue("inputs.foils", "given", f"left out for the quantity '{quantity}'", do="Ask for 'logit-difference' to use them.")
    if position is None:
        positions = items.lengths - 1
    else:
        positions = torch.full_like(items.lengths, position) if position >= 0 else items.lengths + position
        if bool(((positions < 0) | (positions >= items.lengths)).any()):
            raise BadValue("position", position, f"within every item; the shortest has {int(items.lengths.min())} tokens")
    return Target(quantity, ids, foils, positions)


def _ids_of(field: str, given: Tensor | Sequence[int] | None, items: TokenItems, model: HookedModel) -> Tensor:
    if given is None:
        raise BadValue(f"inputs.{field}", None, "given: one token id an item")
    ids = torch.as_tensor(given)
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise BadValue(f"the dtype of inputs.{field}", str(ids.dtype), "an integer dtype: these are token ids")
    ids = ids.long().cpu()
    if ids.shape != (len(items),):
        raise BadValue(f"the shape of inputs.{field}", tuple(ids.shape), f"({len(items)},): one id an item")
    size = vocabulary_size(model)
    wrong = (ids < 0) | (ids >= size) if size is not None else ids < 0
    if bool(wrong.any()):
        raise BadValue(f"inputs.{field}", int(ids[wrong][0]), f"from 0 to {size - 1 if size is not None else '…'}, the model's vocabulary")
    return ids


# --- running ------------------------------------------------------------------------------------------------


def device_of(model: HookedModel) -> torch.device:
    """Where the model computes (CPU where it does not say)."""
    first = _first_weight(model)
    return first.device if first is not None else torch.device("cpu")


def model_dtype(model: HookedModel) -> torch.dtype:
    """The dtype of the model's weights (float32 where it does not say)."""
    first = _first_weight(model)
    return first.dtype if first is not None else torch.float32


def _first_weight(model: Any) -> Tensor | None:
    return next(iter(model.parameters()), None) if callable(getattr(model, "parameters", None)) else None


def embeddings_of(model: HookedModel, ids: Int[Tensor, "batch pos"], tokens_a_pass: int) -> Float[Tensor, "batch pos d_model"]:
    """The token embeddings (``hook_embed``) of ``ids``."""
    device, out = device_of(model), []
    for part in slices(len(ids), rows_a_pass(tokens_a_pass, ids.shape[1])):
        out.append(model.run(ids[part].to(device), capture=EMBEDDING, logits=None)[EMBEDDING].detach())
    return torch.cat(out)


def values_of(
    model: HookedModel,
    ids: Int[Tensor, "batch pos"],
    embeddings: Float[Tensor, "batch pos d_model"] | None,
    target: Target,
    tokens_a_pass: int,
) -> Float[Tensor, "batch"]:
    """The target's scalar for each item, with ``embeddings`` in place of the model's own where given; no gradients.

    Raises BadValue where it is not finite.
    """
    out = []
    for part in slices(len(ids), rows_a_pass(tokens_a_pass, ids.shape[1])):
        edits: list[Edit] = [] if embeddings is None else [Replace(EMBEDDING, value=embeddings[part])]
        out.append(_scalar(model, ids[part], edits, target.rows(part), grad=False).detach())
    values = torch.cat(out)
    if not bool(torch.isfinite(values).all()):
        raise BadValue("the target's value", f"NaN or infinity in item {int((~torch.isfinite(values)).nonzero()[0, 0])}", "finite",
                       do="The model's weights or the baseline are broken.")  # fmt: skip
    return values


def gradients_of(
    model: HookedModel, ids: Int[Tensor, "batch pos"], embeddings: Float[Tensor, "batch pos d_model"], target: Target
) -> Float[Tensor, "batch pos d_model"]:
    """d(scalar of item)/d(embedding) in one pass. No parameter's ``.grad`` is touched."""
    with torch.enable_grad():
        leaf = embeddings.detach().requires_grad_(True)
        scalars = _scalar(model, ids, [Replace(EMBEDDING, value=leaf)], target, grad=True)
        (gradient,) = torch.autograd.grad(scalars.sum(), leaf)
    return gradient


def _scalar(model: HookedModel, ids: Tensor, edits: Sequence[Edit], target: Target, *, grad: bool) -> Tensor:
    asked, where = torch.unique(target.positions, return_inverse=True)  # logits only where somebody reads them
    trace = model.run(ids.to(device_of(model)), edit=edits, logits=asked.tolist(), grad=grad)
    assert trace.logits is not None
    rows = torch.arange(len(ids), device=trace.logits.device)
    return target.read(trace.logits[rows, where.to(trace.logits.device)])
