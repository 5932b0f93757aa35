"""Runs read at some positions against runs read at all: the same numbers, wherever the others end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tests.families.models import TIERED, build, logits, tokens
from tests.families.test_every_family import tiny
from workbench.blocks.ending import WHOLE
from workbench.core.errors import BadValue
from workbench.core.protocol import Replace, Resume
from workbench.core.tolerance import agree, gap
from workbench.families.gpt import GPT

LENGTH = 7
ASKED: list[Any] = ["last", [-1, 0, 3], torch.tensor([[6, 1], [0, 4]]), torch.tensor([[6], [6]])]


def slowly(model: Any, batch: Any, asked: Any, **options: Any) -> Tensor:
    """The asked positions of a run of all of them."""
    whole = logits(model.run(batch, logits="all", **options))
    where = torch.tensor([-1]) if isinstance(asked, str) else torch.as_tensor(asked)
    return whole[:, where] if where.ndim == 1 else torch.stack([row[at] for row, at in zip(whole, where, strict=True)])


@pytest.mark.parametrize("name", TIERED)
def test_logits_caches_and_gradients_of_some_positions(name: str) -> None:
    model = build(name, dtype=torch.float64)
    ids = tokens(model, 2, LENGTH)
    past = model.run(ids[:, :3], cache=True).past
    for asked in ASKED:
        assert agree(logits(model.run(ids, logits=asked)), slowly(model, ids, asked), "logits")
    for asked in ("last", [1, 3]):
        few = model.run(ids[:, 3:], logits=asked, resume=Resume(past=past), cache=True)
        assert agree(logits(few), slowly(model, ids[:, 3:], asked, resume=Resume(past=past)), "logits")
        kept = model.run(ids, cache=True).past
        assert all(agree(a, b, "activation") for x, y in zip(few.past.layers, kept.layers, strict=True) for a, b in zip(x, y, strict=True))
    leaf = model.run(ids, capture="hook_embed")["hook_embed"].requires_grad_()
    found, expected = (
        torch.autograd.grad(read(model, ids, [-1, 2], edit=[Replace("hook_embed", value=leaf)], grad=True).square().sum(), leaf)[0]
        for read in (lambda model, ids, asked, **options: logits(model.run(ids, logits=asked, **options)), slowly)
    )
    assert agree(found, expected, "gradient")


@pytest.mark.parametrize("family", ["seq2seq", "whisper"])
def test_decoders_that_read_a_memory(family: str) -> None:
    model, batch = tiny(family)
    width = logits(model.run(batch)).shape[1]
    for asked in ("last", [0, width - 1]):
        assert agree(logits(model.run(batch, logits=asked)), slowly(model, batch, asked), "logits")
    tail, at = model.decoder.stack.depth - 1, torch.tensor([[width - 1, 0]])
    stop = f"decoder.blocks.{tail}.hook_resid_mid_cross"
    few = model.run(batch, capture=stop, logits=None, resume=Resume(stop=stop, only=at))[stop]
    assert agree(few, model.run(batch, capture=stop)[stop][:, at[0]], "activation")


def test_masks_and_positions_of_their_own() -> None:
    model = build("grouped", dtype=torch.float64)
    ids, draw = tokens(model, 2, LENGTH), torch.Generator().manual_seed(0)
    seen = torch.rand(2, LENGTH, LENGTH, generator=draw) < 0.6
    positions = torch.randint(0, 12, (2, LENGTH), generator=draw)
    resume = Resume(mask=seen, positions=positions)
    for asked in ASKED:
        assert agree(logits(model.run(ids, logits=asked, resume=resume)), slowly(model, ids, asked, resume=resume), "logits")


def test_a_listener_hears_every_position_and_the_numbers_stay() -> None:
    model = build("grouped", dtype=torch.float64)
    ids = tokens(model, 2, LENGTH)
    whole = model.run(ids, capture="*")
    for name in model.sites():
        few = model.run(ids, capture=name, logits="last")
        assert agree(few[name], whole[name], "activation"), name
        assert agree(logits(few), logits(whole)[:, -1:], "logits"), name
    early = [f"blocks.1.{name}" for name in WHOLE]
    assert products(lambda: model.run(ids, capture=early, logits="last")) == products(lambda: model.run(ids, logits="last"))


def products(work: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def test_what_nobody_reads_is_not_computed() -> None:
    model = build("plain", dtype=torch.float64)
    c, ids = model.config, tokens(model, 2, LENGTH)
    spared = products(lambda: model.run(ids)) - products(lambda: model.run(ids, logits="last"))
    places = 2 * (LENGTH - 1)  # queries, output and MLP of the last layer, and the logits; the counter leaves the kernel of attention out
    assert spared == 2 * places * (2 * c.d_model**2 + 2 * c.d_model * c.d_mlp + c.d_model * c.d_vocab)


@pytest.mark.parametrize("name", ["plain", "one_kv", "post", "no_norm"])
def test_a_run_for_its_cache_alone_ends_with_its_keys_and_values(name: str) -> None:
    model = build(name, dtype=torch.float64)
    c, ids = model.config, tokens(model, 2, LENGTH)
    before = model.run(ids[:, :2], cache=True).past
    for past, rest in ((None, ids), (before, ids[:, 2:])):
        resume = Resume(past=past)
        expected = model.run(rest, cache=True, capture="*", resume=resume)  # heard everywhere, so run whole
        found = model.run(rest, cache=True, logits=None, resume=resume)
        pairs = zip(found.past.layers, expected.past.layers, strict=True)
        assert all(agree(a, b, "activation") for x, y in pairs for a, b in zip(x, y, strict=True))
        for site in ("blocks.1.attn.hook_k", "blocks.1.hook_attn_in", "blocks.1.hook_resid_mid", "ln_final.hook_scale"):
            if site in model.sites():
                heard = model.run(rest, cache=True, logits=None, resume=resume, capture=site)
                assert agree(heard[site], expected[site], "activation"), site
    spared = products(lambda: model.run(ids)) - products(lambda: model.run(ids, logits=None, cache=True))
    assert spared == 2 * ids.numel() * (2 * c.d_model**2 + 2 * c.d_model * c.d_mlp + c.d_model * c.d_vocab)


def test_a_run_for_what_it_captures_ends_there() -> None:
    for model, batch in (tiny("gpt"), tiny("seq2seq"), tiny("clip"), tiny("whisper")):
        whole = model.run(batch, capture="*")
        for name in list(model.sites())[::17]:
            found = model.run(batch, capture=name, logits=None)
            assert list(found.at) == [name]
            assert torch.equal(found[name], model.run(batch, capture=name)[name]), name
            assert agree(found[name], whole[name], "activation"), name
    model = build("plain")
    ids = tokens(model, 2, LENGTH)
    assert products(lambda: model.run(ids, capture="hook_embed", logits=None)) == 0
    later = model.run(ids, capture="hook_embed", edit=[Replace("blocks.1.hook_mlp_out", value=torch.zeros(()))], logits=None)
    assert list(later.at) == ["hook_embed"]  # an edit after it is passed all the same: one that is never met is an error


def test_told_positions_are_where_the_run_goes_on() -> None:
    for name in ("plain", "post", "one_kv"):
        model = build(name, dtype=torch.float64)
        ids = tokens(model, 2, LENGTH)
        whole = model.run(ids, capture="blocks.1.*")
        for at in (torch.tensor([[5, 2]]), torch.tensor([[6], [6]]), torch.tensor([[1, 4], [0, 6]])):
            for stop in ("blocks.1.hook_resid_mid", "blocks.1.hook_resid_post"):
                x = whole["blocks.1.hook_resid_pre"]
                resume = Resume(start="blocks.1.hook_resid_pre", residual=x, stop=stop, only=at)
                found = model.run(None, capture=[stop, "blocks.1.attn.hook_q"], logits=None, resume=resume)
                rows = torch.arange(2)[:, None]
                assert agree(found[stop], whole[stop][rows, at], "activation")
                assert agree(found["blocks.1.attn.hook_q"], whole["blocks.1.attn.hook_q"][rows, at], "activation")
            assert agree(logits(model.run(ids, resume=Resume(only=at))), logits(whole)[torch.arange(2)[:, None], at], "logits")


BAD: list[tuple[dict[str, Any], Any, str]] = [
    ({"only": torch.tensor([[7]])}, "all", r"resume\.only is .*within 0 to 6"),
    ({"only": torch.tensor([[-1]])}, "all", r"resume\.only is .*within 0 to 6"),
    ({"only": torch.tensor([1])}, "all", r"integer positions \[1 or 2, n\]"),
    ({"only": torch.tensor([[0.5]])}, "all", r"integer positions \[1 or 2, n\]"),
    ({"only": torch.zeros(3, 1, dtype=torch.long)}, "all", r"integer positions \[1 or 2, n\]"),
    ({"only": torch.tensor([[3]])}, "last", "logits is 'last', but it must be 'all' or None beside"),
    ({"only": torch.tensor([[3]]), "stop": "blocks.1.hook_resid_pre"}, None, "does not pass the last layer's attention"),
    ({"only": torch.tensor([[3]]), "stop": "blocks.0.hook_resid_post"}, None, "does not pass the last layer's attention"),
]


@pytest.mark.parametrize(("resume", "asked", "words"), BAD)
def test_what_cannot_be_told(resume: dict[str, Any], asked: Any, words: str) -> None:
    model = build("plain")
    with pytest.raises(BadValue, match=words):
        model.run(tokens(model, 2, LENGTH), logits=asked, resume=Resume(**resume))


def test_a_shortcut_that_leaves_out_too_much_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of the asked positions alone, as if the others were not there."""
    model: GPT = build("plain", dtype=torch.float64)
    ids = tokens(model, 2, LENGTH)
    expected, plain = slowly(model, ids, [6, 2]), model.stack.forward
    take = lambda x, setting, **more: plain(x if setting.only is None else setting.only.take(x), setting, **more)  # noqa: E731
    monkeypatch.setattr(model.stack, "forward", take)
    with pytest.raises((AssertionError, RuntimeError, IndexError)):
        assert gap(logits(model.run(ids, logits=[6, 2])), expected) <= 1e-12
