"""A loss over the whole batch, where every process has a share of its rows.

A contrastive loss compares each image with every text. Each process gathers the other shares' unit vectors, computes the whole loss and
counts its part of it (one over the number of shares), so that the sum over processes is the loss of one device, gradients included.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from workbench.blocks.tower import Tower


def contrastive(model: nn.Module) -> bool:
    """Whether the model's loss compares rows: it has towers into a joint space."""
    return any(isinstance(module, Tower) for module in model.modules())


@contextmanager
def gathered(model: nn.Module, bounds: Sequence[int], own: int, group: Any) -> Iterator[None]:
    """Inside the block every tower gives the vectors of all rows: of ``own`` first rows of what it computed, and the other shares'.

    Share i is rows ``bounds[i]`` to ``bounds[i + 1]``; this process has the share of its number in ``group``.
    """

    def whole(module: nn.Module, arguments: Any, vectors: Tensor) -> Tensor:
        out = _Gather.apply(vectors[:own], bounds, group)
        assert isinstance(out, Tensor)
        return out

    handles = [module.register_forward_hook(whole) for module in model.modules() if isinstance(module, Tower)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Gather(torch.autograd.Function):
    """All shares in order. Backward: what all processes' losses say of this one's share, summed."""

    @staticmethod
    def forward(ctx: Any, mine: Float[Tensor, "own d_joint"], bounds: Sequence[int], group: Any) -> Float[Tensor, "row d_joint"]:
        sizes = [end - begin for begin, end in itertools.pairwise(bounds)]
        ctx.bounds, ctx.group, ctx.rank = bounds, group, dist.get_rank(group)
        padded = mine.new_zeros(max(sizes), mine.shape[1])
        padded[: len(mine)] = mine
        shares = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(shares, padded, group=group)
        return torch.cat([share[:size] for share, size in zip(shares, sizes)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        whole = grads[0].contiguous().clone()
        dist.all_reduce(whole, group=ctx.group)
        return whole[ctx.bounds[ctx.rank] : ctx.bounds[ctx.rank + 1]], None, None
