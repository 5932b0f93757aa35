"""Attention written as loops over batch, head, query and key: slow, and obvious."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def turned(vector: Tensor, position: int, base: float) -> Tensor:
    """A query or key ``[d_head]`` turned by its position, one pair (i, i + d_head/2) at a time."""
    half = len(vector) // 2
    out = vector.clone()
    for i in range(half):
        angle = position * base ** (-2 * i / len(vector))
        a, b = vector[i], vector[half + i]
        out[i] = a * math.cos(angle) - b * math.sin(angle)
        out[half + i] = b * math.cos(angle) + a * math.sin(angle)
    return out


def attention(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(scores, pattern, z) of ``q`` [batch, query, head, d_head] over ``k``, ``v`` [batch, key, kv_head, d_head].

    ``allowed`` is bool [batch, query, key]. A query that may attend to nothing has an all-zero pattern.
    """
    n_batch, n_query, n_head, d_head = q.shape
    n_key, n_kv = k.shape[1], k.shape[2]
    scores = torch.full((n_batch, n_head, n_query, n_key), -math.inf, dtype=q.dtype)
    pattern = torch.zeros_like(scores)
    z = torch.zeros_like(q)
    for b in range(n_batch):
        for h in range(n_head):
            shared = h // (n_head // n_kv)
            for i in range(n_query):
                seen = [j for j in range(n_key) if allowed[b, i, j]]
                for j in seen:
                    scores[b, h, i, j] = (q[b, i, h] * k[b, j, shared]).sum() / math.sqrt(d_head)
                if not seen:
                    continue
                top = max(float(scores[b, h, i, j]) for j in seen)
                total = sum(math.exp(float(scores[b, h, i, j]) - top) for j in seen)
                for j in seen:
                    pattern[b, h, i, j] = math.exp(float(scores[b, h, i, j]) - top) / total
                    z[b, i, h] += pattern[b, h, i, j] * v[b, j, shared]
    return scores, pattern, z
