"""Distributed alignment search: the few directions of an activation along which exchanging it gives the counterfactual answer.

    minimise over Q:  mean over pairs of  -log softmax(answers after the exchange along Q)[counterfactual]

An exchange depends on the span of Q alone, so of the rotation of the whole activation only its first columns are learned: the orthonormal
factor of a free matrix (QR), which is differentiable and needs no constraint. Adam, with a rate that falls to nothing in a line.

Source: Geiger, Wu, Potts, Icard and Goodman, Finding Alignments Between Interpretable Causal Variables and Distributed Neural
Representations, CLeaR 2024 (arXiv:2303.02536).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.interchange_runs import Held, Pairs, answers_after, device_and_dtype
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel


@dataclass(frozen=True)
class Search:
    """How directions are searched for: how many, steps, pairs a step, rate, starts, seed."""

    dims: int
    steps: int
    pairs: int
    lr: float
    starts: int
    seed: int


@dataclass(frozen=True)
class Found:
    """``along`` ``[feature, dim]`` of the start that ended with the least loss (nats, over all pairs fitted)."""

    along: Float[Tensor, "feature dim"]
    loss: float


def search(
    model: HookedModel,
    pairs: Pairs,
    rows: Int[Tensor, " row"],
    held: Held,
    how: Search,
    within: Float[Tensor, "feature axis"] | None = None,
) -> Found:
    """Search with the pairs ``rows``; ``within`` has orthonormal columns that the directions stay in the span of (None: anywhere).

    Columns of zeros stand for coordinates that are no part of the activation: what is exchanged along them reaches nothing.
    Raises BadValue where the loss is not finite. No parameter's ``.grad`` is touched.
    """
    best: Found | None = None
    for start in range(how.starts):
        along = _descend(model, pairs, rows, held, how, within, torch.Generator().manual_seed(how.seed + 7919 * start))
        with torch.no_grad():
            losses = [_loss(model, pairs, part, held, along) * len(part) for part in pairs.parts(rows)]
        found = Found(along, float(torch.stack(losses).sum()) / len(rows))
        if best is None or found.loss < best.loss:
            best = found
    assert best is not None, "a search has at least one start"
    return best


def _descend(
    model: HookedModel, pairs: Pairs, rows: Tensor, held: Held, how: Search, within: Tensor | None, draw: torch.Generator
) -> Float[Tensor, "feature dim"]:  # fmt: skip
    device, dtype = device_and_dtype(model, held)
    axes = held.source.shape[-1] if within is None else within.shape[1]
    free = torch.randn(axes, how.dims, generator=draw, dtype=torch.float64).to(device, dtype).requires_grad_(True)
    optimizer = torch.optim.Adam([free], lr=how.lr)
    for step in range(how.steps):
        some = rows[torch.randperm(len(rows), generator=draw)[: how.pairs]]
        with torch.enable_grad():
            loss = _loss(model, pairs, some, held, directions(free, within), grad=True)
            (free.grad,) = torch.autograd.grad(loss, [free])
        if not bool(loss.isfinite()):
            raise BadValue(f"the loss at step {step + 1}", float(loss), "finite", do="Lower lr, or look for NaN in the model's weights.")
        for group in optimizer.param_groups:
            group["lr"] = how.lr * (1 - step / how.steps)
        optimizer.step()
    return directions(free.detach(), within)


def directions(free: Float[Tensor, "axis dim"], within: Float[Tensor, "feature axis"] | None = None) -> Float[Tensor, "feature dim"]:
    """Orthonormal columns with the span of those of ``free`` (in the coordinates of ``within``)."""
    q = torch.linalg.qr(free).Q
    return q if within is None else within.to(q.device, q.dtype) @ q


def _loss(
    model: HookedModel, pairs: Pairs, rows: Tensor, held: Held, along: Tensor, *, grad: bool = False
) -> Float[Tensor, ""]:  # fmt: skip
    logits = answers_after(model, pairs, rows, held, along, grad=grad)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.nn.functional.cross_entropy(logits, pairs.wanted[rows].to(logits.device))


def overlap(ours: Float[Tensor, "feature dim"], theirs: Float[Tensor, "feature axis"]) -> float:
    """The cosine of the largest angle between two spans of orthonormal columns (of the smaller one with the larger): 1 where one holds
    the other, and for single directions the size of their cosine."""
    return float(torch.linalg.svdvals(ours.double().cpu().T @ theirs.double().cpu()).min())
