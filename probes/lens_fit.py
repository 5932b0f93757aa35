"""Fitting the tuned lens: one affine map a place of the stream, so that the model's own read-out gives the model's own answers there.

    translated(h) = h + h A + scale * b        A = 0 and b = 0 at first, which is the logit lens; scale is the stream's root mean square
    loss          = KL(the model's answers || read-out(translated(h))), the mean over tokens, in nats

Adam, with a rate that falls to nothing in a line. Every so often each map is scored on tokens that are neither fitted nor tested; the
best is kept, the first (the logit lens) among them: a map that does not help there is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.stream import read_from
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel, Progress

CHECKS = 10
"""How often maps are scored on the tokens kept for choosing, besides at the start."""


@dataclass(frozen=True)
class StreamTokens:
    """Tokens by the stream at each place: ``at`` ``[site, token, d_model]``, ``end`` ``[token, d_model]`` the last place; the id that
    follows each (-1: none) and the number of its sentence group."""

    at: Float[Tensor, "site token d_model"]
    end: Float[Tensor, "token d_model"]
    following: Int[Tensor, " token"]
    group: Int[Tensor, " token"]

    def rows(self, chosen: Tensor) -> StreamTokens:
        """The chosen tokens."""
        return StreamTokens(self.at[:, chosen], self.end[chosen], self.following[chosen], self.group[chosen])

    def __len__(self) -> int:
        return len(self.end)


@dataclass(frozen=True)
class Translators:
    """``A`` ``[site, d_model, d_model]`` (rows are input), ``shift`` ``[site, d_model]`` what is added, and the step each map is of."""

    matrix: Float[Tensor, "site row column"]
    shift: Float[Tensor, "site column"]
    step: Int[Tensor, " site"]

    def __call__(self, stream: Float[Tensor, "site token d_model"]) -> Float[Tensor, "site token d_model"]:
        """The stream as the last layer would have it."""
        return stream + stream @ self.matrix + self.shift[:, None]


def log_answers(model: HookedModel, stack: str, stream: Float[Tensor, "token d_model"], *, grad: bool = False) -> Tensor:
    """Log-probabilities ``[token, answer]`` of the model's own read-out, each token a row of its own."""
    logits = read_from(model, None, stack, stream[:, None], grad=grad)[:, 0]
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def divergence(end: Float[Tensor, "token answer"], here: Float[Tensor, "*site token answer"]) -> Float[Tensor, "*site token"]:
    """KL(end || here) of log-probabilities."""
    sure = end.exp()
    return torch.where(sure > 0, sure * (end - here), 0.0).sum(-1)


def fit(
    model: HookedModel, stack: str, train: StreamTokens, choose: StreamTokens, settings: Fitting, progress: Progress
) -> Translators:  # fmt: skip
    """The maps that did best on ``choose``. Raises BadValue where the loss is not finite."""
    sites, _, width = train.at.shape
    scale = train.at.square().mean((1, 2)).sqrt().clamp(min=1e-12)[:, None]
    matrix, shift = (torch.zeros(sites, *size, dtype=train.at.dtype, requires_grad=True) for size in ((width, width), (width,)))
    optimizer = torch.optim.Adam([matrix, shift], lr=settings.lr)
    draw = torch.Generator().manual_seed(settings.seed)
    every = max(1, settings.steps // CHECKS)
    best = Translators(torch.zeros_like(matrix), torch.zeros_like(shift), torch.zeros(sites, dtype=torch.long))
    least = held_divergence(model, stack, choose, best, settings.tokens)
    for step in range(1, settings.steps + 1):
        batch = train.rows(torch.randint(0, len(train), (min(settings.tokens, len(train)),), generator=draw))
        with torch.enable_grad():
            now = Translators(matrix, shift * scale, best.step)
            here = log_answers(model, stack, now(batch.at).flatten(0, 1), grad=True).unflatten(0, (sites, -1))
            loss = divergence(log_answers(model, stack, batch.end), here).mean(1)
            matrix.grad, shift.grad = torch.autograd.grad(loss.sum(), [matrix, shift])
        if not bool(torch.isfinite(loss).all()):
            raise BadValue(f"the loss at step {step}", loss.tolist(), "finite", do="Lower lr, or look for NaN in the model's weights.")
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * (1 - (step - 1) / settings.steps)
        optimizer.step()
        if step % every == 0 or step == settings.steps:
            now = Translators(matrix.detach().clone(), (shift * scale).detach(), torch.full((sites,), step))
            score = held_divergence(model, stack, choose, now, settings.tokens)
            better = score < least
            pick = lambda a, b, mask: torch.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b)  # noqa: E731
            best = Translators(*(pick(getattr(now, name), getattr(best, name), better) for name in ("matrix", "shift", "step")))
            least = torch.minimum(score, least)
            progress(step, settings.steps, "steps")
    return best


@dataclass(frozen=True)
class Fitting:
    """How the maps are fitted: steps, tokens a step, rate, seed of the draws."""

    steps: int
    tokens: int
    lr: float
    seed: int


def held_divergence(model: HookedModel, stack: str, held: StreamTokens, maps: Translators, tokens: int) -> Float[Tensor, " site"]:
    """The mean KL of each place over tokens, by the maps."""
    total = torch.zeros(len(held.at), dtype=torch.float64)
    for part in parts(len(held), tokens):
        some = held.rows(part)
        here = log_answers(model, stack, maps(some.at).flatten(0, 1)).unflatten(0, (len(held.at), -1))
        total += divergence(log_answers(model, stack, some.end), here).double().sum(1)
    return total / len(held)


def parts(count: int, size: int) -> Sequence[Tensor]:
    """``range(count)`` as index tensors of at most ``size``."""
    return torch.arange(count).split(size)
