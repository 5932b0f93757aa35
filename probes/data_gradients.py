"""Gradients of single training samples beside the gradient of a question: exact, and in bounded memory.

Of any family one sample at a time: only the question's gradient and one sample's are held, whatever the number of samples, so that no
projection is needed. Where a row's tokens are predicted one from the next and only products are asked for, whole batches go at once: the
product of a row's gradient with G is how fast its loss changes along G, which forward-mode differentiation gives for all rows of a pass.
The loss is the family's own (``model.loss``), so a sample's gradient is what the training added up.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn import functional

from probes.data_rows import Rows
from workbench.core.batch import IGNORE, TokenBatch
from workbench.core.errors import BadValue, EmptySelection


@dataclass(frozen=True)
class Compared:
    """By training row: the dot product of its gradient with the question's, the size of its gradient, and its loss (nats, summed over what
    is predicted of it); and the size of the question's gradient and its loss."""

    dot: Float[np.ndarray, " row"]
    norm: Float[np.ndarray, " row"]
    loss: Float[np.ndarray, " row"]
    question_norm: float
    question_loss: float

    @property
    def cosine(self) -> Float[np.ndarray, " row"]:
        """The cosine of each row's gradient with the question's; 0 where either has no size."""
        size = self.norm * self.question_norm
        return np.divide(self.dot, size, out=np.zeros_like(self.dot), where=size > 0)


def chosen_parameters(model: Any, patterns: tuple[str, ...]) -> dict[str, Tensor]:
    """The learned parameters that match. Raises EmptySelection for a pattern that matches none."""
    every = {name: value for name, value in model.named_parameters() if value.requires_grad}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in every):
            raise EmptySelection("learned parameter", pattern, every, where="this model")
    return {name: value for name, value in every.items() if any(fnmatchcase(name, pattern) for pattern in patterns)}


def compare(
    model: Any, rows: Rows, question: Callable[[Any], Float[Tensor, ""]], patterns: tuple[str, ...], tell: Callable[[int], None]
) -> Compared:
    """Every row against ``question(model)``, a loss in the graph, one row at a time. ``tell`` hears how many rows are done.

    Raises BadValue where a gradient or loss is not finite, or the question's gradient has no size. No parameter's ``.grad`` is touched.
    """
    named = chosen_parameters(model, patterns)
    asked, goal = _question(model, question, named)
    flat = torch.cat([one.flatten().double() for one in goal.values()])
    found = np.zeros((3, len(rows)))
    for number, row in enumerate(rows.each()):
        with torch.enable_grad():
            loss, _ = model.loss(row.to(flat.device))
            gradient = torch.cat([one.flatten().double() for one in _gradient(loss, named).values()])
        found[:, number] = float(gradient @ flat), float(gradient.norm()), float(loss.detach())
        if not np.isfinite(found[:, number]).all():
            raise BadValue(f"the gradient of training row {rows.numbers[number]}", "NaN or infinity", "finite")
        tell(1)
    return Compared(*found, question_norm=float(flat.norm()), question_loss=asked)


def products(
    model: Any, rows: Rows, question: Callable[[Any], Float[Tensor, ""]], patterns: tuple[str, ...], tell: Callable[[int], None]
) -> Float[np.ndarray, " row"]:
    """``compare(…).dot`` alone, by whole batches where that can be done. Raises as it does."""
    named = chosen_parameters(model, patterns)
    goal = {f"model.{name}": one for name, one in _question(model, question, named)[1].items()}
    here = {f"model.{name}": value.detach() for name, value in named.items()}
    along, found = _RowLosses(model), []
    for batch in rows.batches():
        made = _along(along, here, goal, batch)
        if made is None:
            return compare(model, rows, question, patterns, tell if not found else lambda done: None).dot
        found.append(made.double().cpu().numpy())
        tell(len(made))
    return np.concatenate(found)


class _RowLosses(nn.Module):
    """The loss of each row of a batch whose tokens are predicted one from the next."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: TokenBatch) -> Float[Tensor, " row"]:
        """Nats, summed over what is predicted. Patterns are listened to, since the kernel that makes none has no forward mode."""
        logits = self.model.run(batch, capture="*hook_pattern", grad=True).logits
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, 1)
        wanted = batch.targets.to(wide.device)
        return functional.cross_entropy(wide, wanted.flatten(), ignore_index=IGNORE, reduction="none").view(wanted.shape).sum(1)


def _along(losses: _RowLosses, here: dict[str, Tensor], goal: dict[str, Tensor], batch: Any) -> Float[Tensor, " row"] | None:
    """How fast each row's loss changes along ``goal``; None where a batch is no such rows, its losses are not what the family's own loss
    says, something is not finite, or something in the model has no forward mode."""
    if not isinstance(batch, TokenBatch) or getattr(losses.model, "both_ways", False) or batch.segments is not None:
        return None
    batch = batch.to(next(iter(here.values())).device)
    try:
        with warnings.catch_warnings():  # torch's forward mode loads, at its first use, parts of torch that it calls deprecated
            warnings.simplefilter("ignore", DeprecationWarning)
            made: Any = jvp(lambda some: functional_call(losses, some, (batch,)), (here,), (goal,))
    except (NotImplementedError, EmptySelection):
        return None
    loss, found = made
    with torch.no_grad():
        own, _ = losses.model.loss(batch)
    close = torch.isclose(loss.detach().sum().double(), own.double(), rtol=1e-4)
    return found.detach() if bool(close) and bool(found.isfinite().all()) else None


def _question(model: Any, question: Callable[[Any], Float[Tensor, ""]], named: dict[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
    """The question's loss and its gradient."""
    with torch.enable_grad():
        asked = question(model)
        goal = _gradient(asked, named)
    if not bool(asked.isfinite()) or not all(bool(one.isfinite().all()) for one in goal.values()):
        raise BadValue("the question's gradient", "NaN or infinity", "finite", do="The model's weights are broken.")
    if not any(bool(one.any()) for one in goal.values()):
        raise BadValue("the question's gradient", "zero in the parameters chosen", "of some size", do="Choose other `parameters`.")
    return float(asked.detach()), goal


def _gradient(loss: Tensor, named: dict[str, Tensor]) -> dict[str, Tensor]:
    """By parameter; zeros for one that the loss does not reach."""
    parts = torch.autograd.grad(loss, list(named.values()), allow_unused=True) if loss.requires_grad else [None] * len(named)
    return {name: torch.zeros_like(p) if g is None else g.detach() for (name, p), g in zip(named.items(), parts, strict=True)}


# --- how well a ranking finds what is labelled ------------------------------------------------------------------------


def precisions(scores: Float[np.ndarray, " row"], labelled: np.ndarray) -> Float[np.ndarray, " positive"]:
    """For each labelled row, the share of labelled ones among the rows that score at least as high: their mean is the average precision."""
    order = np.sort(scores)
    above = len(scores) - np.searchsorted(order, scores[labelled], side="left")
    own = np.sort(scores[labelled])
    right = len(own) - np.searchsorted(own, scores[labelled], side="left")
    return right / above


def chance_of(rows: int, positives: int) -> float:
    """The mean average precision of random rankings without equal scores."""
    if rows == 1:
        return 1.0
    share = (positives - 1) / (rows - 1)
    return float(share + (1 - share) * np.sum(1 / np.arange(1, rows + 1)) / rows)


def chance_interval(rows: int, positives: int, level: float, draws: int, seed: int) -> tuple[float, float]:
    """The middle ``level`` of the average precisions of random rankings, by drawing."""
    rng = np.random.default_rng([seed, 6])
    found = []
    for _ in range(draws):
        ranks = np.sort(rng.choice(rows, positives, replace=False)) + 1
        found.append(np.mean(np.arange(1, positives + 1) / ranks))
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
