"""Edits: patching with itself changes nothing, an edit does what its equation says, threads do not meet, a crash leaves nothing."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.families.models import CONFIGS, TIERED, build, logits, tokens
from workbench.core.errors import BadValue
from workbench.core.protocol import Add, Apply, FromTrace, Mean, Replace, Scale, Zero
from workbench.core.sites import Site
from workbench.core.tolerance import agree
from workbench.families.gpt import GPT

NAMES = sorted(CONFIGS)


FAST = [("grouped", torch.float32), ("post", torch.bfloat16), ("attention_only_bare", torch.float64)]
REST = [
    (name, dtype) for name in NAMES for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64) if (name, dtype) not in FAST
]


@pytest.mark.parametrize(("name", "dtype"), [*FAST, *(pytest.param(*case, marks=pytest.mark.slow) for case in REST)])
def test_patching_every_site_with_itself_is_exactly_nothing(name: str, dtype: torch.dtype) -> None:
    model = build(name, dtype=dtype)
    ids = tokens(model)
    for site in model.sites():
        trace = model.run(ids, capture=site)
        again = model.run(ids, edit=[FromTrace(site, trace=trace)])
        assert torch.equal(logits(again), logits(trace)), site
    readers = [s for s in model.sites() if s.endswith("_input")]
    others = [s for s in model.sites() if s not in readers]
    for group in (readers, others):
        trace = model.run(ids, capture=group)
        assert torch.equal(logits(model.run(ids, edit=[FromTrace(s, trace=trace) for s in group])), logits(trace))


@pytest.mark.parametrize("name", TIERED)
def test_every_site_but_dead_ends_reaches_the_logits(name: str) -> None:
    """Noise at any site moves the logits of the last position: no site is a decoration."""
    model = build(name, dtype=torch.float64)
    ids = tokens(model, 1, 6)
    clean = logits(model.run(ids))[:, -1]
    noise = lambda old, _: old + 0.1 * torch.randn(old.shape, dtype=old.dtype, generator=torch.Generator().manual_seed(0))  # noqa: E731
    still = [s for s in model.sites() if torch.equal(logits(model.run(ids, edit=[Apply(s, fn=noise)]))[:, -1], clean)]
    assert still == []


def test_edits_do_what_they_say() -> None:
    model = build("grouped", dtype=torch.float64)
    ids = tokens(model)
    clean = model.run(ids, capture="*")
    z, at = "blocks.0.attn.hook_z", "blocks.0.hook_attn_out"
    one = model.run(ids, capture="*", edit=[Zero(z, at={"head": 1})])
    assert one[z][:, :, 1].abs().max() == 0
    assert agree(one[at], clean[at] - clean["blocks.0.attn.hook_result"][:, :, 1], "activation")
    same = model.run(ids, capture="*", edit=[Zero("blocks.0.attn.hook_result", at={"head": 1})])
    assert agree(logits(same), logits(one), "logits")
    moved = model.run(ids, capture="*", edit=[Scale(at, factor=2.0), Add(at, value=torch.tensor(1.0), at={"pos": [2, 3]})])
    assert agree(moved[at][:, 2], 2 * clean[at][:, 2] + 1, "activation")
    assert agree(moved[at][:, 0], 2 * clean[at][:, 0], "activation")
    mean = model.run(ids, capture=at, edit=[Mean(at)])
    assert agree(mean[at], clean[at].mean(0, keepdim=True).expand(2, -1, -1), "activation")


def test_a_reader_input_changes_its_reader_alone() -> None:
    model = build("grouped", dtype=torch.float64)
    ids = tokens(model)
    clean = model.run(ids, capture="blocks.0.*")
    x = clean["blocks.0.hook_resid_pre"]
    other = x.roll(1, 0)
    swap = Replace("blocks.0.hook_k_input", value=other.unsqueeze(2), at={"kv_head": 1})
    out = model.run(ids, capture="blocks.0.*", edit=[swap])
    assert torch.equal(out["blocks.0.attn.hook_q"], clean["blocks.0.attn.hook_q"])
    assert torch.equal(out["blocks.0.attn.hook_v"], clean["blocks.0.attn.hook_v"])
    assert torch.equal(out["blocks.0.attn.hook_k"][:, :, 0], clean["blocks.0.attn.hook_k"][:, :, 0])
    assert agree(out["blocks.0.attn.hook_k"][:, :, 1], clean["blocks.0.attn.hook_k"].roll(1, 0)[:, :, 1], "activation")
    assert torch.equal(out["blocks.0.hook_resid_pre"], x)


def test_a_frozen_scale_is_used_by_the_output_and_by_every_reader() -> None:
    model = build("plain", dtype=torch.float64)
    ids = tokens(model)
    clean = model.run(ids, capture="*")
    scale, reader = "blocks.0.ln1.hook_scale", "blocks.0.hook_q_input"
    other = clean["blocks.0.hook_resid_pre"].roll(1, 0)
    q = model.run(ids, capture="blocks.0.attn.hook_q", edit=[
        FromTrace(scale, trace=clean), Apply(reader, fn=lambda old, _: other.unsqueeze(2).expand_as(old)),
    ])["blocks.0.attn.hook_q"]  # fmt: skip
    read = (other - other.mean(-1, keepdim=True)) / clean[scale] * model.weight("blocks.0.ln1.w") + model.weight("blocks.0.ln1.b")
    by_hand = torch.einsum("bpm,hmd->bphd", read, model.weight("blocks.0.attn.W_Q")) + model.weight("blocks.0.attn.b_Q")
    assert agree(q, by_hand, "activation")
    doubled = model.run(ids, capture="blocks.0.ln1.hook_normalized", edit=[Scale(scale, factor=2.0)])
    assert agree(doubled["blocks.0.ln1.hook_normalized"] * 2, clean["blocks.0.ln1.hook_normalized"], "activation")
    with pytest.raises(BadValue, match="a reader has a norm of its own"):
        model.run(ids, edit=[Zero(reader), Zero("blocks.0.ln1.hook_normalized")])


def test_knocking_out_all_keys_of_a_query_gives_zeros_and_a_real_nan_stays_one() -> None:
    model = build("plain", dtype=torch.float64)
    ids = tokens(model)
    scores, z = "blocks.0.attn.hook_attn_scores", "blocks.0.attn.hook_z"
    minus = torch.tensor(float("-inf"))
    out = model.run(ids, capture=z, edit=[Replace(scores, value=minus, at={"query": 3, "head": 0})])
    assert out[z][:, 3, 0].abs().max() == 0
    assert logits(out).isfinite().all()
    broken = model.run(ids, edit=[Replace(scores, value=torch.tensor(float("nan")), at={"query": 3, "head": 0})])
    assert logits(broken)[:, 3].isnan().all()


def test_edits_that_do_not_fit_say_so() -> None:
    model = build("plain")
    ids = tokens(model)
    with pytest.raises(BadValue, match=r"edit at 'hook_embed' is 'Replace'.*shape \(2, 7, 16\)"):
        model.run(ids, edit=[Replace("hook_embed", value=torch.zeros(3))])
    with pytest.raises(BadValue, match="the edit function's result"):
        model.run(ids, edit=[Apply("hook_embed", fn=lambda old, _: old[:, :1])])
    other = model.run(ids[:, :3], capture="hook_embed")
    with pytest.raises(BadValue, match=r"the captured 'hook_embed' is \(2, 3, 16\)"):
        model.run(ids, edit=[FromTrace("hook_embed", trace=other)])


def _everything(model: GPT) -> dict[str, Any]:
    """All a module could remember: hooks of every kind, attributes, training flags."""
    out: dict[str, Any] = {}
    for name, module in model.named_modules():
        held = {k: v for k, v in vars(module).items() if not isinstance(v, dict) or k.startswith("_")}
        out[name] = {k: (len(v) if isinstance(v, dict) else id(v)) for k, v in held.items()}
    return out


def test_a_crash_inside_an_edit_leaves_nothing_behind() -> None:
    model = build("grouped").train()
    ids = tokens(model)
    before, clean, digest = _everything(model), model.run(ids, capture="*"), model.digest()

    def crash(old: Tensor, site: Site) -> Tensor:
        raise KeyError("inside the edit")

    for site in model.sites():
        with pytest.raises(KeyError, match="inside the edit"):
            model.run(ids, capture="*", edit=[Apply(site, fn=crash)], grad=True)
    assert _everything(model) == before
    assert torch.is_grad_enabled()
    assert model.digest() == digest
    again = model.run(ids, capture="*")
    assert torch.equal(logits(again), logits(clean))
    assert all(torch.equal(again[s], clean[s]) for s in model.sites())
    hooks = [n for m in model.modules() for n, v in vars(m).items() if "hooks" in n and v and isinstance(v, dict)]
    assert hooks == []
    assert model.training


def test_the_leak_check_itself_sees_a_hook() -> None:
    model = build("plain")
    before = _everything(model)
    handle = model.stack.blocks[0].register_forward_hook(lambda *_: None)
    assert _everything(model) != before
    handle.remove()


def test_run_ignores_training_mode_and_the_random_state() -> None:
    model = build({"dropout": 0.5})
    ids = tokens(model)
    calm, state = logits(model.run(ids)), torch.random.get_rng_state()
    model.train()
    assert torch.equal(logits(model.run(ids)), calm)
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)


def test_two_threads_on_one_model_do_not_meet() -> None:
    model = build("plain")
    ids = tokens(model)
    edits = [[], [Zero("blocks.0.hook_attn_out")], [Scale("blocks.1.hook_mlp_out", factor=3.0)], [Zero("hook_embed", at={"pos": 1})]]
    expected = [model.run(ids, edit=edit, capture="blocks.*.hook_resid_post") for edit in edits]
    wrong: list[str] = []
    barrier = threading.Barrier(len(edits))

    def work(number: int) -> None:
        barrier.wait()
        for _ in range(30):
            trace = model.run(ids, edit=edits[number], capture="blocks.*.hook_resid_post", grad=bool(number % 2))
            if not torch.equal(logits(trace), logits(expected[number])) or logits(trace).requires_grad != bool(number % 2):
                wrong.append(f"thread {number}")
            wrong.extend(name for name in trace.at if not torch.equal(trace[name], expected[number][name]))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(edits))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_run_registers_nothing_while_it_runs() -> None:
    model = build("plain")
    seen: list[int] = []

    def count(old: Tensor, site: Site) -> Tensor:
        seen.append(sum(len(v) for m in model.modules() for k, v in vars(m).items() if "hooks" in k and isinstance(v, dict)))
        return old

    model.run(tokens(model), edit=[Apply("blocks.1.hook_resid_mid", fn=count)])
    assert seen == [0]
    assert isinstance(model, nn.Module)
