"""Sites of the gpt family: declared axes, equations, names and costs."""

from __future__ import annotations

import math

import pytest
import torch

from tests.families.models import CONFIGS, TIERED, build, logits, tokens
from workbench.blocks.listen import Listener
from workbench.core.errors import BadValue, EmptySelection, UnknownName
from workbench.core.protocol import Add, Resume, Zero
from workbench.core.tolerance import agree

NAMES = sorted(CONFIGS)


@pytest.mark.parametrize("name", NAMES)
def test_every_site_has_its_declared_axes(name: str) -> None:
    model = build(name)
    c = model.config
    past = model.run(tokens(model, 3, 2), cache=True).past
    ids = tokens(model, 3, 5)
    trace = model.run(ids, capture="*", resume=Resume(past=past))
    length = {
        "batch": 3, "pos": 5, "query": 5, "key": 7, "head": c.n_heads, "kv_head": c.n_kv_heads, "d_model": c.d_model,
        "d_head": c.d_head, "d_mlp": c.d_mlp, "d_vocab": c.d_vocab, "one": 1,
    }  # fmt: skip
    assert list(trace.at) == list(model.sites())  # all of them, in the order of the table
    for site in model.sites().values():
        assert tuple(trace[site].shape) == tuple(length[word] for word in site.axes), site.name
        assert trace.sites[site.name] == site


@pytest.mark.parametrize("name", NAMES)
def test_the_table_is_in_the_order_of_a_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    plain = Listener.hear

    def noting(self: Listener, site: str, tensor: torch.Tensor) -> torch.Tensor:
        order.append(self._prefix + site)
        return plain(self, site, tensor)

    monkeypatch.setattr(Listener, "hear", noting)
    model = build(name)
    model.run(tokens(model), capture="*")
    assert order == list(model.sites())


@pytest.mark.parametrize("name", NAMES)
def test_the_residual_equations(name: str) -> None:
    model = build(name)
    trace = model.run(tokens(model), capture="blocks.*")
    mlp = model.config.act != "none"
    assert model.sites().additive is (model.config.norm_placement != "post")
    for i in range(model.config.n_layers):
        at = {word: trace[f"blocks.{i}.hook_resid_{word}"] for word in ("pre", "mid", "post")}
        attn_out = trace[f"blocks.{i}.hook_attn_out"]
        added = trace[f"blocks.{i}.hook_mlp_out"] if mlp else torch.zeros_like(attn_out)
        if model.sites().additive:
            assert torch.equal(at["mid"], at["pre"] + attn_out)
            assert torch.equal(at["post"], at["mid"] + added)
        else:
            assert not torch.allclose(at["mid"], at["pre"] + attn_out)
        if i:
            assert torch.equal(at["pre"], trace[f"blocks.{i - 1}.hook_resid_post"])
        assert torch.equal(trace[f"blocks.{i}.hook_attn_in"], at["pre"])


def test_the_equations_inside_a_layer() -> None:
    model = build("one_kv", dtype=torch.float64)
    trace = model.run(tokens(model), capture="*")
    at = "blocks.1."
    out = trace[at + "attn.hook_result"].sum(2) + model.weight(at + "attn.b_O")
    assert agree(out, trace[at + "hook_attn_out"], "activation")
    assert agree(trace[at + "attn.hook_attn_scores"].softmax(-1), trace[at + "attn.hook_pattern"], "activation")
    n = trace[at + "ln1.hook_normalized"]
    x = trace[at + "hook_resid_pre"]
    assert agree(n * trace[at + "ln1.hook_scale"], x - x.mean(-1, keepdim=True), "activation")
    read = n * model.weight(at + "ln1.w") + model.weight(at + "ln1.b")
    q = torch.einsum("bpm,hmd->bphd", read, model.weight(at + "attn.W_Q")) + model.weight(at + "attn.b_Q")
    assert agree(q, trace[at + "attn.hook_q"], "activation")
    scores = trace[at + "attn.hook_attn_scores"]
    above = torch.ones(7, 7, dtype=torch.bool).triu(1)
    assert (scores[..., above] == -math.inf).all()
    assert scores[..., ~above].isfinite().all()


def test_a_selection_is_exact_and_never_empty() -> None:
    model = build("plain")
    ids = tokens(model)
    assert model.run(ids).at == {}
    trace = model.run(ids, capture=["blocks.1.attn.hook_z", "hook_embed"], edit=[Zero("blocks.0.hook_attn_out")])
    assert list(trace.at) == ["hook_embed", "blocks.1.attn.hook_z"]  # what is edited is not recorded unasked
    assert len(model.run(ids, capture="blocks.*.attn.hook_pattern").at) == 2
    with pytest.raises(EmptySelection, match=r"matches no site.*Nearest: 'blocks\.\d\.attn\.hook_pattern'"):
        model.run(ids, capture="blocks.0.attn.hook_patern")
    with pytest.raises(EmptySelection, match="matches no site"):
        model.run(ids, edit=[Zero("blocks.7.hook_attn_out")])
    with pytest.raises(UnknownName, match="no axis 'head'"):
        model.run(ids, edit=[Zero("blocks.0.hook_attn_out", at={"head": 0})])
    with pytest.raises(BadValue, match=r"index on axis 'head'.*within 0 to 3"):
        model.run(ids, edit=[Zero("blocks.0.attn.hook_z", at={"head": 4})])


def test_reader_inputs_are_views_and_captures_are_detached() -> None:
    model = build("grouped")
    trace = model.run(tokens(model), capture="*")
    view = trace["blocks.0.hook_q_input"]
    assert view.shape[2] == 4
    assert view.stride()[2] == 0  # one copy of the stream, seen four times
    assert not any(value.requires_grad for value in trace.at.values())
    live = model.run(tokens(model), capture="*", grad=True)
    assert all(value.requires_grad for value in live.at.values())
    assert logits(live).requires_grad


@pytest.mark.parametrize("name", TIERED)
def test_gradients_reach_every_site_as_if_it_stood_in_the_run(name: str) -> None:
    """The gradient at a captured site predicts what a small edit there does to the logits."""
    model = build(name, dtype=torch.float64)
    ids = tokens(model, 1, 5)
    direction = torch.Generator().manual_seed(3)
    weights = torch.randn(model.config.d_vocab, dtype=torch.float64, generator=direction)
    trace = model.run(ids, capture="*", grad=True)
    goal = (logits(trace)[:, -1] @ weights).sum()
    grads = torch.autograd.grad(goal, [trace[site] for site in trace.at], allow_unused=True)
    for site, grad in zip(trace.at, grads, strict=True):
        value = trace[site]
        move = torch.where(value.isfinite(), torch.randn(value.shape, dtype=torch.float64, generator=direction), 0.0) * 1e-6
        up, down = (logits(model.run(ids, edit=[Add(site, value=sign * move)]))[:, -1] @ weights for sign in (1, -1))
        predicted = 0.0 if grad is None else float((grad.nan_to_num() * move).sum())
        assert float((up - down).sum()) / 2 == pytest.approx(predicted, rel=2e-4, abs=1e-10), site


def test_weights_have_the_fields_names_and_shapes() -> None:
    model = build("grouped")
    shapes = {
        "blocks.0.attn.W_Q": (4, 16, 4), "blocks.1.attn.W_K": (2, 16, 4), "blocks.1.attn.W_V": (2, 16, 4), "blocks.0.attn.W_O": (4, 4, 16),
        "blocks.0.attn.b_Q": (4, 4), "blocks.0.attn.b_K": (2, 4), "blocks.0.attn.b_V": (2, 4), "blocks.0.attn.b_O": (16,),
        "blocks.0.mlp.W_in": (16, 48), "blocks.0.mlp.W_gate": (16, 48), "blocks.0.mlp.W_out": (48, 16), "blocks.0.mlp.b_out": (16,),
        "W_E": (17, 16), "W_U": (16, 17), "b_U": (17,), "ln_final.w": (16,), "blocks.0.ln1.w": (16,),
    }  # fmt: skip
    for name, shape in shapes.items():
        weight = model.weight(name)
        assert tuple(weight.shape) == shape, name
        assert not weight.requires_grad
    assert torch.equal(model.weight("W_U"), model.weight("W_E").T)
    assert model.weight("blocks.0.attn.b_Q").abs().max() == 0  # there is no bias, and zeros say so
    with pytest.raises(UnknownName, match=r"no weight 'blocks\.0\.attn\.W_q'.* Did you mean .*'blocks\.0\.attn\.W_Q'"):
        model.weight("blocks.0.attn.W_q")
    with pytest.raises(UnknownName, match="no weight 'W_pos'"):
        model.weight("W_pos")
    assert tuple(build("one_kv").weight("W_pos").shape) == (12, 16)
