"""Sparse feature activations: which entries there are, what they add up to, and what a gradient does to them.

The entries of a row lie together. A product with the decoder gathers the rows it needs; a gradient for a matrix gathers too, over the same
entries sorted by feature, so that nothing is scattered and the sum has one order: the same numbers every time. With 32 of 4,096 features
active this is some 50 times cheaper than the dense product it equals.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Entries:
    """``feature`` of each entry and where each row's entries begin; ``count`` features in all."""

    feature: Int[Tensor, " entry"]
    offset: Int[Tensor, " row"]
    count: int

    @property
    def row(self) -> Int[Tensor, " entry"]:
        """The row of each entry."""
        length = torch.diff(self.offset, append=self.offset.new_tensor([len(self.feature)]))
        return torch.arange(len(self.offset), device=self.offset.device).repeat_interleave(length, output_size=len(self.feature))

    def total(self, value: Float[Tensor, " entry"], matrix: Float[Tensor, "feature width"]) -> Float[Tensor, "row width"]:
        """The sum over a row's entries of value times the feature's row of ``matrix``; differentiable in both."""
        return F.embedding_bag(self.feature, matrix, self.offset, mode="sum", per_sample_weights=value)

    def dense(self, value: Float[Tensor, " entry"]) -> Float[Tensor, "row feature"]:
        """The values in a table, zero where there is no entry."""
        table = value.new_zeros(len(self.offset), self.count)
        table[self.row, self.feature] = value
        return table

    def by_feature(self) -> ByFeature:
        """The same entries, those of a feature together."""
        order = self.feature.argsort(stable=True)
        number = torch.bincount(self.feature, minlength=self.count)
        return ByFeature(order, self.row[order], number.cumsum(0) - number)


@dataclass(frozen=True)
class ByFeature:
    """``order`` of the entries, ``row`` of each in that order, and where each feature's begin."""

    order: Int[Tensor, " entry"]
    row: Int[Tensor, " entry"]
    offset: Int[Tensor, " feature"]

    def total(self, value: Float[Tensor, " entry"], rows: Float[Tensor, "row width"]) -> Float[Tensor, "feature width"]:
        """The sum over a feature's entries of value times that row of ``rows``: the gradient of a matrix."""
        return F.embedding_bag(self.row, rows, self.offset, mode="sum", per_sample_weights=value[self.order])

    def sums(self, value: Float[Tensor, " entry"]) -> Float[Tensor, " feature"]:
        """The sum of a feature's values."""
        return F.embedding_bag(self.order, value[:, None], self.offset, mode="sum")[:, 0]


def top_of_rows(pre: Float[Tensor, "row feature"], k: int) -> tuple[Entries, Float[Tensor, " entry"]]:
    """The ``k`` largest of each row and their values."""
    value, feature = pre.topk(k, sorted=False)
    offset = torch.arange(0, value.numel(), k, device=pre.device)
    return Entries(feature.flatten(), offset, pre.shape[1]), value.flatten()


def where(mask: Bool[Tensor, "row feature"], pre: Float[Tensor, "row feature"]) -> tuple[Entries, Float[Tensor, " entry"]]:
    """The entries where ``mask`` is true."""
    return _at(mask.flatten().nonzero()[:, 0], pre)


def top_of_batch(pre: Float[Tensor, "row feature"], k: int, guess: float = 0.0) -> tuple[Entries, Float[Tensor, " entry"]]:
    """The ``k * rows`` largest positive values of the whole batch.

    ``guess`` is a value that about as many are above (such as what the last batch found): it saves time and never changes the answer.
    """
    flat, wanted = pre.flatten(), k * len(pre)
    found = (flat > max(guess, 0.0)).nonzero()[:, 0]
    if len(found) < wanted and guess > 0:
        found = (flat > 0).nonzero()[:, 0]
    if len(found) > wanted:
        found = found[flat[found].topk(wanted, sorted=False)[1]].sort()[0]
    return _at(found, pre)


def _at(found: Int[Tensor, " entry"], pre: Float[Tensor, "row feature"]) -> tuple[Entries, Float[Tensor, " entry"]]:
    count = pre.shape[1]
    number = torch.bincount(found // count, minlength=len(pre))
    return Entries(found % count, number.cumsum(0) - number, count), pre.flatten()[found]
