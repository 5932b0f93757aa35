"""The listener by itself: exact, scoped, free where nobody listens."""

from __future__ import annotations

import pytest
import torch

from workbench.blocks.listen import Listener, hear, under
from workbench.core.errors import BadValue, EmptySelection
from workbench.core.protocol import Add, Apply, Replace, Zero
from workbench.core.sites import Site, SiteTable

AXES = ("batch", "pos", "d_model")
TABLE = SiteTable([Site(name, AXES) for name in ("hook_embed", "blocks.0.hook_a", "blocks.0.ln1.hook_b", "blocks.10.hook_a")])
X = torch.arange(12.0).reshape(1, 3, 4)


def listening(*names: str, edits: tuple = (), grad: bool = False) -> Listener:
    return Listener(TABLE, TABLE.select(names), edits, grad)


def test_nobody_listening_is_the_tensor_itself() -> None:
    assert hear(None, "hook_embed", X) is X
    assert under(None, "blocks.0.") is None
    assert hear(listening("hook_embed"), "blocks.0.hook_a", X) is X


def test_scopes_end_where_nothing_is_selected() -> None:
    listener = listening("blocks.0.ln1.hook_b")
    assert under(listener, "blocks.10.") is None
    assert under(listener, "blocks.0.attn.") is None
    inner = under(under(listener, "blocks.0."), "ln1.")
    assert inner is not None
    assert inner.wants("hook_b")
    assert hear(inner, "hook_b", X) is X
    at, sites = listener.finish()
    assert torch.equal(at["blocks.0.ln1.hook_b"], X)
    assert list(sites) == ["blocks.0.ln1.hook_b"]


def test_blocks_1_is_not_blocks_10() -> None:
    table = SiteTable([Site("blocks.1.hook_a", AXES), Site("blocks.10.hook_a", AXES)])
    assert under(Listener(table, table.select("blocks.10.hook_a"), (), False), "blocks.1.") is None


def test_edits_apply_in_order_and_only_what_is_asked_for_is_kept() -> None:
    one = torch.tensor(1.0)
    listener = listening("hook_embed", edits=(Add("hook_embed", value=one), Zero("hook_*", at={"pos": 0}), Add("hook_embed", value=one)))
    out = hear(listener, "hook_embed", X)
    assert torch.equal(out[:, 1:], X[:, 1:] + 2)
    assert torch.equal(out[:, 0], torch.ones(1, 4))
    assert torch.equal(listener.finish()[0]["hook_embed"], out)
    silent = listening(edits=(Zero("hook_embed"),))
    hear(silent, "hook_embed", X)
    assert silent.finish() == ({}, {})
    assert torch.equal(X, torch.arange(12.0).reshape(1, 3, 4))  # edits never write into what they were given


def test_what_was_selected_but_never_passed_is_an_error() -> None:
    for listener in (listening("hook_embed"), listening(edits=(Zero("hook_embed"),))):
        with pytest.raises(BadValue, match="'hook_embed'.*sites this run passes"):
            listener.finish()


def test_the_order_is_that_of_the_table() -> None:
    listener = listening("blocks.10.hook_a", "hook_embed")
    hear(under(listener, "blocks.10."), "hook_a", X)
    hear(listener, "hook_embed", X)
    assert list(listener.finish()[0]) == ["hook_embed", "blocks.10.hook_a"]


def test_gradients() -> None:
    leaf = X.clone().requires_grad_()
    plain, live = listening("hook_embed"), listening("hook_embed", grad=True)
    assert hear(plain, "hook_embed", leaf) is leaf
    assert not plain.finish()[0]["hook_embed"].requires_grad
    out = hear(live, "hook_embed", leaf)
    recorded = live.finish()[0]["hook_embed"]
    assert out is recorded
    assert recorded is not leaf  # its own node, so that the gradient is what is read here
    (grad,) = torch.autograd.grad((out * 2).sum() + (leaf * 5).sum(), recorded)
    assert (grad == 2).all()
    assert live.enters("hook_embed")
    assert not plain.enters("hook_embed")
    assert listening(edits=(Zero("hook_embed"),)).enters("hook_embed")


def test_our_own_mistakes_are_assertions() -> None:
    listener = listening("hook_embed")
    with pytest.raises(AssertionError, match="not in the table"):
        hear(listener, "hook_embedd", X)
    hear(listener, "hook_embed", X)
    with pytest.raises(AssertionError, match="heard twice"):
        hear(listener, "hook_embed", X)


def test_users_mistakes_are_explained() -> None:
    with pytest.raises(EmptySelection, match="Nearest: 'hook_embed'"):
        listening(edits=(Zero("hook_embde"),))
    listener = listening(edits=(Replace("hook_embed", value=torch.zeros(5)),))
    with pytest.raises(BadValue, match=r"one whose value fits the activation of shape \(1, 3, 4\)"):
        hear(listener, "hook_embed", X)

    def own(old: torch.Tensor, site: Site) -> torch.Tensor:
        raise RuntimeError("the user's own")

    with pytest.raises(RuntimeError, match="^the user's own$"):
        hear(listening(edits=(Apply("hook_embed", fn=own),)), "hook_embed", X)
