"""The numbers of the gpt family: against a plain twin, with and without a listener, in every dtype, alone and packed."""

from __future__ import annotations

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from tests.families.models import CONFIGS, TIERED, build, configs, logits, tokens
from tests.reference.gpt import Plain
from workbench.core.batch import IGNORE, TokenBatch
from workbench.core.protocol import Resume
from workbench.core.tolerance import agree, gap
from workbench.families.gpt import GPT

NAMES = sorted(CONFIGS)


@pytest.mark.parametrize("name", NAMES)
def test_every_site_equals_the_plain_twin(name: str) -> None:
    model = build(name, dtype=torch.float64)
    ids = tokens(model)
    trace, twin = model.run(ids, capture="*"), Plain(model)(ids)
    assert set(trace.at) == set(model.sites()) == set(twin)
    for site, value in twin.items():
        assert gap(trace[site], value) <= 1e-12, site
    assert agree(logits(trace), twin["unembed.hook_logits"], "logits")


@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(configs(), st.integers(0, 99), st.integers(1, 5))
def test_any_config_equals_the_plain_twin(fields: dict, seed: int, length: int) -> None:
    model = build(fields, dtype=torch.float64, seed=seed)
    ids = tokens(model, 2, length, seed)
    trace, twin = model.run(ids, capture="*"), Plain(model)(ids)
    assert {name: gap(trace[name], value) for name, value in twin.items() if gap(trace[name], value) > 1e-12} == {}


def test_the_twin_comparison_catches_a_wrong_model() -> None:
    """A turn in the wrong direction is the kind of mistake that leaves every shape as it was."""
    model = build("plain", dtype=torch.float64)
    ids = tokens(model)
    twin = Plain(model)(ids)
    backwards = Resume(positions=(11 - torch.arange(7)).expand(2, 7))
    assert gap(logits(model.run(ids, resume=backwards)), twin["unembed.hook_logits"]) > 1e-3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", TIERED)
def test_listening_changes_nothing_beyond_rounding(name: str, dtype: torch.dtype) -> None:
    model = build(name, dtype=dtype)
    ids = tokens(model)
    silent = logits(model.run(ids))
    assert agree(logits(model.run(ids, capture="*")), silent, "logits")
    quiet = [s for s in model.sites() if not s.endswith(("hook_attn_scores", "hook_pattern"))]
    assert torch.equal(logits(model.run(ids, capture=quiet)), silent)  # same kernels: to the bit
    assert agree(logits(model.run(ids, capture="*", grad=True)), silent, "logits")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", ["causal", "mask", "past"])
def test_fused_and_visible_attention_agree(dtype: torch.dtype, case: str) -> None:
    model = build("grouped", dtype=dtype)
    ids = tokens(model, 2, 9)
    resume = None
    if case == "mask":
        mask = torch.rand(2, 9, 9, generator=torch.Generator().manual_seed(0)) < 0.5
        mask[0, 3] = False  # a query with nothing to attend to
        resume = Resume(mask=mask)
    if case == "past":
        resume = Resume(past=model.run(ids[:, :4], cache=True).past)
        ids = ids[:, 4:]
    z = "blocks.0.attn.hook_z"
    fused = model.run(ids, capture=z, resume=resume)[z]
    visible = model.run(ids, capture=[z, "blocks.0.attn.hook_pattern"], resume=resume)
    assert agree(visible[z], fused, "attention")
    rows = visible["blocks.0.attn.hook_pattern"].sum(-1)
    expected = torch.ones_like(rows)
    if case == "mask":
        expected[0, :, 3] = 0
        assert visible[z][0, 3].abs().max() == 0 == fused[0, 3].abs().max()
    torch.testing.assert_close(rows, expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_packed_row_equals_its_documents_apart(name: str) -> None:
    model = build(name, dtype=torch.float64)
    parts = [tokens(model, 1, n, n) for n in (3, 4, 2)]
    packed = torch.cat([*parts, torch.zeros(1, 3, dtype=torch.long)], 1)
    segments = torch.tensor([[0] * 3 + [1] * 4 + [2] * 2 + [-1] * 3])
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0, 1, 0, 0, 0]])
    out = logits(model.run(TokenBatch(packed, torch.full_like(packed, IGNORE), segments, positions)))
    assert out is not None
    begin = 0
    for part in parts:
        alone = logits(model.run(part))
        assert agree(out[:, begin : begin + part.shape[1]], alone, "logits")
        begin += part.shape[1]
    assert out.isfinite().all()


def test_a_packed_row_without_segments_is_another_thing() -> None:
    model = build("plain", dtype=torch.float64)
    a, b = tokens(model, 1, 3, 1), tokens(model, 1, 4, 2)
    packed = torch.cat([a, b], 1)
    leaking = logits(model.run(TokenBatch(packed, packed, None, torch.tensor([[0, 1, 2, 0, 1, 2, 3]]))))
    assert not agree(leaking[:, 3:], logits(model.run(b)), "logits")


def test_right_padding_never_reaches_earlier_tokens() -> None:
    model = build("plain", dtype=torch.float64)
    ids = tokens(model, 2, 8)
    padded = ids.clone()
    padded[:, 5:] = 0
    assert torch.equal(logits(model.run(padded))[:, :5], logits(model.run(ids))[:, :5])


@pytest.mark.parametrize("name", TIERED)
def test_the_loss_is_the_cross_entropy_of_the_logits(name: str) -> None:
    model = build(name, dtype=torch.float64)
    ids = tokens(model, 3, 8)
    targets = ids.roll(-1, 1).clone()
    targets[:, -1] = targets[0, :4] = IGNORE
    total, count = model.loss(TokenBatch(ids, targets))
    logs = Plain(model)(ids)["unembed.hook_logits"].log_softmax(-1)
    by_hand = [-float(logs[r, p, targets[r, p]]) for r in range(3) for p in range(8) if targets[r, p] != IGNORE]
    assert count == len(by_hand)
    assert float(total.detach()) == pytest.approx(sum(by_hand), rel=1e-12)


def test_float64_gradients_equal_finite_differences() -> None:
    model = build("grouped", dtype=torch.float64)
    ids = tokens(model, 1, 5)
    batch = TokenBatch(ids, ids.roll(-1, 1))
    model.loss(batch)[0].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        at = int(parameter.grad.abs().argmax())
        flat = parameter.data.view(-1)
        old, h = flat[at].item(), 1e-6
        values = []
        for move in (h, -h):
            flat[at] = old + move
            with torch.no_grad():
                values.append(float(model.loss(batch)[0]))
        flat[at] = old
        assert parameter.grad.view(-1)[at].item() == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-5), name


def test_tiny_is_tiny_and_seeded() -> None:
    before = torch.random.get_rng_state()
    model, batch = GPT.tiny()
    other, same = GPT.tiny(seed=1)[0], GPT.tiny()[0]
    assert torch.equal(before, torch.random.get_rng_state())
    assert model.digest() == same.digest() != other.digest()
    total, count = model.loss(batch)
    assert count == int((batch.targets != IGNORE).sum())
    assert float(total.detach()) / count == pytest.approx(torch.log(torch.tensor(23.0)).item(), rel=0.05)
