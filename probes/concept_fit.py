"""Directions of a concept from labelled vectors: what tells the two sides apart, and what a probe's weight is not.

    difference         mean of the concept's vectors minus mean of the others
    ridge              weight of the ridge regression of the label on the vector (``probes.ridge``)
    ridge-pattern      covariance times that weight
    logistic           weight of a logistic regression: the concept activation vector of Kim et al. 2018
    logistic-pattern   covariance times that weight

A probe's weight is a filter: it also points away from what disturbs it. What the concept adds to the vectors is its pattern, the covariance
of the vectors times the weight (Haufe et al. 2014). All directions have length 1 and point to the concept.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.ridge import Moments
from workbench.core.errors import BadValue

METHODS = ("difference", "ridge", "ridge-pattern", "logistic", "logistic-pattern")
ROUNDS, SETTLED = 100, 1e-9


def directions(x: Float[Tensor, "token feature"], y: Bool[Tensor, " token"], strength: float) -> Float[Tensor, "method feature"]:
    """One direction of length 1 a method (in float64), in the order of ``METHODS``; zeros where the vectors tell nothing apart.

    ``strength``: the penalty of both regressions, as a share of n times the features' mean variance. Raises BadValue for a side without
    vectors.
    """
    x = x.double()
    if not bool(y.any()) or bool(y.all()):
        raise BadValue("the training labels", "of one side alone", "with the concept and without it", do="Give more items.")
    difference = x[y].mean(0) - x[~y].mean(0)
    sums = Moments()
    sums.add(x, y.double()[:, None])
    ridge, logistic = sums.solve(strength).weight[:, 0], logistic_weight(x, y, strength)
    centred = x - x.mean(0)
    pattern = lambda weight: centred.T @ (centred @ weight) / len(x)  # noqa: E731
    return torch.stack([unit(one) for one in (difference, ridge, pattern(ridge), logistic, pattern(logistic))])


def logistic_weight(x: Float[Tensor, "token feature"], y: Bool[Tensor, " token"], strength: float) -> Float[Tensor, " feature"]:
    """The weight of a ridge-penalised logistic regression with a free intercept, by Newton's method with halved steps:

    minimise  sum log(1 + exp(-(2y - 1)(w.x + b))) + penalty / 2 * ||w||^2,   penalty = strength * n * mean variance of a feature.
    """
    mean = x.mean(0)
    x, target = x - mean, y.to(x.dtype)
    penalty = strength * float(x.square().sum(0).mean())
    if penalty <= 0:
        return torch.zeros_like(mean)
    with_one = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    ridge = torch.full((with_one.shape[1],), penalty, dtype=x.dtype, device=x.device)
    ridge[-1] = 0.0
    loss = lambda w: float(torch.nn.functional.softplus(-(2 * target - 1) * (with_one @ w)).sum() + 0.5 * (ridge * w * w).sum())  # noqa: E731
    weight = torch.zeros_like(ridge)
    at = loss(weight)
    for _ in range(ROUNDS):
        share = torch.sigmoid(with_one @ weight)
        slope = with_one.T @ (share - target) + ridge * weight
        curvature = (with_one.T * (share * (1 - share)).clamp_min(1e-12)) @ with_one + ridge.diag()
        step, size = torch.linalg.solve(curvature, slope), 1.0
        while (new := loss(weight - size * step)) > at and size > 1e-8:
            size /= 2
        weight, before, at = weight - size * step, at, new
        if before - at <= SETTLED * max(1.0, abs(at)):
            break
    return weight[:-1]


def unit(vector: Float[Tensor, "*any feature"]) -> Float[Tensor, "*any feature"]:
    """The same direction with length 1; zeros stay zeros."""
    norm = vector.norm(dim=-1, keepdim=True)
    return torch.where(norm > 0, vector / norm.clamp_min(torch.finfo(vector.dtype).tiny), torch.zeros_like(vector))


def threshold(
    x: Float[Tensor, "token feature"], y: Bool[Tensor, " token"], ways: Float[Tensor, "method feature"]
) -> Float[Tensor, " method"]:
    """Half way between the means of the two sides, along each direction."""
    along = x.double() @ ways.T
    return (along[y].mean(0) + along[~y].mean(0)) / 2
