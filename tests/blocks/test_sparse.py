"""Patterns against a dense mask written out cell by cell, their spans, and what the chunked kernel builds."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from workbench.blocks import sparse
from workbench.blocks.attention import Attention
from workbench.blocks.init import initialise
from workbench.blocks.mask import AttentionMask
from workbench.blocks.sparse import BlockSparse, Pattern, Sliding, Sparse
from workbench.core.tolerance import gap

PATTERNS: dict[str, Pattern] = {
    "window of 1": Sliding(1),
    "window of 5": Sliding(5),
    "window beyond the row": Sliding(99),
    "blocks": BlockSparse(size=4, local=1, leading=0),
    "blocks near and first": BlockSparse(size=4, local=2, leading=1),
    "blocks with columns": BlockSparse(size=3, local=1, leading=0, stride=3),
    "all kinds of blocks": BlockSparse(size=3, local=2, leading=2, stride=2),
}


def written_out(pattern: Pattern, query: int, key: int) -> bool:
    """The rule of the module's text for one cell."""
    if isinstance(pattern, Sliding):
        return abs(query - key) < pattern.window
    here, there = query // pattern.size, key // pattern.size
    column = pattern.stride > 0 and (there + 1) % pattern.stride == 0
    return abs(here - there) < pattern.local or min(here, there) < pattern.leading or column


def dense(pattern: Pattern, length: int, past: int, causal: bool, segments: Tensor | None, valid: Tensor | None) -> Tensor:
    """The slow twin: ``[batch, query, key]``, one cell after another."""
    rows = len(segments) if segments is not None else len(valid) if valid is not None else 1
    out = torch.zeros(rows, length, past + length, dtype=torch.bool)
    for row, i, j in itertools.product(range(rows), range(length), range(past + length)):
        allowed = written_out(pattern, past + i, j) and not (causal and j > past + i)
        if segments is not None:
            allowed = allowed and bool(segments[row, i] == segments[row, j])
        if valid is not None:
            allowed = allowed and bool(valid[row, j])
        out[row, i, j] = allowed
    return out


def softly(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
    """Attention written out; a query without any key is zero."""
    scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~allowed.unsqueeze(1), -math.inf)
    return scores.softmax(-1).nan_to_num(0.0) @ v


def heads(length: int, rows: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(rows, 2, length, 4, generator=torch.Generator().manual_seed(length), dtype=dtype)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("rules", ["none", "past", "segments", "valid"])
def test_a_pattern_run_by_run_is_the_dense_twin(name: str, causal: bool, rules: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "RUN", 4)  # several runs in a row of 17
    length, past = 17, 6 if rules == "past" else 0
    segments = torch.tensor([[0] * 7 + [1] * 10, [3] * 17]) if rules == "segments" else None
    valid = torch.tensor([[True] * 17, [False, True, True] * 5 + [False] * 2]) if rules == "valid" else None
    made = Sparse(PATTERNS[name], past, causal, segments, valid)
    allowed = dense(PATTERNS[name], length, past, causal, segments, valid)
    assert torch.equal(made.whole(length, past + length, torch.device("cpu"))[:, 0], allowed)
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        q, k, v = heads(length, dtype=dtype), heads(past + length, dtype=dtype), heads(past + length, dtype=dtype).flip(2)
        given = [x.clone().requires_grad_() for x in (q, k, v)]
        twins = [x.clone().requires_grad_() for x in (q, k, v)]
        ours, theirs = made.attend(given[0], given[1], given[2]), softly(twins[0], twins[1], twins[2], allowed)
        assert gap(ours, theirs) < bound
        (ours * q).sum().backward()
        (theirs * q).sum().backward()
        for one, other in zip(given, twins, strict=True):
            assert one.grad is not None
            assert other.grad is not None
            assert gap(one.grad, other.grad.nan_to_num(0.0)) < 5 * bound


@pytest.mark.parametrize("name", PATTERNS)
def test_no_key_that_is_seen_lies_outside_the_spans(name: str) -> None:
    pattern = PATTERNS[name]
    for first in range(0, 30, pattern.run):
        last = min(first + pattern.run, 30)
        spans = pattern.spans(first, last, 30)
        assert all(0 <= low < high <= 30 for low, high in spans)
        assert all(one[1] < other[0] for one, other in itertools.pairwise(spans))
        within = {key for low, high in spans for key in range(low, high)}
        seen = {key for key in range(30) for query in range(first, last) if written_out(pattern, query, key)}
        assert seen <= within


def test_a_window_one_too_wide_would_be_caught() -> None:
    allowed = dense(Sliding(5), 17, 0, True, None, None)
    x = heads(17)
    assert gap(Sparse(Sliding(5), 0, True).attend(x, x, x), softly(x, x, x, allowed)) < 1e-12
    assert gap(Sparse(Sliding(6), 0, True).attend(x, x, x), softly(x, x, x, allowed)) > 1e-3


@pytest.mark.parametrize("name", PATTERNS)
def test_attention_that_is_looked_at_is_attention_that_is_not(name: str) -> None:
    attn = Attention(12, 4, 2, 6, bias=True)
    initialise(attn, 0, writes=1, std=0.3)
    attn = attn.double()
    x = torch.randn(2, 17, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = Sparse(PATTERNS[name], 0, True)
    allowed = made.whole(17, 17, x.device)
    assert gap(attn(x, AttentionMask(sparse=made))[0], attn(x, AttentionMask(allowed=allowed))[0]) < 1e-12
    assert torch.equal(AttentionMask(sparse=made).shown(17, 17, x.device) == 1, allowed)


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, Tensor):
                self.elements = max(self.elements, one.numel())
        return out


@pytest.mark.parametrize("pattern", [Sliding(16), BlockSparse(size=16, local=2, leading=1)])
def test_what_is_built_grows_with_the_length_and_not_with_its_square(pattern: Pattern) -> None:
    def built(length: int) -> int:
        x = heads(length, rows=1, dtype=torch.float32)
        segments = torch.zeros(1, length, dtype=torch.int64)
        with Largest() as seen:
            Sparse(pattern, 0, True, segments).attend(x, x, x)
        return seen.elements

    short, long = built(2048), built(8192)
    assert long <= 4 * short
    assert long < 8192 * 8192 / 100
