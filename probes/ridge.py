"""Linear probes in closed form: ridge regression to one-hot labels from sums that are collected while data streams by.

    minimise over W, b:  sum_i || y_i - W^T x_i - b ||^2 + penalty * || W ||^2,   b not penalised

The Gram matrix of a layer is shared by all label sets, so real labels, control tasks and shuffles cost one factorisation.
Hoerl and Kennard, Ridge Regression, Technometrics 12, 1970.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Probe:
    """A linear map: scores = x @ weight + bias."""

    weight: Float[Tensor, "feature column"]
    bias: Float[Tensor, "column"]
    penalty: float

    def scores(self, x: Float[Tensor, "token feature"]) -> Float[Tensor, "token column"]:
        """The columns' scores in float64."""
        return x.double() @ self.weight + self.bias


class Moments:
    """Running sums of features and targets, in float64 about the first chunk's mean (large means then cancel nothing)."""

    def __init__(self) -> None:
        self.n = 0

    def add(self, x: Float[Tensor, "token feature"], y: Float[Tensor, "token column"]) -> None:
        """Take in a chunk; an empty one changes nothing."""
        if len(x) == 0:
            return
        x, y = x.double(), y.double()
        if self.n == 0:
            self.shift = x.mean(0)
            self.x, self.y = torch.zeros_like(self.shift), torch.zeros(y.shape[1], dtype=torch.float64, device=x.device)
            self.xx = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
            self.xy = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64, device=x.device)
        x = x - self.shift
        self.n += len(x)
        self.x += x.sum(0)
        self.y += y.sum(0)
        self.xx += x.T @ x
        self.xy += x.T @ y

    def solve(self, strength: float) -> Probe:
        """The ridge solution with ``penalty = strength * n * (mean variance of a feature)``: free of the features' scale.

        Features that never vary get weight zero.
        """
        assert self.n > 0, "a probe needs training data"
        assert strength > 0, "a probe needs a penalty"
        mean_x, mean_y = self.x / self.n, self.y / self.n
        gram = self.xx - self.n * torch.outer(mean_x, mean_x)
        cross = self.xy - self.n * torch.outer(mean_x, mean_y)
        penalty = strength * float(gram.diagonal().mean())
        if penalty <= 0:
            weight = torch.zeros_like(cross)
        else:
            weight = torch.cholesky_solve(
                cross, torch.linalg.cholesky(gram + penalty * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
            )
        return Probe(weight, mean_y - (mean_x + self.shift) @ weight, penalty)


def one_hot(codes: Int[Tensor, "token set"], classes: int) -> Float[Tensor, "token column"]:
    """Targets of several label sets side by side: column ``set * classes + code`` is one."""
    return torch.nn.functional.one_hot(codes, classes).flatten(1).double()


def predicted(scores: Float[Tensor, "token column"], sets: int) -> Int[Tensor, "token set"]:
    """The class with the highest score in each label set (the first of equals)."""
    return scores.unflatten(1, (sets, -1)).argmax(-1)
