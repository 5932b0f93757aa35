"""Affine maps that take a concept out of vectors: LEACE, iterated null-space projection, and random projections beside them.

All have the form  r(x) = x - left (right^T (x - mean)),  leave the mean where it is, and differ in what they take away:

    leace      the least change (in mean squared distance) after which no linear map tells the classes better than a constant does:
               with W the pseudo-inverse of the root of the covariance and U an orthonormal basis of the columns of W Cov(x, z),
               left = W^+ U and right = W U, for z the classes as one-hot vectors; at most (classes - 1) directions
    inlp       the directions of a logistic probe, those of one fitted to what is left, and so on: an orthogonal projection, of as many
               directions as it takes
    random     an orthogonal projection along directions drawn evenly

Source: Belrose, Schneider-Joseph, Ravfogel, Cotterell, Raff and Biderman, LEACE: Perfect Linear Concept Erasure in Closed Form, NeurIPS
2023 (arXiv:2306.03819), theorem 4.3. Ravfogel, Elazar, Gonen, Twiton and Goldberg, Null It Out: Guarding Protected Attributes by
Iterative Nullspace Projection, ACL 2020 (arXiv:2004.07667); there about the origin, here about the mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes import logistic
from probes.ridge import Moments

NO_VARIANCE, NO_RELATION = 1e-12, 1e-7
"""Directions with less than this share of the largest variance do not vary; whitened covariances with the classes below this are none."""


@dataclass(frozen=True)
class Eraser:
    """x -> x - left (right^T (x - mean)), in float64 until it is applied."""

    mean: Float[Tensor, " feature"]
    left: Float[Tensor, "feature direction"]
    right: Float[Tensor, "feature direction"]

    @property
    def rank(self) -> int:
        """How many directions are taken away."""
        return self.left.shape[1]

    @property
    def width(self) -> int:
        """Features of a vector."""
        return len(self.mean)

    def __call__(self, x: Float[Tensor, "*any feature"]) -> Float[Tensor, "*any feature"]:
        """The vectors without the concept, in the dtype and on the device of ``x``."""
        mean, left, right = (part.to(x.device, x.dtype) for part in (self.mean, self.left, self.right))
        return x - ((x - mean) @ right) @ left.T


@dataclass(frozen=True)
class ByPosition:
    """An eraser for each position of a sequence."""

    erasers: tuple[Eraser, ...]

    @property
    def rank(self) -> int:
        """How many directions are taken away at the position where most are."""
        return max(one.rank for one in self.erasers)

    @property
    def width(self) -> int:
        """Features of a vector."""
        return self.erasers[0].width

    def __call__(self, x: Float[Tensor, "batch pos feature"]) -> Float[Tensor, "batch pos feature"]:
        """Each position with its own eraser; there must be as many as there are positions."""
        return torch.stack([one(x[:, pos]) for pos, one in zip(range(x.shape[1]), self.erasers, strict=True)], 1)


AnyEraser = Eraser | ByPosition


def leace(sums: Moments) -> Eraser:
    """LEACE in closed form from sums over vectors and one-hot classes (``Moments``): exact on those it is fitted to.

    Features that do not vary, and classes that nothing linear tells, give an eraser of rank 0.
    """
    mean_x, mean_y = sums.x / sums.n, sums.y / sums.n
    covariance = sums.xx / sums.n - torch.outer(mean_x, mean_x)
    cross = sums.xy / sums.n - torch.outer(mean_x, mean_y)
    variances, basis = torch.linalg.eigh(covariance)
    kept = variances > NO_VARIANCE * variances[-1].clamp_min(0)
    variances, basis = variances[kept], basis[:, kept]
    left, sizes, _ = torch.linalg.svd(variances.rsqrt()[:, None] * (basis.T @ cross), full_matrices=False)
    told = left[:, sizes > NO_RELATION]  # in whitened coordinates along the covariance's own axes
    return Eraser(mean_x + sums.shift, basis @ (variances.sqrt()[:, None] * told), basis @ (variances.rsqrt()[:, None] * told))


def inlp(
    x: Float[Tensor, "token feature"],
    y: Int[Tensor, " token"],
    classes: int,
    check: Bool[Tensor, " token"],
    *,
    strength: float,
    rounds: int,
) -> Eraser:
    """Null-space projection, round by round, until a probe fitted to the other tokens is right on the ``check`` tokens no more often than
    the most frequent class is (by less than a standard error), or ``rounds`` are done."""
    x = x.double()
    mean, basis = x[~check].mean(0), x.new_zeros(x.shape[1], 0)
    common = int(y[~check].bincount(minlength=classes).argmax())
    share = float((y[check] == common).double().mean())
    enough = share + (share * (1 - share) / int(check.sum())) ** 0.5
    for _ in range(rounds):
        left = x - ((x - mean) @ basis) @ basis.T
        found = logistic.fit(left[~check][None], y[~check, None], classes, strength=strength)
        right = (found.scores(left[check][None])[0, :, 0].argmax(-1) == y[check]).double().mean()
        if float(right) <= enough or basis.shape[1] == x.shape[1]:
            break
        basis = _widened(basis, found.weight[0, :, 0])
    return Eraser(mean, basis, basis)


def _widened(basis: Float[Tensor, "feature old"], weight: Float[Tensor, "feature class"]) -> Float[Tensor, "feature new"]:
    """The basis with the directions in which the classes' weights differ."""
    weight = weight - weight.mean(1, keepdim=True)
    weight = weight - basis @ (basis.T @ weight)
    ways, sizes, _ = torch.linalg.svd(weight, full_matrices=False)
    return torch.linalg.qr(torch.cat([basis, ways[:, sizes > 1e-6 * sizes[0].clamp_min(1e-300)]], 1)).Q


def random_like(eraser: AnyEraser, draw: torch.Generator) -> AnyEraser:
    """Orthogonal projections along as many directions, drawn evenly, about the same means."""
    if isinstance(eraser, ByPosition):
        return ByPosition(tuple(_random(one, draw) for one in eraser.erasers))
    return _random(eraser, draw)


def _random(eraser: Eraser, draw: torch.Generator) -> Eraser:
    drawn = torch.randn(len(eraser.mean), eraser.rank, generator=draw, dtype=torch.float64).to(eraser.mean.device)
    basis = torch.linalg.qr(drawn).Q if eraser.rank else drawn
    return Eraser(eraser.mean, basis, basis)
