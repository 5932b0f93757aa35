"""What a patch is judged by: one number an item, read from the logits at one position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from probes.target import Quantity, Target
from workbench.core.errors import BadValue

PatchQuantity = Literal["logit", "logprob", "probability", "logit-difference", "kl"]
Read = Callable[[Tensor], Tensor]
"""``metric(logits)``: ``[batch, answer]`` at each item's position to ``[batch]``."""


def target_quantity(quantity: PatchQuantity) -> Quantity:
    """The quantity whose target is needed."""
    return "logprob" if quantity in ("probability", "kl") else quantity


@dataclass(frozen=True)
class Metric:
    """``quantity`` of ``target``, or ``own``. ``reference`` ``[batch, answer]`` are the log-probabilities that ``kl`` compares with,
    KL(clean ‖ patched) in nats; ``answers`` turns a family's logits into one axis of answers."""

    quantity: PatchQuantity
    target: Target
    answers: Callable[[Tensor], Tensor]
    own: Read | None = None
    reference: Float[Tensor, "batch answer"] | None = None

    def rows(self, chosen: slice) -> Metric:
        """The metric of the chosen items."""
        return replace(self, target=self.target.rows(chosen), reference=None)

    def at(self, logits: Tensor) -> Float[Tensor, "batch answer"]:
        """The logits at each item's position; ``logits`` are already those of the position asked for, where there are positions."""
        found = self.answers(logits)
        return found[:, 0] if found.ndim == 3 else found

    def compared_with(self, logits: Tensor) -> Metric:
        """The same against the answers of the clean run."""
        return replace(self, reference=_logprobs(self.at(logits)))

    def __call__(self, logits: Tensor) -> Float[Tensor, " batch"]:
        here = self.at(logits)
        if self.own is not None:
            value = self.own(here)
            if not isinstance(value, Tensor) or tuple(value.shape) != (len(here),):
                found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise BadValue("the metric's result", found, f"a tensor of shape ({len(here)},): one number an item")
            return value
        if self.quantity == "kl":
            assert self.reference is not None, "the clean run comes first"
            return (self.reference.exp() * (self.reference - _logprobs(here))).sum(-1)
        if self.quantity == "probability":
            return self.target.read(here).exp()
        return self.target.read(here)


def _logprobs(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
