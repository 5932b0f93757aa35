"""Parts of a run: a past continued, a stream entered and left half-way, a token tree in one pass."""

from __future__ import annotations

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from tests.families.models import CONFIGS, TIERED, build, configs, logits, tokens
from workbench.core.batch import TokenBatch
from workbench.core.errors import BadValue, UnknownName
from workbench.core.protocol import Resume, Zero
from workbench.core.tolerance import agree
from workbench.families.gpt import GPT

NAMES = sorted(CONFIGS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", TIERED)
def test_past_and_rest_equal_the_whole(name: str, dtype: torch.dtype) -> None:
    model = build(name, dtype=dtype)
    ids = tokens(model, 3, 9)
    whole = model.run(ids, capture="*")
    for cut in (1, 4, 8):
        past = model.run(ids[:, :cut], cache=True, logits=None).past
        assert (past.length, past.batch) == (cut, 3)
        rest = model.run(ids[:, cut:], capture="*", resume=Resume(past=past), cache=True)
        assert agree(logits(rest), logits(whole)[:, cut:], "logits")
        assert rest.past.length == 9
        assert agree(rest["blocks.0.attn.hook_pattern"], whole["blocks.0.attn.hook_pattern"][:, :, cut:], "activation")


@pytest.mark.parametrize("name", TIERED)
def test_cached_generation_equals_uncached(name: str) -> None:
    model = build(name, dtype=torch.float64)
    ids = tokens(model, 2, 3)
    slow = ids
    trace = model.run(ids, logits="last", cache=True)
    for _ in range(model.config.n_ctx - 3):
        full = logits(model.run(slow))[:, -1]
        assert agree(logits(trace)[:, -1], full, "logits")
        chosen = full.argmax(-1, keepdim=True)
        slow = torch.cat([slow, chosen], 1)
        if slow.shape[1] < model.config.n_ctx:
            trace = model.run(chosen, logits="last", cache=True, resume=Resume(past=trace.past))
    with pytest.raises(BadValue, match="number of tokens is 13, but it must be at most 12"):
        model.run(tokens(model, 2, 1), resume=Resume(past=model.run(slow, cache=True).past))


@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(configs(), st.integers(2, 8), st.data())
def test_any_past_equals_the_whole(fields: dict, length: int, data: st.DataObject) -> None:
    model = build(fields, dtype=torch.float64)
    ids = tokens(model, 2, length)
    cut = data.draw(st.integers(1, length - 1))
    past = model.run(ids[:, :cut], cache=True).past
    assert agree(logits(model.run(ids[:, cut:], resume=Resume(past=past))), logits(model.run(ids))[:, cut:], "logits")


def test_one_past_serves_many_rows() -> None:
    model = build("grouped", dtype=torch.float64)
    lead, tails = tokens(model, 1, 4), tokens(model, 5, 3, 2)
    past = model.run(lead, cache=True).past
    shared = model.run(tails, resume=Resume(past=past), cache=True)
    whole = model.run(torch.cat([lead.expand(5, -1), tails], 1))
    assert agree(logits(shared), logits(whole)[:, 4:], "logits")
    assert past.length == 4  # an immutable value: continuing it does not change it
    again = model.run(tails[:2], resume=Resume(past=shared.past.rows([0, 1]).first(4)))
    assert agree(logits(again), logits(whole)[:2, 4:], "logits")


def test_an_edited_past_is_stored_edited() -> None:
    model = build("plain", dtype=torch.float64)
    ids = tokens(model)
    edit = [Zero("blocks.0.attn.hook_v", at={"pos": 1})]
    past = model.run(ids[:, :4], cache=True, edit=edit).past
    assert agree(logits(model.run(ids[:, 4:], resume=Resume(past=past))), logits(model.run(ids, edit=edit))[:, 4:], "logits")


@pytest.mark.parametrize("name", TIERED)
def test_starting_anywhere_equals_the_whole(name: str) -> None:
    model = build(name, dtype=torch.float64)
    ids = tokens(model)
    whole = model.run(ids, capture="*")
    names = list(model.sites())
    for site in names:
        if "hook_resid_" not in site:
            continue
        later = names[names.index(site) :]
        part = model.run(None, capture=later, resume=Resume(start=site, residual=whole[site]))
        assert agree(logits(part), logits(whole), "logits"), site
        assert {s for s in later if not agree(part[s], whole[s], "activation")} == set()
        with pytest.raises(BadValue, match="lies before its start or after its stop"):
            model.run(ids, capture="hook_embed", resume=Resume(start=site, residual=whole[site]))


@pytest.mark.parametrize("name", TIERED)
def test_stopping_anywhere_has_heard_all_before(name: str) -> None:
    model = build(name, dtype=torch.float64)
    ids = tokens(model)
    whole = model.run(ids, capture="*")
    names = list(model.sites())
    for site in names:
        if "hook_resid_" not in site:
            continue
        before = names[: names.index(site) + 1]
        part = model.run(ids, capture=before, resume=Resume(stop=site))
        assert part.logits is None
        assert {s for s in before if not agree(part[s], whole[s], "activation")} == set()
        with pytest.raises(BadValue, match="lies before its start or after its stop"):
            model.run(ids, edit=[Zero("unembed.hook_in")], resume=Resume(stop=site))


def test_two_parts_make_a_whole_also_with_a_past() -> None:
    model = build("grouped", dtype=torch.float64)
    ids = tokens(model, 2, 8)
    past = model.run(ids[:, :3], cache=True).past
    site = "blocks.1.hook_resid_pre"
    middle = model.run(ids[:, 3:], capture=site, resume=Resume(stop=site, past=past))[site]
    out = logits(model.run(None, resume=Resume(start=site, residual=middle, past=past)))
    assert agree(out, logits(model.run(ids))[:, 3:], "logits")


def _tree(model: GPT, lead: torch.Tensor, children: list[list[int]]) -> tuple[torch.Tensor, Resume]:
    """All children of ``lead`` in one row: each sees the lead and itself only."""
    flat = [t for child in children for t in child]
    begin, n = lead.shape[1], lead.shape[1] + len(flat)
    mask = torch.zeros(1, n, n, dtype=torch.bool)
    mask[0, :begin, :begin] = torch.ones(begin, begin).tril().bool()
    positions, at = list(range(begin)), begin
    for child in children:
        mask[0, at : at + len(child), :begin] = True
        mask[0, at : at + len(child), at : at + len(child)] = torch.ones(len(child), len(child)).tril().bool()
        positions += range(begin, begin + len(child))
        at += len(child)
    ids = torch.cat([lead, torch.tensor([flat])], 1)
    return ids, Resume(mask=mask, positions=torch.tensor([positions]))


@pytest.mark.parametrize("name", NAMES)
def test_a_token_tree_in_one_pass_equals_its_branches_apart(name: str) -> None:
    model = build(name, dtype=torch.float64)
    lead = tokens(model, 1, 4)
    children = [[1, 2, 3], [4, 5], [1, 6, 7, 8], [9]]
    ids, resume = _tree(model, lead, children)
    assert ids.shape[1] > model.config.n_ctx  # what counts is the position, not the column
    out, at = logits(model.run(ids, resume=resume)), 4
    past = model.run(lead, cache=True).past
    assert resume.mask is not None
    assert resume.positions is not None
    tail = Resume(past=past, mask=resume.mask[:, 4:], positions=resume.positions[:, 4:])
    cached = logits(model.run(ids[:, 4:], resume=tail))
    for child in children:
        alone = logits(model.run(torch.cat([lead, torch.tensor([child])], 1)))[:, 4:]
        assert agree(out[:, at : at + len(child)], alone, "logits")
        assert agree(cached[:, at - 4 : at - 4 + len(child)], alone, "logits")
        at += len(child)


def test_a_given_mask_replaces_causal_order_and_is_joined_with_segments() -> None:
    model = build("plain", dtype=torch.float64)
    ids = tokens(model, 1, 6)
    causal = torch.ones(1, 6, 6).tril().bool()
    assert agree(logits(model.run(ids, resume=Resume(mask=causal))), logits(model.run(ids)), "logits")
    everything = logits(model.run(ids, resume=Resume(mask=torch.ones_like(causal))))
    assert not agree(everything, logits(model.run(ids)), "logits")
    segments = torch.tensor([[0, 0, 0, 1, 1, 1]])
    both = logits(model.run(TokenBatch(ids, ids, segments, None), resume=Resume(mask=torch.ones_like(causal))))
    joined = segments[:, :, None] == segments[:, None, :]
    assert agree(both, logits(model.run(ids, resume=Resume(mask=joined))), "logits")


def test_positions_move_tokens() -> None:
    learned = build("one_kv", dtype=torch.float64)
    ids = tokens(learned, 2, 4)
    moved = torch.tensor([[3, 4, 5, 6]])
    assert not agree(logits(learned.run(ids, resume=Resume(positions=moved))), logits(learned.run(ids)), "logits")
    turning = build("plain", dtype=torch.float64)  # rotary positions are relative: an equal shift changes nothing
    assert agree(logits(turning.run(ids, resume=Resume(positions=moved))), logits(turning.run(ids)), "logits")


def test_parts_that_make_no_sense_say_so() -> None:
    model = build("plain")
    ids = tokens(model)
    x = torch.zeros(2, 7, 16)
    at = "blocks.1.hook_resid_pre"
    past = model.run(ids, cache=True).past
    cases = [
        (Resume(start=at), "start without residual"),
        (Resume(residual=x), "residual without start"),
        (Resume(start=at, residual=x[:, :, :3]), r"resume.residual is \(2, 7, 3\)"),
        (Resume(start=at, residual=x.double()), r"dtype of resume.residual is 'torch.float64'"),
        (Resume(start=at, residual=x[:, :5]), "that of the batch"),
        (Resume(start=at, residual=x, stop="blocks.0.hook_resid_mid"), "at or after resume.start"),
        (Resume(past=past.rows([0, 1, 1])), "rows of resume.past is 3"),
        (Resume(past=torch.zeros(2)), "the `past` of a Trace of this model"),
        (Resume(positions=torch.zeros(2, 3, dtype=torch.long)), "the positions"),
        (Resume(positions=torch.full((2, 7), 12)), "a position is 12, but it must be within 0 to 11"),
        (Resume(positions=torch.zeros(2, 7)), "the positions"),
        (Resume(mask=torch.ones(2, 7, 6, dtype=torch.bool)), "resume.mask"),
        (Resume(mask=torch.ones(2, 7, 7)), "resume.mask"),
    ]
    for resume, words in cases:
        with pytest.raises(BadValue, match=words):
            model.run(ids, resume=resume)
    with pytest.raises(UnknownName, match=r"no residual site 'blocks\.2\.hook_resid_pre'.*residual stream only"):
        model.run(ids, resume=Resume(start="blocks.2.hook_resid_pre", residual=x))
    with pytest.raises(UnknownName, match="no residual site 'hook_embed'"):
        model.run(ids, resume=Resume(stop="hook_embed"))
    with pytest.raises(BadValue, match="the past would lack layers"):
        model.run(ids, cache=True, resume=Resume(stop=at))
    with pytest.raises(BadValue, match="the segments of the past are not known"):
        model.run(TokenBatch(ids[:, :2], ids[:, :2], torch.zeros(2, 2, dtype=torch.long)), resume=Resume(past=past.first(3)))
