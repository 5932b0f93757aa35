"""Scoring and decoding the slow and obvious way: one full forward a continuation or a token, log-softmax in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def logprobs(model: Any, context: Sequence[int], continuation: Sequence[int]) -> list[float]:
    """log p of each token of the continuation, each from a forward pass of its own over all that precedes it."""
    out = []
    for k, target in enumerate(continuation):
        logits = model.run(torch.tensor([[*context, *continuation[:k]]]), logits="all").logits
        out.append(float(logits[0, -1].double().log_softmax(-1)[target]))
    return out


def all_logprobs(model: Any, context: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[list[float]]:
    return [logprobs(model, context, continuation) for continuation in continuations]


def rolling_logprobs(model: Any, ids: Sequence[int], *, lead: int, window: int, stride: int) -> list[float]:
    """Each token from a pass of its own over the part of its window that precedes it, windows found one token at a time."""
    out = []
    end = None
    for t in range(lead, len(ids)):
        if end is None:
            end = max(window, lead - 1 + stride)
        elif t > end:
            end += stride
        start = max(0, min(end, len(ids) - 1) - window)
        out.append(logprobs(model, ids[start:t], [ids[t]])[0])
    return out


def greedy(model: Any, prompt: Sequence[int], most: int, eos: int | None) -> list[int]:
    """Greedy decoding without a cache."""
    made: list[int] = []
    while len(made) < most:
        logits = model.run(torch.tensor([[*prompt, *made]]), logits="all").logits
        token = int(logits[0, -1].float().argmax())
        if token == eos:
            break
        made.append(token)
    return made
