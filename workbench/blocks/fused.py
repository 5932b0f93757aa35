"""Fused attention, with a backward pass of its own where torch's is slow: in 16 bits on a CPU.

    P  = exp(scale q kᵀ - lse)            the pattern again, from what the forward pass kept (Dao et al. 2022)
    dv = Pᵀ g,   dS = scale P * (g vᵀ - rowsum(g * out)),   dq = dS k,   dk = dSᵀ q

The forward pass is torch's kernel, so its numbers do not depend on whether gradients are wanted. Scores and what is subtracted from them
are float32, as in torch's kernel; the products that end in a gradient are of 16 bits.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from workbench.blocks.mask import AttentionMask

Queries = Float[Tensor, "batch head query d_head"]
Keys = Float[Tensor, "batch head key d_head"]
NARROW = (torch.bfloat16, torch.float16)
KEYS = 128
"""Keys up to which it is much quicker than torch's (4 times at 64, hardly at 256; torch 2.13, AVX-512)."""
RUN = 128
"""Queries taken together: a run of them meets no key after its last, which is half of the work saved."""
CELLS = 1 << 18
"""Scores held at once: 1 MiB, which stays in a core's own cache."""


def attend(q: Queries, k: Keys, v: Keys, mask: AttentionMask) -> Queries:
    """The values mixed by ``softmax(q kᵀ / sqrt(d_head))`` within ``mask``, which is not sparse."""
    dtype = torch.get_autocast_dtype(q.device.type) if torch.is_autocast_enabled(q.device.type) else q.dtype
    if mask.allowed is None and _slow(q, k, v, dtype):
        out = _Narrow.apply(q.to(dtype), k.to(dtype), v.to(dtype), mask.causal)
        assert isinstance(out, Tensor)
        return out
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask.allowed, is_causal=mask.causal)


def _slow(q: Tensor, k: Tensor, v: Tensor, dtype: torch.dtype) -> bool:
    """Whether torch's backward pass would be the slower one."""
    if q.device.type != "cpu" or dtype not in NARROW or k.shape[2] > KEYS or torch.compiler.is_compiling():
        return False
    return torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)


class _Narrow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.causal = causal
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, out, lse = ctx.saved_tensors
        rows = q.shape[0] * q.shape[1]
        flat = [x.reshape(rows, x.shape[2], x.shape[3]) for x in (q, k, v, out, grads[0])]
        with torch.autocast("cpu", enabled=False):  # it would narrow the products that are to be wide
            made = _gradients(*flat, lse=lse.reshape(rows, -1, 1), causal=ctx.causal)
        dq, dk, dv = (x.unflatten(0, q.shape[:2]) for x in made)
        return dq, dk, dv, None


def _gradients(q: Tensor, k: Tensor, v: Tensor, out: Tensor, grad: Tensor, *, lse: Tensor, causal: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, keys and values ``[row, pos, d_head]``, some rows at a time."""
    n_query, n_key, dtype = q.shape[1], k.shape[1], q.dtype
    run = min(RUN, n_query) if causal else n_query
    rows, scale = max(1, CELLS // max(1, run * n_key)), 1.0 / math.sqrt(q.shape[2])
    later = torch.full((run, run), -math.inf).triu_(1) if causal else None
    base = (grad.float() * out.float()).sum(-1, keepdim=True)
    dq, dk, dv = torch.empty_like(q), torch.zeros(k.shape), torch.zeros(v.shape)
    for some in range(0, len(q), rows):
        at = slice(some, some + rows)
        wide_q, wide_grad = q[at].float(), grad[at].float()
        wide_k, wide_v = k[at].float().transpose(1, 2), v[at].float().transpose(1, 2)
        for first in range(0, n_query, run):
            here, seen = slice(first, first + run), slice(0, first + run if causal else n_key)
            scores = torch.baddbmm(lse[at, here], wide_q[:, here], wide_k[:, :, seen], beta=-1, alpha=scale)
            if later is not None:
                own = scores[:, :, first:]
                own += later[: own.shape[1], : own.shape[2]]
            pattern = scores.exp_()
            change = torch.baddbmm(base[at, here], wide_grad[:, here], wide_v[:, :, seen], beta=-scale, alpha=scale).mul_(pattern).to(dtype)
            dv[at, seen] += torch.bmm(pattern.to(dtype).transpose(1, 2), grad[at, here])
            dk[at, seen] += torch.bmm(change.transpose(1, 2), q[at, here])
            dq[at, here] = torch.bmm(change, k[at, seen])
    return dq, dk.to(dtype), dv.to(dtype)
