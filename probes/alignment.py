"""How alike two sets of vectors of the same tokens are: linear CKA, its debiased form, and the orthogonal Procrustes distance.

With x and y centred, X and Y their rows, and <,> over tokens:

    cka         ||X^T Y||^2 / (||X^T X|| ||Y^T Y||)          Frobenius norms: the cosine of the two Gram matrices
    debiased    the same cosine of unbiased estimates of the Gram matrices' covariance (U-statistics: no token is compared with itself)
    procrustes  min over orthogonal Q of ||X / ||X|| - Y Q / ||Y|| ||  =  sqrt(2 - 2 ||X^T Y||_* / (||X|| ||Y||)), 0 to sqrt(2)

All three are the same after a rotation and a scaling of either side; none after any other linear map. Everything is computed from sums
over tokens, [d, d] and smaller, kept by block of tokens: leaving a block out is a subtraction, and that gives the intervals.

Source: Kornblith, Norouzi, Lee and Hinton, Similarity of Neural Network Representations Revisited, ICML 2019 (arXiv:1905.00414). The
U-statistic: Song, Smola, Gretton, Bedo and Borgwardt, Feature Selection via Dependence Maximization, JMLR 13, 2012; in CKA: Nguyen, Raghu
and Kornblith, ICLR 2021 (arXiv:2010.15327). Procrustes: Schönemann, Psychometrika 31, 1966; Ding, Denain and Steinhardt, NeurIPS 2021
(arXiv:2108.01661).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

MEASURES = ("cka", "cka_debiased", "procrustes")


@dataclass(frozen=True)
class Sums:
    """Sums over tokens of two sets of vectors, by block (first axis): counts, x, y, x y^T, and with p = |x|^2 and q = |y|^2 those of p, q,
    p q, x q and y p."""

    n: Float[Tensor, " block"]
    x: Float[Tensor, "block left"]
    y: Float[Tensor, "block right"]
    xy: Float[Tensor, "block left right"]
    p: Float[Tensor, " block"]
    q: Float[Tensor, " block"]
    pq: Float[Tensor, " block"]
    xq: Float[Tensor, "block left"]
    yp: Float[Tensor, "block right"]

    def versions(self) -> Sums:
        """All blocks together, and all but each: one more version than there are blocks (with one block, that alone)."""
        parts = {}
        for name, value in vars(self).items():
            whole = value.sum(0, keepdim=True)
            parts[name] = torch.cat([whole, whole - value]) if len(value) > 1 else whole
        return Sums(**parts)

    @property
    def centred(self) -> Float[Tensor, "version left right"]:
        """Sums of products about the means."""
        return self.xy - self.x[:, :, None] * self.y[:, None, :] / self.n[:, None, None]

    @property
    def unbiased(self) -> Float[Tensor, " version"]:
        """The U-statistic of the two Gram matrices' covariance (HSIC with linear kernels)."""
        n = self.n
        across = torch.einsum("bi,bij,bj->b", self.x, self.xy, self.y)
        along = across - (self.x * self.xq).sum(1) - (self.y * self.yp).sum(1) + self.pq
        left, right = self.x.square().sum(1) - self.p, self.y.square().sum(1) - self.q
        trace = self.xy.square().sum((1, 2)) - self.pq
        return (trace + left * right / ((n - 1) * (n - 2)) - 2 * along / (n - 2)) / (n * (n - 3))


def sums(x: Float[Tensor, "token left"], y: Float[Tensor, "token right"], block: Int[Tensor, " token"]) -> Sums:
    """The sums by block (numbers from 0, each with tokens), in float64 about the means of all tokens."""
    x, y = x.double(), y.double()
    x, y = x - x.mean(0), y - y.mean(0)
    p, q = x.square().sum(1), y.square().sum(1)
    count = int(block.max()) + 1
    add = lambda value: torch.zeros(count, *value.shape[1:], dtype=torch.float64).index_add_(0, block, value)  # noqa: E731
    products = torch.stack([x[block == b].T @ y[block == b] for b in range(count)])
    return Sums(add(torch.ones_like(p)), add(x), add(y), products, add(p), add(q), add(p * q), add(x * q[:, None]), add(y * p[:, None]))


@dataclass(frozen=True)
class Own:
    """What one side contributes to every pair it is in, by version."""

    size: Float[Tensor, " version"]
    norm: Float[Tensor, " version"]
    unbiased: Float[Tensor, " version"]


def own(x: Float[Tensor, "token feature"], block: Int[Tensor, " token"]) -> Own:
    """A side's summed squares about the mean, the norm of its Gram matrix, and the U-statistic of that."""
    versions = sums(x, x, block).versions()
    products = versions.centred
    return Own(products.diagonal(dim1=1, dim2=2).sum(1), products.square().sum((1, 2)).sqrt(), versions.unbiased)


def measures(both: Sums, left: Own, right: Own) -> Float[np.ndarray, "measure version"]:
    """``MEASURES`` of a pair in every version; NaN for a side that does not vary (debiased: one whose U-statistic is not positive)."""
    versions = both.versions()
    products = versions.centred
    cka = products.square().sum((1, 2)) / (left.norm * right.norm)
    inner = left.unbiased * right.unbiased
    positive = (left.unbiased > 0) & (right.unbiased > 0)
    debiased = torch.where(positive, versions.unbiased / inner.clamp_min(1e-300).sqrt(), torch.nan)
    shared = torch.linalg.svdvals(products).sum(1) / (left.size * right.size).sqrt()
    found = torch.stack([cka.clamp_max(1.0), debiased.clamp(-1.0, 1.0), (2 - 2 * shared.clamp_max(1.0)).sqrt()]).numpy()
    return np.where(np.isfinite(found), found, np.nan)


def unvarying(x: Float[Tensor, "token feature"]) -> bool:
    """Whether no feature varies beyond the rounding of its own dtype."""
    spread = (x.double() - x.double().mean(0)).abs().max()
    return float(spread) <= 8 * torch.finfo(x.dtype).eps * float(x.abs().max())


def jackknife(versions: Float[np.ndarray, "*any version"], level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The value of all tokens with its interval, from leaving out each block: Student's t with (blocks - 1) degrees of freedom. NaN bounds
    where there was one block (Tukey 1958; Efron, The Jackknife, the Bootstrap and Other Resampling Plans, 1982)."""
    value, without = versions[..., 0], versions[..., 1:]
    blocks = without.shape[-1]
    if blocks < 2:
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
    spread = without - without.mean(-1, keepdims=True)
    half = stats.t.ppf((1 + level) / 2, blocks - 1) * np.sqrt((blocks - 1) / blocks * (spread**2).sum(-1))
    return value, value - half, value + half


# --- token by token ---------------------------------------------------------------------------------------------

DIFFERENCES = ("relative", "explained", "shift")


def differences(
    x: Float[Tensor, "token feature"], y: Float[Tensor, "token feature"], block: Int[Tensor, " token"]
) -> Float[np.ndarray, "measure version"]:  # fmt: skip
    """How far y is from x at the same token and in the same axes, by version:

    relative    ||y - x|| / ||x - mean of x||: the difference, in units of the spread of x
    explained   1 - ||y - x||^2 / ||y - mean of y||^2: the share of y's variance that x accounts for as it is (may be negative)
    shift       the share of ||y - x||^2 that is the same vector at every token; NaN where nothing differs
    """
    x, y = x.double(), y.double()
    count, delta = int(block.max()) + 1, y - x
    middle_x, middle_y = x.mean(0), y.mean(0)

    def versions(value: Tensor) -> Tensor:
        by_block = torch.zeros(count, *value.shape[1:], dtype=torch.float64).index_add_(0, block, value)
        whole = by_block.sum(0, keepdim=True)
        return torch.cat([whole, whole - by_block]) if count > 1 else whole

    def spread(value: Tensor, middle: Tensor) -> Tensor:
        """Summed squares about the mean of the version's tokens."""
        return versions((value - middle).square().sum(1)) - versions(value - middle).square().sum(1) / n

    n = versions(torch.ones(len(x), dtype=torch.float64))
    size, mean = versions(delta.square().sum(1)), versions(delta) / n[:, None]
    shift = torch.where(size > 0, n * mean.square().sum(1) / size, torch.nan)
    out = torch.stack([(size / spread(x, middle_x)).sqrt(), 1 - size / spread(y, middle_y), shift]).numpy()
    return np.where(np.isfinite(out), out, np.nan)
