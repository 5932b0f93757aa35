"""Places on the residual stream, and the model's own read-out from any of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probes.places import prefix_of
from probes.read_out import depth_of
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel, Replace, Resume

_AFTER = ("hook_resid_mid", "hook_resid_mid_cross", "hook_resid_post")


def places_on(model: HookedModel, stack: str, layers: Sequence[int] | None, *, sublayers: bool = False) -> list[str]:
    """The stream before the first layer and after each of ``layers`` (None: all), with ``sublayers`` after each of their parts too.

    Where norms follow the sums, what stands before the first layer is left out unless it was normed: the read-out expects what a norm says.
    Raises BadValue for a layer that is not there.
    """
    table, prefix, count = model.sites(), prefix_of(stack), depth_of(model, stack)
    chosen = list(range(count)) if layers is None else list(layers)
    if not chosen or min(chosen) < 0 or max(chosen) >= count or len(set(chosen)) != len(chosen):
        raise BadValue("layers", chosen, f"different numbers from 0 to {count - 1}, at least one")
    wanted = [f"{prefix}blocks.{layer}.{word}" for layer in sorted(chosen) for word in (_AFTER if sublayers else _AFTER[-1:])]
    begins = table.additive or any(name.startswith(f"{prefix}ln_embed.") for name in table)
    return [name for name in [*([f"{prefix}blocks.0.hook_resid_pre"] if begins and 0 in chosen else []), *wanted] if name in table]


def end_of(model: HookedModel, stack: str) -> str:
    """The last place on the stream."""
    return f"{prefix_of(stack)}blocks.{depth_of(model, stack) - 1}.hook_resid_post"


def read_from(
    model: HookedModel, batch: Any, stack: str, stream: Float[Tensor, "batch pos d_model"], *, grad: bool = False
) -> Float[Tensor, "batch *rest"]:
    """The logits of a run whose last stream is ``stream``: the model's own norm, pooling and unembedding, by the same kernels.

    A model that can begin there does; another is run whole with its last stream replaced. ``batch`` None: one that needs no batch to begin.
    """
    last = end_of(model, stack)
    if "start" in getattr(model, "resumes", ()):
        logits = model.run(batch, resume=Resume(start=last, residual=stream), grad=grad).logits
    else:
        logits = model.run(batch, edit=[Replace(last, value=stream)], grad=grad).logits
    assert logits is not None, "logits were asked for"
    return logits


def positions_of(position: int | None, lengths: Tensor, width: int) -> Tensor:
    """``[batch, place]``: the positions asked about, -1 at padding. None: all; negative counts from each item's end.

    Raises BadValue for a position some item lacks.
    """
    if position is None:
        at = torch.arange(width).expand(len(lengths), width)
        return torch.where(at < lengths[:, None], at, -1)
    at = torch.full_like(lengths, position) if position >= 0 else lengths + position
    if bool(((at < 0) | (at >= lengths)).any()):
        raise BadValue("position", position, f"within every item; the shortest has {int(lengths.min())} positions")
    return at[:, None]
