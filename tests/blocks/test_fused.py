"""Attention in 16 bits on a CPU: torch's numbers forward, and gradients no further from the exact ones than torch's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from workbench.blocks import fused
from workbench.blocks.fused import attend
from workbench.blocks.mask import AttentionMask

NARROW = (torch.bfloat16, torch.float16)


def drawn(query: int, key: int, dtype: torch.dtype, seed: int = 0) -> tuple[list[Tensor], Tensor]:
    """Queries, keys, values with heads behind positions in memory, as a model lays them out, and a gradient of the output."""
    draw = torch.Generator().manual_seed(seed)
    lengths = (query, key, key, query)
    q, k, v, g = (torch.randn(2, n, 3, 8, generator=draw).to(dtype).transpose(1, 2) for n in lengths)
    return [x.requires_grad_() for x in (q, k, v)], g


def exact(given: list[Tensor], grad: Tensor, causal: bool) -> list[Tensor]:
    """The gradients in float64, every step written out."""
    q, k, v = (x.detach().double() for x in given)
    g, scale = grad.double(), 1 / math.sqrt(q.shape[-1])
    scores = scale * q @ k.transpose(-1, -2)
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -math.inf)
    pattern = scores.softmax(-1)
    change = g @ v.transpose(-1, -2)
    change = pattern * (change - (change * pattern).sum(-1, keepdim=True))
    return [scale * change @ k, scale * change.transpose(-1, -2) @ q, pattern.transpose(-1, -2) @ g]


def off(found: tuple[Tensor, ...], wanted: list[Tensor]) -> list[float]:
    """How far gradients lie from the exact ones: root mean square, over that of the exact ones (or 1e-3, where those are zero)."""
    return [float((a.double() - b).square().mean().sqrt() / b.square().mean().sqrt().clamp(min=1e-3)) for a, b in zip(found, wanted)]


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize(("query", "key", "causal"), [(17, 17, True), (1, 1, True), (5, 12, False), (12, 5, False), (33, 33, True)])
def test_forward_is_torchs_and_gradients_are_as_near(
    query: int, key: int, causal: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "RUN", 8)  # several runs, the last one short
    monkeypatch.setattr(fused, "CELLS", 100)  # several groups of rows
    ours, theirs = [], []
    for seed in range(6):
        given, grad = drawn(query, key, dtype, seed)
        mine = attend(given[0], given[1], given[2], AttentionMask(causal=causal))
        torchs = functional.scaled_dot_product_attention(given[0], given[1], given[2], is_causal=causal)
        assert type(mine.grad_fn).__name__ != type(torchs.grad_fn).__name__
        assert torch.equal(mine, torchs)
        wanted, found = exact(given, grad, causal), torch.autograd.grad(mine, given, grad)
        assert [x.dtype for x in found] == [dtype] * 3
        ours.append(off(found, wanted))
        theirs.append(off(torch.autograd.grad(torchs, given, grad), wanted))
    for one, other in zip(torch.tensor(ours).mean(0), torch.tensor(theirs).mean(0)):  # of queries, keys, values
        assert float(one) <= 1.25 * float(other)
        assert float(one) <= 2.0 ** (-8 if dtype == torch.bfloat16 else -11)


def test_a_gradient_that_forgets_the_row_sums_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    given, grad = drawn(9, 9, torch.bfloat16)
    plain = fused._gradients
    monkeypatch.setattr(fused, "_gradients", lambda q, k, v, out, g, **named: plain(q, k, v, torch.zeros_like(out), g, **named))
    found = torch.autograd.grad(attend(given[0], given[1], given[2], AttentionMask(causal=True)), given, grad)
    assert min(off(found, exact(given, grad, True))[:2]) > 0.05


def test_backward_within_autocast_is_the_same() -> None:
    given, grad = drawn(9, 9, torch.bfloat16)
    outs = [attend(given[0], given[1], given[2], AttentionMask(causal=True)) for _ in range(2)]
    plain = torch.autograd.grad(outs[0], given, grad)
    with torch.autocast("cpu", torch.bfloat16):
        again = torch.autograd.grad(outs[1], given, grad)
    assert all(torch.equal(a, b) for a, b in zip(plain, again))


def test_autocast_narrows_wide_inputs() -> None:
    given, _ = drawn(9, 9, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(given[0], given[1], given[2], AttentionMask(causal=True))
        plain = functional.scaled_dot_product_attention(given[0], given[1], given[2], is_causal=True)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, plain)


@pytest.mark.parametrize("why", ["float32", "no gradient", "a mask", "long"])
def test_elsewhere_it_is_torchs_own(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, grad = drawn(9, 9, torch.float32 if why == "float32" else torch.bfloat16)
    mask = AttentionMask(allowed=torch.ones(1, 1, 9, 9, dtype=torch.bool).tril()) if why == "a mask" else AttentionMask(causal=True)
    if why == "long":
        monkeypatch.setattr(fused, "KEYS", 8)
    with torch.set_grad_enabled(why != "no gradient"):
        out = attend(given[0], given[1], given[2], mask)
        plain = functional.scaled_dot_product_attention(given[0], given[1], given[2], attn_mask=mask.allowed, is_causal=mask.causal)
    assert torch.equal(out, plain)
    assert type(out.grad_fn) is type(plain.grad_fn)
    if why != "no gradient":
        assert all(torch.equal(a, b) for a, b in zip(torch.autograd.grad(out, given, grad), torch.autograd.grad(plain, given, grad)))
