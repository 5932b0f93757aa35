"""Similarity of layers on models of which it is known what they share: themselves, turned copies, changed layers, other seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from probes.alignment import differences, measures, own, sums
from probes.probing import untrained_copy
from probes.similarity import INSTRUMENT
from probes.similarity_read import ITSELF
from probes.similarity_result import SimilarityResult
from tests.probes.standin import Letters
from workbench.core.errors import BadValue, EmptySelection, Incompatible, UnknownName
from workbench.core.protocol import Inputs
from workbench.core.result import Result
from workbench.families import FAMILIES
from workbench.families.gpt import GPT, GPTConfig

CONFIG = GPTConfig(
    n_layers=3, d_model=12, n_heads=2, d_vocab=40, n_ctx=12, tied=False, norm_placement="none", act="relu", positions="learned"
)
FIRST, *LAYERS = SITES = ("blocks.0.hook_resid_pre", *(f"blocks.{layer}.hook_resid_post" for layer in range(3)))


def model(seed: int = 0, **changes: Any) -> GPT:
    made = GPT(CONFIG.model_copy(update=changes), seed=seed).eval()
    with torch.no_grad():  # so that layers do something
        for name, parameter in made.named_parameters():
            if "blocks" in name:
                parameter.mul_(4.0)
    return made


def ids(n: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 40, (n, 6), generator=torch.Generator().manual_seed(seed))


def asked(first: Any, other: Any = None, *, batch: Any = None, **spec: Any) -> SimilarityResult:
    found = INSTRUMENT(first, Inputs(ids() if batch is None else batch, reference=other), INSTRUMENT.spec.parse({"draws": 2} | spec))
    assert isinstance(found, SimilarityResult)
    return found


def changed(first: GPT, layer: int, vector: torch.Tensor | None = None, scale: float = 1.0) -> GPT:
    """A copy in which one MLP's output is scaled, and a vector is added to it."""
    copy = GPT(first.config, seed=0).eval()
    copy.load_state_dict(first.state_dict())
    with torch.no_grad():
        copy.weight(f"blocks.{layer}.mlp.W_out").mul_(scale)
        if vector is not None:
            copy.weight(f"blocks.{layer}.mlp.b_out").add_(vector)
    return copy


# --- a slow twin ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_table_is_that_of_the_captured_vectors() -> None:
    first, other = model(0), model(1)
    found = asked(first, {"seed 1": other}, blocks=4)
    mine, theirs = (one.run(ids(), capture=SITES) for one in (first, other))
    one = torch.zeros(240, dtype=torch.long)
    for name, trace in ((ITSELF, mine), ("seed 1", theirs)):
        for a in SITES:
            for b in SITES:
                x, y = mine[a].flatten(0, 1), trace[b].flatten(0, 1)
                expected = measures(sums(x, y, one), own(x, one), own(y, one))[:, 0]
                at = found.values.sel(other=name, site=a, other_site=b)
                assert [float(at[m]) for m in ("cka", "cka_debiased", "procrustes")] == pytest.approx(expected.tolist(), abs=1e-7)
    for site in SITES:
        at = found.values.sel(other="seed 1", site=site)
        expected = differences(mine[site].flatten(0, 1), theirs[site].flatten(0, 1), one)[:, 0]
        assert [float(at[m]) for m in ("relative", "explained", "shift")] == pytest.approx(expected.tolist(), abs=1e-9)
    assert np.isnan(found.values["relative"].sel(other=ITSELF)).all()
    assert (found.values["cka_debiased_low"] <= found.values["cka_debiased"]).all()
    assert (found.values["cka_debiased"] <= found.values["cka_debiased_high"]).all()


# --- what is planted ------------------------------------------------------------------------------------------------


def test_two_models_part_at_the_layer_that_was_changed_and_nowhere_before() -> None:
    first = model()
    found = asked(first, {"changed": changed(first, 1, scale=20.0)})
    relative = found.values["relative"].sel(other="changed")
    assert relative.sel(site=[FIRST, LAYERS[0]]).values.tolist() == [0.0, 0.0]
    assert (relative.sel(site=LAYERS[1:]) > 0.1).all()
    assert (found.values["relative_low"].sel(other="changed", site=LAYERS[1:]) > 0).all()
    assert (relative < found.values["relative_null"].sel(other="changed")).all()
    assert found.values["explained"].sel(other="changed", site=[FIRST, LAYERS[0]]).values.tolist() == [1.0, 1.0]
    table = found.values["cka_debiased"].sel(other="changed")
    for site in (FIRST, LAYERS[0]):
        assert float(table.sel(site=site, other_site=site)) == pytest.approx(1.0)
    assert float(table.sel(site=LAYERS[1], other_site=LAYERS[1])) < 0.99
    assert f"Axis by axis it differs most at {LAYERS[1]}" in found.summary() or f"most at {LAYERS[2]}" in found.summary()


def test_a_constant_added_is_a_shift_and_no_difference_to_cka() -> None:
    first, vector = model(), torch.linspace(-1, 1, 12)
    found = asked(first, {"shifted": changed(first, 2, vector)}).values.sel(other="shifted", site=LAYERS[2])
    assert float(found["shift"]) == pytest.approx(1.0, abs=1e-6)
    assert float(found["relative"]) > 0.05
    assert float(found["cka"].sel(other_site=LAYERS[2])) == pytest.approx(1.0, abs=1e-6)


def test_a_turned_copy_is_the_same_to_cka_and_another_axis_by_axis() -> None:
    """The stream of a model without norms turned as a whole: every weight that reads or writes it is turned with it."""
    first = model()
    turn = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(3))).Q
    copy = GPT(first.config, seed=0).eval()
    copy.load_state_dict(first.state_dict())
    with torch.no_grad():
        for name in ("W_E", "W_pos"):
            copy.weight(name).copy_(first.weight(name) @ turn)
        for layer in range(3):
            for reader in ("attn.W_Q", "attn.W_K", "attn.W_V", "mlp.W_in"):
                weight = f"blocks.{layer}.{reader}"
                copy.weight(weight).copy_(turn.T @ first.weight(weight))
            for writer in ("attn.W_O", "mlp.W_out", "attn.b_O", "mlp.b_out"):
                weight = f"blocks.{layer}.{writer}"
                copy.weight(weight).copy_(first.weight(weight) @ turn)
    found = asked(first, {"turned": copy})
    for site in SITES:
        at = found.values.sel(other="turned", site=site)
        same = at.sel(other_site=site)
        assert [float(same[m]) for m in ("cka", "cka_debiased")] == pytest.approx([1.0, 1.0], abs=1e-5)
        assert float(same["procrustes"]) < 1e-2
        assert float(at["relative"]) > 0.7


def test_models_of_other_seeds_share_what_tokens_alone_give_and_tokens_dealt_anew_share_nothing() -> None:
    first = model()
    found = asked(first, {"untrained": untrained_copy(first)}, batch=ids(200))
    diagonal = [found.values.sel(other="untrained", site=site, other_site=site) for site in SITES]
    assert all(abs(float(one["cka_debiased_null"])) < 0.02 for one in diagonal)
    assert all(float(one["cka_null"]) > float(one["cka_debiased_null"]) for one in diagonal), "the bias"
    assert float(diagonal[0]["cka_debiased_low"]) > 0.05, "the same words at the same places: an untrained copy is the harder null"
    assert (found.values["explained"].sel(other="untrained") < 0.2).all()


@pytest.mark.slow
def test_checkpoints_come_nearer_one_by_one() -> None:
    first, last = model(0), model(1)
    steps = {}
    for share in (0.25, 0.5, 0.9):
        steps[f"at {share}"] = GPT(first.config, seed=0).eval()
        state = {name: (1 - share) * value + share * last.state_dict()[name] for name, value in first.state_dict().items()}
        steps[f"at {share}"].load_state_dict(state)
    found = asked(last, steps)
    apart = [float(found.values["relative"].sel(other=name, site=FIRST)) for name in steps]
    assert apart == sorted(apart, reverse=True)
    assert len(found.plot().to_dict()["concat"]) == 2
    assert Result.from_json(found.to_json()).digest() == found.digest()


# --- every family, control tokens, what does not vary -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "stack"), [("vit", ""), ("bert", ""), ("seq2seq", "encoder"), ("seq2seq", "decoder"), ("clip", "image")]
)
def test_stacks_of_any_family(family: str, stack: str) -> None:
    first, batch = FAMILIES.load(family).tiny(seed=0)
    found = asked(first.eval(), untrained_copy(first), batch=batch, stack=stack)
    prefix = f"{stack}." if stack else ""
    assert all(str(site).startswith(f"{prefix}blocks.") for site in found.values["site"].values)
    assert float(found.values["cka"].isel(other=0, site=0, other_site=0)) == pytest.approx(1.0)
    assert "too few for intervals" in found.summary()
    other, _ = FAMILIES.load("gpt").tiny(seed=0)
    with pytest.raises(Incompatible, match="'the other model'"):
        asked(first, other, batch=batch, stack=stack)


def test_control_tokens_are_left_out_unless_asked_for() -> None:
    words = Letters()
    first = GPT(GPTConfig(n_layers=1, d_model=8, n_heads=2, d_vocab=words.vocab_size, n_ctx=12), words, seed=0).eval()
    texts = [f"{a}{b}{c}" for a in "abcd" for b in "efg" for c in "hi"]
    assert int(asked(first, batch=texts).values["tokens"]) == 3 * 24
    assert int(asked(first, batch=texts, controls=True).values["tokens"]) == 4 * 24


def test_a_site_at_which_nothing_varies_is_said_and_not_compared() -> None:
    first = model()
    with torch.no_grad():
        first.weight("W_E").fill_(0.5)
        first.weight("W_pos").zero_()
    found = asked(first)
    assert f"Nothing varies at {FIRST}" in found.summary()
    assert np.isnan(found.values["cka"].sel(site=FIRST)).all()
    with pytest.raises(BadValue, match="a site at which something varies"):
        asked(first, sites=[FIRST]).plot()


def test_few_tokens_for_the_width_are_said() -> None:
    assert "CKA without the correction is biased upward" in asked(model(), batch=ids(12)).summary()
    assert "biased upward" not in asked(model(), batch=ids(60)).summary()


def test_what_cannot_be_meant_is_refused() -> None:
    first = model()
    with pytest.raises(BadValue, match="a model, or a mapping"):
        asked(first, torch.zeros(3))
    with pytest.raises(BadValue, match="the model itself"):
        asked(first, first)
    with pytest.raises(BadValue, match="an empty mapping"):
        asked(first, {})
    with pytest.raises(BadValue, match="other than 'itself'"):
        asked(first, {ITSELF: model(1)})
    assert "has the very weights of the model" in asked(first, {"last": first, "other": model(1)}).summary()
    with pytest.raises(BadValue, match="at least 4"):
        asked(first, batch=ids(1)[:, :3])
    with pytest.raises(BadValue, match="max_cells"):
        asked(first, max_cells=100)
    with pytest.raises(UnknownName, match="stack"):
        asked(first, stack="encoder")
    with pytest.raises(EmptySelection):
        asked(first, sites=["blocks.7.hook_resid_post"])
    with pytest.raises(BadValue, match="batch and pos first"):
        asked(first, sites=["blocks.0.attn.hook_pattern"])
    with pytest.raises(BadValue, match="from 0 to 19"):
        asked(first, {"small": model(1, d_vocab=20)})
    words = Letters()
    config = GPTConfig(n_layers=1, d_model=8, n_heads=2, d_vocab=words.vocab_size, n_ctx=12)
    one, two = GPT(config, words, seed=0), GPT(config, Backward(), seed=1)
    with pytest.raises(Incompatible, match="other tokens of the texts"):
        asked(one, two, batch=["abc", "bcd"])


class Backward(Letters):
    """The same letters with other numbers."""

    alphabet = Letters.alphabet[::-1]
