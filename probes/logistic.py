"""Logistic probes, many at once: multinomial logistic regression with an L2 penalty, for all label sets of a site and all its heads.

    minimise over W, b:  mean_i -log softmax(W^T x_i + b)[y_i] + penalty / 2 * || W ||^2,   b not penalised

Solved by L-BFGS (Nocedal, Mathematics of Computation 35, 1980) in coordinates in which the objective is close to round: along an
eigenvector of the features' covariance with variance c, class k curves by about c * mean(p_k (1 - p_k)) + penalty. One
eigendecomposition serves all label sets; the means are those of the fit so far and are taken anew every few steps. So it needs tens of
steps where the features' own coordinates need hundreds.

With two classes the penalty is doubled: then it is that of the one weight vector which two classes are usually given (the
difference of the two columns).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

MEMORY, ANEW, SUFFICIENT = 10, 5, 1e-4
"""Pairs that L-BFGS remembers; steps between new coordinates; the share of the promised decrease that a step must bring."""
FLATTEST = 1e-6
"""The least p (1 - p) that coordinates are made for: a class that is never in doubt has no curvature."""


@dataclass(frozen=True)
class LogisticProbe:
    """Fitted maps: scores = x @ weight + bias, in nats up to a constant. ``loss`` is the objective, ``gap`` the length of its slope in the
    solver's coordinates (0 at the optimum); ``steps`` were taken."""

    weight: Float[Tensor, "batch feature set class"]
    bias: Float[Tensor, "batch set class"]
    penalty: Float[Tensor, " batch"]
    loss: Float[Tensor, "batch set"]
    gap: Float[Tensor, "batch set"]
    steps: int

    def scores(self, x: Float[Tensor, "batch token feature"]) -> Float[Tensor, "batch token set class"]:
        """Scores of each class; -inf for a class that was never seen in training."""
        batch, tokens, features = x.shape
        flat = torch.bmm(x.to(self.weight.dtype), self.weight.reshape(batch, features, -1))
        return flat.view(batch, tokens, *self.weight.shape[2:]) + self.bias[:, None]


def fit(
    x: Float[Tensor, "batch token feature"],
    y: Int[Tensor, "token set"],
    classes: int,
    *,
    strength: float,
    steps: int = 200,
    gap: float = 2e-3,
) -> LogisticProbe:
    """Fit one probe for each batch (a site, a head) and each label set, in the dtype of ``x``.

    ``penalty = strength * (mean variance of a feature)``, free of the features' scale. Each stops at a slope of ``gap`` (at the usual one
    some 1e-5 nats are left to gain), or after ``steps``. A class that a label set does not have gets no probability.
    """
    assert strength > 0, "a probe needs a penalty"
    assert x.shape[1] == len(y) > 0, "a label for each token"
    problem = _Problem(x, y, classes, strength * (2 if classes == 2 else 1))
    best, loss, length, taken = _descend(problem, steps, gap)
    weight = torch.einsum("bfc,bcsk->bfsk", problem.basis, best[:, :-1].double())
    bias = best[:, -1].double() - torch.einsum("bf,bfsk->bsk", problem.mean[:, 0], weight)
    bias = bias.masked_fill(problem.never < 0, -torch.inf)
    return LogisticProbe(weight.to(x.dtype), bias.to(x.dtype), problem.penalty, loss, length, taken)


class _Problem:
    """Loss and gradient of some label sets at once, along the eigenvectors of the features' covariance, and at the end for a bias:
    ``w [batch, coordinate, set, class]``."""

    def __init__(self, x: Tensor, y: Tensor, classes: int, strength: float) -> None:
        self.y, self.classes = y, classes
        self.mean = x.mean(1, keepdim=True, dtype=torch.float64)
        centred = x - self.mean.to(x.dtype)
        covariance = torch.bmm(centred.mT, centred).double() / x.shape[1]
        variances, self.basis = torch.linalg.eigh(covariance)
        # features that never vary: any penalty leaves their weights zero
        self.penalty = (strength * covariance.diagonal(dim1=1, dim2=2).mean(1)).clamp_min(torch.finfo(x.dtype).tiny)
        ones = torch.ones_like(centred[..., :1])
        self.z = torch.cat([torch.bmm(centred, self.basis.to(x.dtype)), ones], 2)
        last = torch.ones_like(variances[:, :1])
        self.variances = torch.cat([variances.clamp_min(0), last], 1).to(x.dtype)[..., None, None]
        self.held = torch.cat([self.penalty[:, None].expand_as(variances), 0 * last], 1).to(x.dtype)[..., None, None]
        counts = torch.zeros(y.shape[1], classes, dtype=x.dtype, device=x.device)
        self.counts = counts.scatter_add_(1, y.T, torch.ones_like(y.T, dtype=x.dtype))
        self.never = torch.zeros_like(counts).masked_fill(self.counts == 0, -torch.inf)
        self.active = torch.arange(y.shape[1], device=x.device)

    def keep(self, sets: Bool[Tensor, " set"]) -> None:
        self.active = self.active[sets]

    def start(self) -> Tensor:
        """Zero weights, and biases that give each class its frequency."""
        w = self.z.new_zeros(len(self.z), self.z.shape[2], *self.counts.shape)
        frequent = self.counts.clamp_min(1).log()
        w[:, -1] = (frequent - frequent.mean(1, keepdim=True)).masked_fill(self.counts == 0, 0.0)
        return w

    def at(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The objective ``[batch, set]``, its gradient, and mean p (1 - p) ``[batch, 1, set, class]``."""
        batch, coordinates, sets, classes = w.shape
        tokens = self.z.shape[1]
        scores = torch.bmm(self.z, w.reshape(batch, coordinates, -1)).view(batch, tokens, sets, classes) + self.never[self.active]
        log_p = torch.log_softmax(scores, -1)
        at = self.y[:, self.active].expand(batch, -1, -1)[..., None]
        loss = -log_p.gather(-1, at)[..., 0].mean(1)
        p = log_p.exp_()
        doubt = p.mean(1, keepdim=True) - p.square().mean(1, keepdim=True)
        p.scatter_add_(-1, at, torch.full_like(at, -1, dtype=p.dtype))
        pull = torch.bmm(self.z.mT, p.view(batch, tokens, -1)).view(w.shape) / tokens
        held = self.held * w
        return loss + 0.5 * (held * w).sum((1, 3)), pull + held, doubt

    def scale(self, doubt: Tensor) -> Tensor:
        """The root of about how much the objective curves along each coordinate."""
        return (self.variances * doubt.clamp_min(FLATTEST) + self.held).sqrt()


Pair = tuple[Tensor, Tensor, Tensor]
"""A step, how the slope changed over it, and one over their product [batch, set] (0: not used)."""


def _descend(problem: _Problem, steps: int, gap: float) -> tuple[Tensor, Tensor, Tensor, int]:
    """L-BFGS on every problem beside the others; label sets that are done everywhere leave."""
    w = problem.start()
    loss, slope, doubt = problem.at(w)
    scale = problem.scale(doubt)
    best, lost, length = w.clone(), loss.clone(), _length(slope / scale)
    pairs: list[Pair] = []
    taken = 0
    while True:
        now = _length(slope / scale)
        best.index_copy_(2, problem.active, w)
        lost.index_copy_(1, problem.active, loss)
        length.index_copy_(1, problem.active, now)
        going = (now > gap).any(0)
        if taken == steps or not bool(going.any()):
            return best, lost, length, taken
        taken += 1
        if not bool(going.all()):
            problem.keep(going)
            w, slope, scale, loss = w[:, :, going], slope[:, :, going], scale[:, :, going], loss[:, going]
            pairs = [(s[:, :, going], t[:, :, going], r[:, going]) for s, t, r in pairs]
        move = _direction(slope / scale, pairs)
        w_new, loss_new, slope_new, doubt = _step(problem, w, loss, slope, move, scale)
        pairs = [*pairs[-(MEMORY - 1) :], _pair((w_new - w) * scale, (slope_new - slope) / scale)]
        w, loss, slope = w_new, loss_new, slope_new
        if taken % ANEW == 0:
            fresh = problem.scale(doubt)
            ratio = fresh / scale
            pairs, scale = [(s * ratio, t / ratio, r) for s, t, r in pairs], fresh


def _length(slope: Tensor) -> Tensor:
    return slope.square().sum((1, 3)).sqrt()


def _pair(s: Tensor, t: Tensor) -> Pair:
    curved, steep = (s * t).sum((1, 3)), t.square().sum((1, 3))
    return s, t, torch.where(curved > 1e-10 * steep, 1 / curved.clamp_min(torch.finfo(s.dtype).tiny), 0.0)


def _wide(a: Shaped[Tensor, "batch set"]) -> Shaped[Tensor, "batch 1 set 1"]:
    return a[:, None, :, None]


def _direction(slope: Tensor, pairs: list[Pair]) -> Tensor:
    """The two-loop recursion."""
    q, shares = slope.clone(), []
    for s, t, r in reversed(pairs):
        share = r * (s * q).sum((1, 3))
        q -= _wide(share) * t
        shares.append(share)
    if pairs:
        s, t, r = pairs[-1]
        flat = (s * t).sum((1, 3)) / t.square().sum((1, 3)).clamp_min(torch.finfo(s.dtype).tiny)
        q *= _wide(torch.where(r > 0, flat, 1.0))
    for (s, t, r), share in zip(pairs, reversed(shares), strict=True):
        q += s * _wide(share - r * (t * q).sum((1, 3)))
    return -q


def _step(
    problem: _Problem, w: Tensor, loss: Tensor, slope: Tensor, move: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """A whole step, halved for those whose loss does not fall by a share of what was promised. What finds no step (the precision of the
    dtype is reached) stays."""
    promised = (slope / scale * move).sum((1, 3))
    uphill = promised >= 0
    move = torch.where(_wide(uphill), -slope / scale, move) / scale
    promised = torch.where(uphill, -(slope / scale).square().sum((1, 3)), promised)
    slack = 4 * torch.finfo(loss.dtype).eps * loss.abs()
    size = torch.ones_like(loss)
    while True:
        w_new = w + _wide(size) * move
        loss_new, slope_new, doubt = problem.at(w_new)
        short = ~(loss_new <= loss + SUFFICIENT * size * promised + slack)
        if not bool((short & (size > 0)).any()):
            return w_new, loss_new, slope_new, doubt
        size = torch.where(short, torch.where(size > 1e-6, size / 2, 0.0), size)
