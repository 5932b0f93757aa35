"""Interchange where the causal variable's direction is planted: found on held-out pairs, words and values; placebos at their chance."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.interchange import INSTRUMENT, InterchangeResult, InterchangeSpec
from probes.interchange_fit import directions, overlap
from probes.interchange_runs import Held, answers_after, credits, exchanged, held_at, read_pairs
from tests.probes.unchecked import unchecked
from workbench.core.errors import BadValue, EmptySelection, UsageError
from workbench.core.protocol import FromTrace, Inputs
from workbench.families.bert import BERT
from workbench.organisms.planted_direction import NO, WORDS, YES, Planted, planted_direction

BEFORE, AT = (f"blocks.{layer}.hook_resid_post" for layer in (0, 1))
DOSE = 2.0


@pytest.fixture(scope="module")
def planted() -> Planted:
    return planted_direction(dose=DOSE)


def pairs_of(planted: Planted, n: int = 400) -> Inputs:
    """Random sentences; the counterfactual answer is the source's, since the answer depends on the variable alone."""
    (base, _), (source, differ) = planted.sentences(n, 0), planted.sentences(n, 1)
    return Inputs(base, reference=source, targets=torch.where(differ == 1, YES, NO))


def unread(planted: Planted) -> list[list[float]]:
    """The axes of a word's class and of the sum of classes: full of the variable's causes, and after layer 1 nothing reads them."""
    return torch.eye(planted.model.config.d_model)[-2:].tolist()


def asked(planted: Planted, inputs: Inputs | None = None, **spec: Any) -> InterchangeResult:
    words = {"sites": [AT], "subspace": [planted.direction.tolist()], "inert": unread(planted), "steps": 200}
    chosen = InterchangeSpec.parse(words | spec)
    with unchecked() if chosen.steps > 10 else nullcontext():
        found = INSTRUMENT(planted.model, pairs_of(planted) if inputs is None else inputs, chosen)
    assert isinstance(found, InterchangeResult)
    return found


# --- planted truth, placebos, twin -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(planted: Planted) -> InterchangeResult:
    return asked(planted)


@pytest.mark.slow
def test_the_planted_direction_is_found_and_carries_the_answer_on_held_out_pairs(planted: Planted, found: InterchangeResult) -> None:
    one = found.values.sel(site=AT)
    assert float(one["accuracy"].sel(who="found")) >= 0.95
    assert float(one["accuracy_low"].sel(who="found")) > float(one["chance"].sel(who="found")) + 0.2
    assert float(one["cosine"]) >= 0.95
    along = found.directions(AT)
    assert float(one["cosine"]) == pytest.approx(abs(float(along[:, 0] @ planted.direction.double())), abs=1e-6)
    assert float(one["accuracy"].sel(who="whole")) == float(one["accuracy"].sel(who="given")) == 1.0


@pytest.mark.slow
def test_placebos_of_the_same_budget_are_at_their_own_chance(found: InterchangeResult) -> None:
    one = found.values.sel(site=AT)
    for who in ("permuted", "inert", "untrained", "none", "random"):
        at = one.sel(who=who)
        assert float(at["accuracy_low"]) <= float(at["chance"]), who
        assert float(at["accuracy_high"]) < 0.75, who
    alike = one["accuracy"].sel(who=["inert", "none"]).values
    assert alike[0] == alike[1], "nothing reads the inert axes, whatever is exchanged along them"


@pytest.mark.slow
def test_words_that_the_search_never_saw(planted: Planted) -> None:
    """Blocks of one word of each class; every block's sentences are paired within it, and whole blocks are held out."""
    minus, plus = ((planted.classes == value).nonzero()[:, 0] + WORDS for value in (-1, 1))
    rows, groups, targets = [], [], []
    for block, couple in enumerate(zip(minus.tolist(), plus.tolist(), strict=True)):
        for base in product((0, 1), repeat=4):
            rows.append([couple[kind] for kind in base])
            groups.append(block)
            targets.append(YES if base[2] != base[3] else NO)
    ids = torch.tensor(rows)
    side = lambda part: torch.cat([torch.zeros(len(ids), 1).long(), part], 1)  # noqa: E731
    inputs = Inputs(side(ids[:, :2]), reference=side(ids[:, 2:]), targets=torch.tensor(targets), groups=groups)
    one = asked(planted, inputs).values.sel(site=AT)
    assert int(one["n_test"]) == 8 * 16
    assert float(one["accuracy"].sel(who="found")) >= 0.95
    assert 0.6 < float(one["accuracy_low"].sel(who="found")) < 0.8, "an interval over 8 blocks, not over 128 pairs"
    assert float(one["cosine"]) >= 0.95


@pytest.mark.full
def test_pairs_of_values_that_the_search_never_saw(planted: Planted) -> None:
    inputs = pairs_of(planted)
    kinds = [planted.classes[side[:, 1:] - WORDS].tolist() for side in (inputs.batch, inputs.reference)]
    groups = [str(pair) for pair in zip(*kinds, strict=True)]
    assert len(set(groups)) == 16
    one = asked(planted, replace(inputs, groups=groups)).values.sel(site=AT)
    assert float(one["accuracy"].sel(who="found")) >= 0.95


@pytest.mark.slow
def test_nothing_is_found_in_the_twin_in_which_nothing_is_planted() -> None:
    one = asked(planted_direction(dose=0.0)).values.sel(site=AT)
    for who in ("found", "whole", "given"):
        assert float(one["accuracy_low"].sel(who=who)) <= float(one["chance"].sel(who=who)), who
        assert float(one["accuracy_high"].sel(who=who)) < 0.75, who


@pytest.mark.full
def test_before_its_layer_the_variable_lives_in_what_it_is_computed_from(planted: Planted) -> None:
    """There the sum of classes is what carries the answer, which the instrument must say, and not the direction written later."""
    one = asked(planted, sites=[BEFORE])
    axis = torch.eye(planted.model.config.d_model, dtype=torch.float64)[:, -1:]
    assert float(one.values["accuracy"].sel(site=BEFORE, who="found")) >= 0.95
    assert overlap(one.directions(BEFORE), axis) >= 0.95
    assert float(one.values["cosine"].sel(site=BEFORE)) < 0.3


@pytest.mark.slow
def test_summary_and_chart(found: InterchangeResult) -> None:
    said = found.summary()
    assert f"At {AT}, the best of 1 sites asked, exchanging 1 direction gives the counterfactual answer in 1.000" in said
    assert "Placebos of the same budget: untrained 0." in said
    assert "Cosine with the directions given: 0.9" in said
    assert "Searched on 240 pairs, scored on 160 others among 2 answers." in said
    assert "chance" in str(found.plot().to_dict())


# --- the exchange ------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), dims=st.integers(1, 5), width=st.integers(5, 9))
def test_an_exchange_takes_the_source_along_and_keeps_the_base_across(seed: int, dims: int, width: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    real = lambda *shape: torch.randn(*shape, generator=draw, dtype=torch.float64)  # noqa: E731
    base, source, q = real(3, 4, width), real(3, 1, width), directions(real(width, dims))
    here = torch.tensor([[0], [3], [-1]])
    out = exchanged(base, source, here, q)
    assert torch.equal(out[2], base[2]), "nowhere"
    for row, at in ((0, 0), (1, 3)):
        others = [p for p in range(4) if p != at]
        assert torch.equal(out[row, others], base[row, others])
        assert torch.allclose(out[row, at] @ q, source[row, 0] @ q, atol=1e-12)
        across = torch.eye(width, dtype=torch.float64) - q @ q.T
        assert torch.allclose(out[row, at] @ across, base[row, at] @ across, atol=1e-12)
    turned = directions(real(dims, dims))
    assert torch.allclose(exchanged(base, source, here, q @ turned), out, atol=1e-12), "the span alone matters"
    assert torch.equal(exchanged(base, source, here, torch.zeros_like(q)), base)
    assert overlap(q, q @ turned) == pytest.approx(1.0)


@pytest.mark.parametrize("site", [AT, "blocks.1.attn.hook_z", "blocks.0.hook_mlp_out"])
def test_the_whole_activation_is_activation_patching_of_that_position(planted: Planted, site: str) -> None:
    inputs = pairs_of(planted, 20)
    model = planted.model
    pairs = read_pairs(model, inputs, -2, False, True, 10_000)
    held = held_at(model, pairs, [model.sites()[site]], 10**7)[site]
    ours = answers_after(model, pairs, torch.arange(20), held, torch.eye(held.source.shape[-1]))
    trace = model.run(inputs.reference, capture=site)
    theirs = model.run(inputs.batch, edit=[FromTrace(site, trace=trace, at={"pos": 1})]).logits
    assert theirs is not None
    assert torch.allclose(ours, theirs[:, -1, [YES, NO]], atol=1e-5)


def test_a_run_that_begins_at_the_site_says_what_a_whole_run_says(planted: Planted) -> None:
    inputs = pairs_of(planted, 30)
    model = planted.model.double()
    try:
        for everywhere in (False, True):
            pairs = read_pairs(model, inputs, None, everywhere, True, 10_000)
            held = held_at(model, pairs, [model.sites()[BEFORE]], 10**7)[BEFORE]
            assert held.base is not None
            along = directions(torch.randn(24, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
            fast = answers_after(model, pairs, torch.arange(30), held, along)
            slow = answers_after(model, pairs, torch.arange(30), Held(BEFORE, held.source), along)
            assert torch.allclose(fast, slow, atol=1e-12, rtol=0)
    finally:
        model.float()


def test_a_pair_is_right_wrong_or_a_share_of_equal_answers(planted: Planted) -> None:
    inputs = pairs_of(planted, 40)
    pairs = read_pairs(planted.model, inputs, None, False, True, 10)
    held = held_at(planted.model, pairs, [planted.model.sites()[AT]], 10**7)[AT]
    rows = torch.arange(40)
    assert credits(planted.model, pairs, rows, held, torch.eye(24)).tolist() == [1.0] * 40
    own = planted.classes[inputs.batch[:, 1:] - WORDS]
    same = (own[:, 0] != own[:, 1]) == (inputs.targets == YES)
    assert credits(planted.model, pairs, rows, held, None).tolist() == same.double().tolist()
    equal = planted_direction(dose=0.0).model
    with torch.no_grad():
        equal.weight("W_U").zero_()
    assert credits(equal, pairs, rows, held_at(equal, pairs, [equal.sites()[AT]], 10**7)[AT], None).tolist() == [0.5] * 40


def test_an_encoder_that_reads_both_ways_can_be_asked() -> None:
    model = BERT.tiny(seed=0)[0].eval()
    draw = torch.Generator().manual_seed(0)
    base, source = (torch.randint(5, model.config.d_vocab, (16, 6), generator=draw) for _ in range(2))
    inputs = Inputs(base, torch.full((16,), 5), reference=source, targets=torch.arange(16) % 2)
    spec = INSTRUMENT.spec.parse({"steps": 2, "sites": ["blocks.1.hook_resid_post"], "resamples": 400})
    one = INSTRUMENT(model, inputs, spec).values.isel(site=0)
    assert np.isfinite(one["accuracy"].sel(who=["found", "whole", "untrained"])).all()


# --- what cannot be meant -----------------------------------------------------------------------------------------


def test_bad_input_is_refused_by_name(planted: Planted) -> None:
    inputs = pairs_of(planted, 40)
    few = {"steps": 1, "resamples": 400}
    for changes, words in (
        ({"reference": inputs.reference[:30]}, r"items of inputs\.reference is 30.*must be 40"),
        ({"targets": torch.full((40,), YES)}, "at least two different answers"),
        ({"reference": inputs.reference[:, :0]}, "at least one item and one token"),
        ({"reference": inputs.reference.float()}, "integer dtype"),
        ({"groups": ["a"] * 40}, "different pairs or groups of pairs is 1"),
        ({"groups": ["a"] * 39}, "39"),
        ({"foils": inputs.targets}, "different from the item's target"),
    ):
        with pytest.raises(BadValue, match=words):
            asked(planted, replace(inputs, **changes), **few)
    for spec, words in (
        ({"position": 3}, "position is 3.*shortest has 3 tokens"),
        ({"position": 0, "where": "all"}, "left out where every position is exchanged"),
        ({"dims": 25, "inert": []}, "25 directions at sites of"),
        ({"dims": 3}, r"2 vectors.*at least 3"),
        ({"subspace": [[1.0, 2.0]]}, r"vectors of \[2\] numbers.*vectors of 24 numbers"),
        ({"subspace": [[0.0] * 24]}, "none is made of the others"),
        ({"inert": unread(planted) + unread(planted)[:1]}, "none is made of the others"),
        ({"sites": [AT, "blocks.0.mlp.hook_post"], "inert": [], "subspace": []}, "sites of one width"),
        ({"sites": ["blocks.0.attn.hook_pattern"]}, "batch and pos first"),
        ({"max_cells": 10}, "max_cells = 10"),
    ):
        with pytest.raises(BadValue, match=words):
            asked(planted, inputs, **{**few, **spec})
    with pytest.raises(EmptySelection):
        asked(planted, inputs, **few, sites=["blocks.7.hook_resid_post"])
    shorter = Inputs(inputs.reference, torch.tensor([2] + [3] * 39))
    with pytest.raises(BadValue, match="length of source 0 is '2 tokens'.*must be 3"):
        asked(planted, replace(inputs, reference=shorter), **few, where="all")
    for field in ({"steps": 0}, {"lr": 0.0}, {"test_share": 1.0}, {"dims": 0}, {"where": "somewhere"}):
        with pytest.raises(UsageError):
            INSTRUMENT.spec.parse(field)


def test_equal_pairs_never_stand_on_both_sides(planted: Planted) -> None:
    inputs = pairs_of(planted, 20)
    twice = Inputs(inputs.batch.repeat(2, 1), reference=inputs.reference.repeat(2, 1), targets=torch.as_tensor(inputs.targets).repeat(2))
    one = asked(planted, twice, steps=1, resamples=400)
    assert int(one.values["n_test"]) == 2 * 8
