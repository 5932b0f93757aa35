"""Positions of any stack of any family: tokens, patches, mel frames, the steps of a decoder; and the scalar asked about there.

Token models are read by ``token_items``; here the batch is one of the family's own type, whose rows are run as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.target import Quantity, Target, device_of
from workbench.core.batch import Batch, EncoderBatch, ImageBatch, TokenBatch
from workbench.core.errors import BadValue, UnknownName
from workbench.core.protocol import HookedModel, Inputs, Replace
from workbench.core.sites import Site

ROWS = 32
"""Items in one forward pass."""


@dataclass(frozen=True)
class Places:
    """The items of a batch as positions of one stack; ``pieces`` ``[batch, pos]`` names them, '' at padding."""

    batch: Batch
    stack: str
    pieces: np.ndarray
    controls: Bool[Tensor, "batch pos"] | None = None

    @property
    def real(self) -> Bool[Tensor, "batch pos"]:
        """True at real positions."""
        return torch.from_numpy(self.pieces != "")

    @property
    def control(self) -> Bool[Tensor, "batch pos"]:
        """True at what is the same in every item: control tokens of a tokenizer, the class or begin token before patches."""
        return self.controls if self.controls is not None else torch.zeros(self.pieces.shape, dtype=torch.bool)

    @property
    def lengths(self) -> Int[Tensor, " batch"]:
        """Real positions an item."""
        return self.real.sum(1)

    @property
    def ends(self) -> Int[Tensor, " batch"]:
        """Each item's last real position; padding may lie before it."""
        return self.width - 1 - self.real.flip(1).int().argmax(1)

    @property
    def width(self) -> int:
        """Positions of the longest item."""
        return self.pieces.shape[1]

    def __len__(self) -> int:
        return self.pieces.shape[0]

    def passes(self, device: torch.device, *, together: bool = False) -> Iterator[tuple[slice, Batch]]:
        """The batch in parts of at most ``ROWS`` rows, or whole where rows are answers to each other (``together``)."""
        size = len(self) if together else ROWS
        for start in range(0, len(self), size):
            part = slice(start, min(len(self), start + size))
            yield part, self.batch.rows(part).to(device)

    def data(self) -> dict[str, Any]:
        """What determines the items, for a provenance."""
        return {f"batch_{field.name}": getattr(self.batch, field.name) for field in fields(self.batch)}


def is_own_batch(model: HookedModel, given: Any) -> bool:
    """Whether ``given`` is run as it is: a batch of the family's own type, or pixels of a model that reads pixels."""
    if isinstance(given, Tensor):
        return getattr(model, "reads", "tokens") == "pixels"
    return isinstance(given, Batch) and not isinstance(given, TokenBatch) and not (
        isinstance(given, EncoderBatch) and getattr(model, "reads", "tokens") == "tokens" and given.mask is None
    )  # fmt: skip


def read_places(model: HookedModel, inputs: Inputs, stack: str) -> Places:
    """The batch of ``inputs`` as positions of ``stack``. Raises BadValue for what is no batch, or has parts of unequal numbers of rows."""
    given = inputs.batch
    if isinstance(given, Tensor):
        given = ImageBatch(given)
    if not isinstance(given, Batch):
        raise BadValue("inputs.batch", type(given).__name__, f"the batch type of a {model.family} model")
    rows = {len(value) for value in vars(given).values() if value is not None}
    if len(rows) != 1:
        raise BadValue("the rows of inputs.batch", sorted(rows), "as many of each part: position by position, items are compared")
    pieces = names_of(model, given, stack)
    return Places(given, stack, pieces, _before_picture(model, given, stack, pieces.shape))


def _before_picture(model: HookedModel, batch: Batch, stack: str, shape: tuple[int, ...]) -> Bool[Tensor, "batch pos"] | None:
    """True at the position before the first that is part of a picture: a learned token, which says nothing of an item."""
    say = getattr(model, "picture", None)
    found = say(batch.rows(slice(0, 1)), stack) if say is not None else None
    if found is None or not (first := int((found.boxes[:, 1] > found.boxes[:, 0]).int().argmax())):
        return None
    out = torch.zeros(shape, dtype=torch.bool)
    out[:, first - 1] = True
    return out


def stack_of(model: HookedModel, stack: str) -> str:
    """The stack meant by ``stack``, checked."""
    known = stacks_of(model)
    if not stack:
        return known[0]
    if stack not in known:
        raise UnknownName("stack", stack, known, where=f"of this {model.family} model")
    return stack


def stacks_of(model: HookedModel) -> list[str]:
    """The stacks that have layers, in the order they run."""
    return list(dict.fromkeys(site.stack for site in model.sites().values() if site.layer is not None))


def last_stack(model: HookedModel) -> str:
    """The stack whose positions the logits lie along."""
    return stacks_of(model)[-1]


def prefix_of(stack: str) -> str:
    """What the sites of ``stack`` begin with."""
    return f"{stack}." if stack else ""


def names_of(model: HookedModel, batch: Batch, stack: str) -> np.ndarray:
    """Names of a stack's positions ``[batch, pos]``: the model's own, or their numbers."""
    first = f"{prefix_of(stack)}blocks.0.hook_resid_pre"
    rows = next(getattr(batch, field.name) for field in fields(batch)).shape[0]
    say = getattr(model, "places", None)
    named = say(batch, stack) if say is not None else None
    if named is None:
        width = model.run(batch.rows(slice(0, 1)).to(device_of(model)), capture=first, logits=None)[first].shape[1]
        named = [[str(place) for place in range(width)]] * rows
    out = np.full((rows, max(map(len, named))), "", dtype=object)
    for row, words in enumerate(named):
        out[row, : len(words)] = words
    return out


def place_sites(model: HookedModel, stack: str, layers: Sequence[int] | None, *, cross: bool) -> tuple[Site, ...]:
    """The pattern sites of the chosen layers of a stack. Raises BadValue for a layer that is not there, or a stack that reads no other."""
    part = "cross_attn" if cross else "attn"
    every = {site.layer: site for site in model.sites().values() if site.stack == stack and site.name.endswith(f".{part}.hook_pattern")}
    if not every:
        raise BadValue("cross", cross, f"false for the stack '{stack}', which reads no other")
    chosen = list(every) if layers is None else list(layers)
    if not chosen or any(layer not in every for layer in chosen) or len(set(chosen)) != len(chosen):
        raise BadValue("layers", chosen, f"different numbers from 0 to {len(every) - 1}, at least one")
    return tuple(every[layer] for layer in chosen)


def noise_note(items: object) -> tuple[str, ...]:
    """At which steps of noise the items were looked at, where they are noisy images."""
    step = getattr(getattr(items, "batch", None), "step", None)
    if step is None:
        return ()
    low, high = int(step.min()), int(step.max())
    return (f"All at step {low} of noise (0 is the least)." if low == high else f"At steps {low} to {high} of noise (0 is the least).",)


# --- the scalar asked about -----------------------------------------------------------------------------------


def embedding_of(model: HookedModel, stack: str) -> Site:
    """Where a stack's input enters it: its first embedding site."""
    prefix = prefix_of(stack)
    found = [site for name, site in model.sites().items() if name.startswith(prefix) and name.endswith("hook_embed")]
    if not found:
        raise BadValue("the stack", stack, "one whose input is embedded")
    return found[0]


def place_target(
    logits: Tensor, inputs: Inputs, quantity: Quantity, position: int | None, count: int, ends: Tensor | None = None
) -> Target:
    """The target of ``inputs`` over ``logits`` (``[batch, answer]`` or ``[batch, pos, answer]``), checked as for tokens.

    ``position`` None is the last; where the logits lie along the positions asked about, each item's last real one (``ends``).
    """
    if logits.ndim not in (2, 3):
        raise BadValue("the shape of the logits", tuple(logits.shape), "[batch, answer] or [batch, pos, answer]")
    size = logits.shape[-1]
    ids, foils = (None if given is None else torch.as_tensor(given).long().cpu() for given in (inputs.targets, inputs.foils))
    for name, given in (("targets", ids), ("foils", foils)):
        if given is not None and (given.shape != (count,) or int(given.min()) < 0 or int(given.max()) >= size):
            raise BadValue(f"inputs.{name}", given.tolist(), f"{count} answers from 0 to {size - 1}, one an item")
    if ids is None:
        raise BadValue("inputs.targets", None, "given: one answer an item")
    if (foils is None) == (quantity == "logit-difference"):
        raise BadValue("inputs.foils", "missing" if foils is None else "given", "given exactly where the quantity is 'logit-difference'")
    if logits.ndim == 2:
        if position is not None:
            raise BadValue("position", position, "left out: this model's logits have no positions")
        return Target(quantity, ids, foils, torch.zeros(count, dtype=torch.long))
    length = logits.shape[1]
    if position is None and ends is not None:
        return Target(quantity, ids, foils, ends)
    at = length - 1 if position is None else position
    if not -length <= at < length:
        raise BadValue("position", position, f"within 0 to {length - 1}")
    return Target(quantity, ids, foils, torch.full((count,), at % length))


def answers_of(model: HookedModel, stack: str, last: str, quantity: Quantity) -> tuple[bool, Callable[[Tensor], Tensor]]:
    """Whether items are answers to each other, and the logits of a stack's items with one axis of answers.

    Where there is a logit for each image and text, the answers to one are the others. The values of predicted images ``[batch, channel,
    height, width]`` are numbered channel by channel, row by row.
    """
    axes = model.sites()["unembed.hook_logits"].axes if "unembed.hook_logits" in model.sites() else ()
    if "pair" in axes:  # the rows are the last stack's items
        return True, (lambda logits: logits) if stack == last else (lambda logits: logits.T)
    if "height" in axes:
        if quantity == "logprob":
            raise BadValue("quantity", quantity, "'logit' or 'logit-difference': predicted pixels are not answers to choose from")
        return False, lambda logits: logits.flatten(1)
    return False, lambda logits: logits


def place_gradients(
    model: HookedModel, places: Places, inputs: Inputs, quantity: Quantity, position: int | None
) -> tuple[Target, Float[Tensor, "batch pos d_model"], Float[Tensor, "batch pos d_model"], Float[Tensor, " batch"]]:
    """Target, embeddings of the stack, the gradient of each item's scalar there, and the scalar. No parameter's ``.grad`` is touched."""
    site = embedding_of(model, places.stack)
    device = device_of(model)
    last = [one.stack for one in model.sites().values() if one.layer is not None][-1]  # logits lie along the last stack's positions
    paired, answers = answers_of(model, places.stack, last, quantity)
    first = model.run(places.batch.rows(slice(0, len(places) if paired else 1)).to(device)).logits
    assert first is not None
    along = first.ndim == 3 and places.stack == last and first.shape[1] == places.width
    target = place_target(answers(first), inputs, quantity, position, len(places), places.ends if along else None)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for part, batch in places.passes(device, together=paired):
        x = model.run(batch, capture=site, logits=None)[site].detach()
        with torch.enable_grad():
            leaf = x.clone().requires_grad_(True)
            logits = model.run(batch, edit=[Replace(site, value=leaf)], grad=True).logits
            assert logits is not None
            wanted, logits = target.rows(part), answers(logits)
            if logits.ndim == 3:
                logits = logits[torch.arange(len(logits)), wanted.positions.to(logits.device)]
            scalar = wanted.read(logits)
            (gradient,) = torch.autograd.grad(scalar.sum(), leaf)
        parts.append((x.cpu(), gradient.cpu(), scalar.detach().cpu()))
    x, gradient, value = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    if not bool(torch.isfinite(value).all()):
        raise BadValue("the target's value", "NaN or infinity", "finite", do="The model's weights are broken.")
    return target, x, gradient, value
