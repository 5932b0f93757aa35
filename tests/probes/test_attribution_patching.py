"""Attribution patching: patching itself where the answer is linear, finite differences elsewhere; the QK fix, GradDrop, the bound."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from probes.activation_patching import INSTRUMENT as PATCHING
from probes.activation_patching import ActivationPatchingSpec
from probes.attribution_patching import INSTRUMENT, AttributionPatchingResult, AttributionPatchingSpec, attributed
from probes.false_negatives import upper
from probes.patch_plan import read_plan
from tests.families.models import build, logits, tokens
from tests.families.test_every_family import tiny
from tests.probes.lookup import induction, swapped
from tests.probes.twins import noisy, pair
from workbench.core.errors import BadValue, Incompatible
from workbench.core.protocol import Add, Apply, Inputs, Scale
from workbench.core.result import Result
from workbench.families import FAMILIES
from workbench.families.gpt import GPT, GPTConfig

SLOW = pytest.mark.slow


def estimate(model: Any, inputs: Inputs, **fields: Any) -> AttributionPatchingResult:
    result = INSTRUMENT(model, inputs, AttributionPatchingSpec.parse(fields))
    assert isinstance(result, AttributionPatchingResult)
    return result


def exact(model: Any, inputs: Inputs, **fields: Any) -> np.ndarray:
    return PATCHING(model, inputs, ActivationPatchingSpec.parse(fields)).values.effect.values


# --- where the answer is linear ---------------------------------------------------------------------------------

LINEAR: dict[str, dict[str, Any]] = {
    "streams": {"components": ["resid_mid", "resid_post", "attn_out"]},
    "heads": {"components": ["z", "result", "v", "pattern"]},
    "heads by position": {"components": ["z", "v", "v_input"], "per": ["head", "pos"]},
    "by query and key": {"components": ["pattern"], "per": ["pos", "key"]},
    "whole": {"components": ["z", "pattern", "attn_out"], "per": []},
}
REPLACEMENTS = ["denoising", "noising", "zero", "mean", "resample"]


@pytest.mark.parametrize("replacement", REPLACEMENTS)
@pytest.mark.parametrize("name", LINEAR)
def test_equal_to_patching_where_the_answer_is_linear(name: str, replacement: str) -> None:
    """Without a norm and an MLP, the answer is linear in what the last layer writes and in what its values and patterns are."""
    model = build("attention_only_bare", dtype=torch.float64)
    inputs = pair(model)
    fields: dict[str, Any] = {"quantity": "logit-difference", "layers": [1], **LINEAR[name]}
    if replacement in ("denoising", "noising"):
        fields["direction"] = replacement
    else:
        fields["replacement"], inputs = replacement, replace(inputs, reference=None)
    found = estimate(model, inputs, **fields).values
    assert np.abs(found.effect.values - exact(model, inputs, **fields)).max() < 1e-10
    assert np.abs(found.effect.values).max() > 1e-2
    assert np.array_equal(np.isfinite(found.score.values), np.full(found.score.shape, replacement in ("denoising", "noising")))


@pytest.mark.parametrize("positions", ["learned", "rope"])
@pytest.mark.parametrize("per", [["head", "pos"], ["head"], ["pos"], []])
@pytest.mark.parametrize("heads", [4, 2])
def test_the_qk_fix_is_exact_where_only_the_softmax_is_not_linear(per: list[str], positions: str, heads: int) -> None:
    fields = {"act": "none", "norm_placement": "none", "positions": positions, "bias": False, "tied": False, "n_kv_heads": heads}
    model = build(fields, dtype=torch.float64)
    inputs = pair(model)
    asked: dict[str, Any] = {"components": ["q", "k"], "per": per, "layers": [1], "quantity": "logit-difference"}
    for more in ({}, {"direction": "noising"}, {"replacement": "zero"}, {"replacement": "mean"}):
        given = inputs if "replacement" not in more else replace(inputs, reference=None)
        truth = exact(model, given, **asked, **more)
        assert np.abs(estimate(model, given, **asked, **more).values.effect.values - truth).max() < 1e-10
        assert np.abs(estimate(model, given, **asked, **more, qk_fix=False).values.effect.values - truth).max() > 1e-3


# --- where it is not --------------------------------------------------------------------------------------------

EVERYWHERE: dict[str, dict[str, Any]] = {
    "streams": {"components": ["resid_pre", "resid_post", "attn_in", "mlp_in", "attn_out", "mlp_out"]},
    "heads": {"components": ["z", "result", "q", "k", "v", "rot_q", "pattern", "attn_scores", "q_input", "k_input", "v_input"]},
    "heads by position": {"components": ["z", "v", "q_input"], "per": ["pos", "head"]},
    "neurons": {"components": ["neurons"], "per": ["neuron", "pos"], "neurons": [0, 3]},
}


@pytest.mark.parametrize("config", ["grouped", pytest.param("post_rms", marks=SLOW)])
@pytest.mark.parametrize("name", EVERYWHERE)
def test_the_slope_is_that_of_finite_differences(name: str, config: str) -> None:
    """A hundred-thousandth of the change, patched in and taken out, moves the answer by a hundred-thousandth of the estimate."""
    model = build(config, dtype=torch.float64)
    inputs = pair(model)
    fields: dict[str, Any] = {"quantity": "logit-difference", **EVERYWHERE[name]}
    found = estimate(model, inputs, qk_fix=False, **fields).values.effect.values
    near = 1e-5
    clean, corrupt = model.run(inputs.batch, capture="*"), model.run(inputs.reference, capture="*")
    plan = read_plan(model, inputs, AttributionPatchingSpec.parse(fields))
    for k, place in enumerate(plan.places):
        a, b = corrupt[place.site], clean[place.site]
        change = torch.where(a == b, torch.zeros_like(a), b - a)
        mask = Scale(place.site, factor=0.0, at=place.index(0)).apply(torch.ones_like(a), place.site) == 0
        ends = [_difference(model.run(inputs.reference, edit=[Add(place.site, value=s * near * change * mask)]), inputs) for s in (1, -1)]
        assert np.allclose(found[k], (ends[0] - ends[1]) / (2 * near), rtol=1e-5, atol=1e-7), place


def _difference(trace: Any, inputs: Inputs) -> np.ndarray:
    assert inputs.targets is not None
    assert inputs.foils is not None
    rows, answers = torch.arange(len(inputs.targets)), logits(trace)[:, -1]
    return (answers[rows, inputs.targets] - answers[rows, inputs.foils]).detach().double().numpy()


def test_steps_average_the_slope_between_the_two_inputs() -> None:
    """Of the embeddings' whole change, the mean slope gives the whole change of the answer: completeness."""
    model = build("grouped", dtype=torch.float64)
    inputs = pair(model)
    fields: dict[str, Any] = {"quantity": "logit-difference", "components": ["resid_pre"], "layers": [0], "per": []}
    v: Any = estimate(model, inputs, steps=256, **fields).values
    whole = v.clean.values - v.corrupt.values
    assert np.allclose(v.effect.values[0], whole, atol=1e-4 * np.abs(whole).max())
    assert np.abs(estimate(model, inputs, **fields).values.effect.values[0] - whole).max() > 0.1 * np.abs(whole).max()


@pytest.mark.parametrize("config", ["grouped", "post"])
def test_reach_is_the_mean_over_dropped_layers(config: str) -> None:
    model = build({"n_layers": 3, **({"norm_placement": "post"} if config == "post" else {})}, dtype=torch.float64)
    inputs = pair(model)
    found = estimate(model, inputs, quantity="logit-difference", components=["mlp_out"], grad_drop=True, qk_fix=False).values
    clean = model.run(inputs.batch, capture="*")
    for k in range(len(found.cell)):
        layer, pos = int(found["layer"][k]), int(found["pos"][k])
        total = np.abs(found.effect.values[k])
        for dropped in {0, 1, 2} - {layer}:
            leaf = torch.zeros(3, 7, 16, dtype=torch.float64, requires_grad=True)
            edits: list[Any] = [Add(f"blocks.{layer}.hook_mlp_out", value=leaf)]
            edits += [detached(f"blocks.{dropped}.hook_{word}") for word in ("attn_out", "mlp_out")]
            out = model.run(inputs.reference, edit=edits, grad=True, capture=f"blocks.{layer}.hook_mlp_out")
            assert inputs.targets is not None
            assert inputs.foils is not None
            answers, rows = logits(out)[:, -1], torch.arange(3)
            value = answers[rows, inputs.targets] - answers[rows, inputs.foils]
            (slope,) = torch.autograd.grad(value.sum(), leaf)
            change = clean[f"blocks.{layer}.hook_mlp_out"] - out[f"blocks.{layer}.hook_mlp_out"].detach()
            total += (change[:, pos] * slope[:, pos]).sum(-1).abs().numpy()
        assert np.allclose(found.reach.values[k], total / 3, atol=1e-12)


def detached(name: str) -> Any:
    return Apply(name, fn=lambda value, _: value.detach())


def cancelling() -> GPT:
    """The answer is x - relu(x) of what the first layer leaves: at x = 1 its slope is 0, and x = -1 moves it all the same."""
    config = GPTConfig(
        n_layers=2, d_model=4, n_heads=1, d_vocab=3, n_ctx=2, d_mlp=1, act="relu", norm_placement="none", positions="learned", bias=False,
        tied=False,
    )  # fmt: skip
    model = GPT(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        named = dict(model.named_parameters())
        embed = next(p for n, p in named.items() if p.shape == (3, 4) and "embed" in n and "unembed" not in n)
        unembed = next(p for n, p in named.items() if "unembed" in n)
        embed[0, 0], embed[1, 0] = 1.0, -1.0
        named[_named(named, "blocks.1.mlp", (1, 4))][0, 0] = 1.0
        named[_named(named, "blocks.1.mlp", (4, 1))][1, 0] = -1.0
        unembed[2, 0] = unembed[2, 1] = 1.0
    return model


def _named(named: dict[str, Any], part: str, shape: tuple[int, ...]) -> str:
    return next(name for name, value in named.items() if part in name and tuple(value.shape) == shape)


def test_what_cancels_in_the_slope_alone_is_reached() -> None:
    inputs = Inputs(torch.tensor([[0]]), reference=torch.tensor([[1]]), targets=torch.tensor([2]))
    fields: dict[str, Any] = {"components": ["resid_post"], "layers": [0], "direction": "noising"}
    found = estimate(cancelling(), inputs, grad_drop=True, verify=1, **fields).values
    assert found.effect.values[0, 0] == 0.0  # relu'(1) = 1, and 1 - 1 = 0
    assert found.reach.values[0, 0] == 1.0  # without the second layer's slope |-1 - 1|, with it 0
    assert found.exact.values[0, 0] == -1.0


# --- what was missed --------------------------------------------------------------------------------------------


def test_verified_cells_are_patched_and_the_others_bounded() -> None:
    model = build("attention_only_bare", dtype=torch.float64)
    inputs = pair(model)
    fields: dict[str, Any] = {"components": ["v"], "per": ["head", "pos"], "layers": [1], "quantity": "logit-difference"}
    result = estimate(model, inputs, verify=5, subsets=64, **fields)
    truth, found = exact(model, inputs, **fields), result.values
    checked = np.isfinite(found.exact.values).all(1)
    assert checked.sum() == 5
    assert np.allclose(found.exact.values[checked], truth[checked], atol=1e-12)
    assert set(np.flatnonzero(checked)) == set(np.argsort(-result.strength(), kind="stable")[:5])
    assert np.array_equal(np.isnan(found.bound.values), checked)
    means = np.abs(truth.mean(1))[~checked]
    assert (found.bound.values[~checked] >= means).all()  # cells of the last layer add up: among others is alone
    assert "5 cells: correlation 1.000" in result.summary()
    assert any(note.startswith("With 95% confidence none of the 23 other cells") for note in result.notes)
    assert Result.from_json(result.to_json()).digest() == result.digest()


def test_the_bound_holds_as_often_as_it_says_and_sees_what_is_large() -> None:
    draw = np.random.default_rng(0)
    missed = 0
    for _ in range(200):
        effects = draw.normal(size=30) * draw.integers(0, 2, 30)
        member = np.stack([draw.permutation(64) < 16 for _ in range(30)])
        bound = upper(member, effects @ member + draw.normal(size=64) * 0.1)
        missed += bool((bound < np.abs(effects)).any())
    assert missed <= 0.05 * 200 + 3 * np.sqrt(200 * 0.05 * 0.95)
    member = np.stack([np.random.default_rng(k).permutation(64) < 16 for k in range(30)])
    lone = upper(member, 10.0 * member[7])
    assert lone.argmax() == 7
    assert lone[7] == pytest.approx(10.0)
    assert (upper(member, np.zeros(64)) == 0).all()


def test_a_place_that_is_padding_in_every_item_has_no_strength_and_no_column_depends_on_what_was_asked() -> None:
    model = build("plain", dtype=torch.float64)
    inputs = replace(pair(model), foils=None, lengths=torch.tensor([5, 6, 6]))  # of seven columns
    plain, asked = (estimate(model, inputs, verify=3 * more, grad_drop=bool(more)) for more in (0, 1))
    assert list(plain.to_frame().columns) == list(asked.to_frame().columns)
    assert np.isnan(plain.values.reach.values).all()
    last = plain.values["pos"].values == 6
    assert np.isnan(plain.strength()[last]).all()
    assert np.isfinite(plain.strength()[~last]).all()
    assert not np.isfinite(asked.values.exact.values[last]).any()


@pytest.mark.slow
def test_a_planted_lookup_is_found_and_an_untrained_copy_is_silent() -> None:
    inputs, where = swapped(32, 999)
    fields: dict[str, Any] = {"quantity": "logit-difference", "components": ["resid_pre", "v", "z"], "per": ["pos"]}
    result = estimate(induction(), inputs, steps=8, **fields)
    v: Any = result.values
    at = lambda name, layer: v.effect.values[(v.component.values == name) & (v["layer"].values == layer)]  # noqa: E731
    assert (at("resid_pre", 0).argmax(0) == where.numpy()).mean() > 0.9
    assert (at("v", 1).argmax(0) == where.numpy()).mean() > 0.9
    assert np.corrcoef(v.effect.values.ravel(), exact(induction(), inputs, **fields).ravel())[0, 1] > 0.8
    scale = np.median(v.clean.values - v.corrupt.values)
    blank: Any = estimate(GPT(induction().config, seed=5).eval(), inputs, steps=8, **fields).values
    second = blank.effect.values[(blank["layer"].values == 1) & (blank.component.values != "resid_pre")]
    assert np.abs(second).max() < 0.1 * scale


# --- every family -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [n if n == "clip" else pytest.param(n, marks=SLOW if n in ("gpt", "bert", "seq2seq") else pytest.mark.full) for n in FAMILIES]
)
def test_every_family_and_every_stack(name: str) -> None:
    model, batch = tiny(name)
    model = model.double()
    rows = len(next(iter(vars(batch).values())))
    twin = batch.rows(list(range(rows))[::-1])
    if name in ("seq2seq", "whisper", "dalle", "imagen", "bert", "gpt"):
        batch, twin = batch.rows([0] * rows), noisy(batch.rows([0] * rows))
    if name == "gpt":
        batch, twin = batch.tokens, twin.tokens
    inputs = Inputs(_double(batch), reference=_double(twin), targets=torch.arange(rows))
    for stack in dict.fromkeys(site.stack for site in model.sites().values() if site.layer is not None):
        chosen = {"stack": stack} if stack and name != "gpt" else {}
        result = estimate(model, inputs, components=["resid_pre", "z", "q", "k"], per=["pos"], grad_drop=True, **chosen)
        assert np.isfinite(result.values.effect.values).any()
        assert (result.values.reach.values[np.isfinite(result.values.reach.values)] >= 0).all()
        assert result.plot().to_dict()
        # The last layer's stream at all positions, moved a little: the answer moves with the estimate.
        last = [s for s in model.sites().values() if s.stack == stack and s.tensor == "hook_resid_post"][-1]
        whole = estimate(model, inputs, components=["resid_post"], per=[], layers=[last.layer], **chosen).values.effect.values[0]
        clean, corrupt = (model.run(b, capture=last) for b in (inputs.batch, inputs.reference))
        change, near = clean[last] - corrupt[last], 1e-5
        given = read_plan(model, inputs, AttributionPatchingSpec.parse(chosen)).given
        moved = [[Add(last.name, value=s * near * change)] for s in (1, -1)]
        asked = given.logits(slice(0, rows))
        ends = [given.metric(logits(model.run(inputs.reference, edit=edits, logits=asked))) for edits in moved]
        slope = ((ends[0] - ends[1]) / (2 * near)).detach().double().numpy()
        assert np.allclose(whole, slope, rtol=1e-4, atol=1e-6 * max(1.0, float(np.abs(slope).max())))


def _double(batch: Any) -> Any:
    if isinstance(batch, Tensor):
        return batch
    held = {k: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in vars(batch).items()}
    return type(batch)(**held)


# --- bad input --------------------------------------------------------------------------------------------------


def test_what_makes_no_sense_says_so() -> None:
    model = build("plain", dtype=torch.float64)
    inputs = replace(pair(model), foils=None)
    zero = replace(inputs, reference=None)
    cases: list[tuple[Inputs, dict[str, Any], str]] = [
        (inputs, {"components": []}, "components is .*at least one"),
        (inputs, {"components": ["z"], "heads": [4]}, r"heads is \[4\], but it must be different numbers from 0 to 3"),
        (zero, {}, r"inputs\.reference is None"),
        (replace(inputs, reference=inputs.reference[:, :5]), {}, "length of corrupt item 0 is '5 tokens', but it must be 7 tokens"),
        (inputs, {"verify": 15}, "verify is 15, but it must be at most the number of cells, 14"),
        (inputs, {"verify": 14, "subsets": 16}, "subsets is 16, but it must be 0 where every cell is verified"),
        (inputs, {"subsets": 8}, "subsets is 8, but it must be 0, or at least 16"),
        (inputs, {"subsets": 64, "max_cells": 100}, "edited runs is 192, but it must be at most max_cells = 100"),
        (zero, {"replacement": "zero", "steps": 4}, "steps is 4, but it must be 1 unless replacement is 'counterfactual'"),
        (inputs, {"quantity": "kl", "direction": "noising"}, "slope is zero everywhere"),
        (
            zero,
            {"replacement": "zero", "components": ["attn_scores"]},
            r"change at 'blocks\.0\.attn\.hook_attn_scores' is 'NaN or infinity'.*activation-patching",
        ),
    ]  # fmt: skip
    for given, fields, words in cases:
        with pytest.raises(BadValue, match=words):
            estimate(model, given, **fields)
    with pytest.raises(BadValue, match=r"metric's result is .*one number an item"):
        attributed(model, inputs, AttributionPatchingSpec(), metric=lambda given: given)
    with pytest.raises(BadValue, match=r"model's mode is 'training, with dropout'"):
        estimate(build({"dropout": 0.1}).train(), inputs)
    with torch.no_grad():
        model.stack.blocks[1].get_parameter("mlp.out.weight")[0, 0] = float("nan")
    with pytest.raises(BadValue, match="NaN or infinity"):
        estimate(model, inputs)


def test_a_model_without_gradients_is_refused() -> None:
    model = build("plain")

    class NoGradients:
        abilities = model.abilities - {"grad"}

        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

    with pytest.raises(Incompatible, match="does not offer grad"):
        estimate(NoGradients(), Inputs(tokens(model), targets=torch.tensor([1, 2])))


def test_attention_that_is_not_by_scaled_products_is_refused_the_fix() -> None:
    model = build("plain", dtype=torch.float64)
    inputs = replace(pair(model), foils=None)

    class Unscaled:
        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

        def run(self, batch: Any, **options: Any) -> Any:
            trace = model.run(batch, **options)
            for name, value in trace.at.items():
                if name.endswith("hook_attn_scores"):
                    value.mul_(2.0)
            return trace

    with pytest.raises(BadValue, match=r"qk_fix is True, but it must be false for this model: 'blocks\.0\.attn\.hook_attn_scores'"):
        estimate(Unscaled(), inputs, components=["q"])
    assert np.isfinite(estimate(Unscaled(), inputs, components=["q"], qk_fix=False).values.effect.values).all()
