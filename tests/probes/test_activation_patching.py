"""Patching: equal to one run a cell, what each replacement and direction means, a planted position found, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from probes.activation_patching import INSTRUMENT, ActivationPatchingResult, ActivationPatchingSpec, patched
from probes.patch_cells import COMPONENTS
from tests.families.models import build, logits, tokens
from tests.families.test_every_family import tiny
from tests.probes.lookup import induction, swapped
from tests.probes.twins import noisy, pair
from workbench.core.batch import EncoderBatch
from workbench.core.errors import AssayError, BadValue, UnknownName
from workbench.core.protocol import FromTrace, Inputs, Replace, Zero
from workbench.core.result import Result
from workbench.core.tolerance import gap
from workbench.engine import sweep
from workbench.families import FAMILIES
from workbench.families.gpt import GPT

SLOW = pytest.mark.slow


def spec(**fields: Any) -> ActivationPatchingSpec:
    return ActivationPatchingSpec.parse(fields)


def difference(answers: Tensor, inputs: Inputs) -> np.ndarray:
    assert inputs.targets is not None
    assert inputs.foils is not None
    rows = torch.arange(len(answers))
    return (answers[rows, -1, inputs.targets] - answers[rows, -1, inputs.foils]).double().numpy()


def patch(model: Any, inputs: Inputs, **fields: Any) -> ActivationPatchingResult:
    result = INSTRUMENT(model, inputs, spec(**fields))
    assert isinstance(result, ActivationPatchingResult)
    return result


# --- the numbers ------------------------------------------------------------------------------------------------

GRIDS: dict[str, dict[str, Any]] = {
    "streams": {"components": ["resid_pre", "resid_mid", "resid_post", "attn_in", "mlp_in", "attn_out", "mlp_out"]},
    "heads": {"components": ["z", "result", "q", "k", "v", "rot_q", "pattern", "q_input", "k_input", "v_input"]},
    "heads by position": {"components": ["z", "v"], "per": ["head", "pos"], "positions": [2, 4, 6], "heads": [0, 1]},
    "pattern by query and key": {"components": ["pattern"], "per": ["pos", "key"], "layers": [1]},
    "layers": {"components": ["attn_out", "mlp_out", "neurons"], "per": []},
    "neurons": {"components": ["neurons"], "neurons": [0, 5, 9]},
}


@pytest.mark.parametrize("direction", ["denoising", "noising"])
@pytest.mark.parametrize("name", ["heads by position", *(pytest.param(n, marks=SLOW) for n in GRIDS if n != "heads by position")])
def test_every_cell_is_one_run_with_one_edit(name: str, direction: str) -> None:
    model = build("grouped", dtype=torch.float64)
    inputs = pair(model)
    result = patch(model, inputs, quantity="logit-difference", direction=direction, **GRIDS[name])
    v: Any = result.values
    run, source = (inputs.reference, inputs.batch) if direction == "denoising" else (inputs.batch, inputs.reference)
    trace = model.run(source, capture="*")
    ends = {which: difference(logits(model.run(ids)), inputs) for which, ids in (("clean", inputs.batch), ("corrupt", inputs.reference))}
    assert all(np.allclose(v[which].values, found, rtol=0, atol=1e-12) for which, found in ends.items())
    base = ends["corrupt" if direction == "denoising" else "clean"]
    for k in range(len(v.cell)):
        one = v.isel(cell=k)
        component = COMPONENTS[one.component.item()]
        at = {axis: int(one[word]) for word, axis in component.axes.items() if int(one[word]) >= 0}
        edit = FromTrace(f"blocks.{int(one['layer'])}.{component.site}", trace=trace, at=at)
        expected = difference(logits(model.run(run, edit=[edit])), inputs)
        assert np.allclose(one.value.values, expected, rtol=0, atol=1e-12), result.cell(k)
        assert np.allclose(one.effect.values, expected - base, rtol=0, atol=1e-12)
        assert np.allclose(one.score.values, (expected - ends["corrupt"]) / (ends["clean"] - ends["corrupt"]), rtol=1e-9, atol=1e-9)
    assert len({result.cell(k) for k in range(len(v.cell))}) == len(v.cell)


def test_the_whole_stream_is_the_whole_answer_and_nothing_is_nothing() -> None:
    model = build("plain", dtype=torch.float64)
    inputs = pair(model)
    for direction, end in (("denoising", 1.0), ("noising", 0.0)):
        whole = patch(model, inputs, quantity="logit-difference", direction=direction, components=["resid_post"], per=[])
        assert np.allclose(whole.values.score.values, end, atol=1e-9)
        by_pos = patch(model, inputs, quantity="logit-difference", direction=direction).grid()
        assert np.allclose(by_pos.sel(pos=[0, 1]), 1 - end, atol=1e-12)  # what the twins share moves nothing
    same = patch(model, replace(inputs, reference=inputs.batch), quantity="logit-difference")
    assert not same.values.effect.values.any()
    assert np.isnan(same.values.score.values).all()
    assert "In 3 of 3 items the clean and the corrupt value are the same" in " ".join(same.notes)


def test_the_mean_score_is_the_ratio_of_means() -> None:
    model = build("plain", dtype=torch.float64)
    result = patch(model, pair(model), quantity="logit-difference")
    v: Any = result.values
    expected = (v.value.values - v.corrupt.values).mean(1) / float((v.clean - v.corrupt).mean())
    assert np.allclose(result.mean("score"), expected)
    assert result.grid().dims == ("layer", "pos")
    assert np.allclose(result.grid().values.ravel(), expected)
    with pytest.raises(BadValue, match="component is 'z', but it must be one of those patched: resid_pre"):
        result.grid("z")


def test_zero_mean_and_resample_are_what_they_say() -> None:
    model = build("plain", dtype=torch.float64)
    ids, pool = tokens(model, 3, 6), tokens(model, 5, 6, seed=4)
    inputs, site = Inputs(ids, targets=torch.tensor([1, 2, 3])), "blocks.1.hook_mlp_out"
    fields: dict[str, Any] = {"components": ["mlp_out"], "layers": [1], "positions": [5]}
    read = lambda trace: trace.logits[torch.arange(3), -1, inputs.targets].numpy()  # noqa: E731
    at = {"pos": 5}
    assert np.allclose(patch(model, inputs, replacement="zero", **fields).values.value[0], read(model.run(ids, edit=[Zero(site, at=at)])))
    for given in (None, pool):
        rows = ids if given is None else pool
        captured = model.run(rows, capture=site)[site]
        mean = patch(model, replace(inputs, reference=given), replacement="mean", **fields)
        edit = Replace(site, value=captured[:, 5:].mean(0, keepdim=True), at=at)
        assert np.allclose(mean.values.value[0], read(model.run(ids, edit=[edit])))
        sampled = patch(model, replace(inputs, reference=given), replacement="resample", seed=3, **fields)
        each = [[read(model.run(ids, edit=[Replace(site, value=row[5], at=at)]))[i] for row in captured] for i in range(3)]
        drawn = [int(np.abs(np.array(each[i]) - float(sampled.values.value[0, i])).argmin()) for i in range(3)]
        assert np.allclose(sampled.values.value[0], [each[i][row] for i, row in enumerate(drawn)])
        assert given is not None or all(i != row for i, row in enumerate(drawn))
        assert np.isnan(sampled.values.score.values).all()
        assert "no scores" in " ".join(sampled.notes)


@pytest.mark.parametrize("quantity", ["logit", "logprob", "probability", "kl"])
def test_each_quantity_is_what_it_says(quantity: str) -> None:
    model = build("plain", dtype=torch.float64)
    inputs = replace(pair(model), foils=None)
    result = patch(model, inputs, quantity=quantity, components=["z"], layers=[1], heads=[2])
    edit = FromTrace("blocks.1.attn.hook_z", trace=model.run(inputs.batch, capture="blocks.1.attn.hook_z"), at={"head": 2})
    found, clean = (logits(trace)[:, -1].log_softmax(-1) for trace in (model.run(inputs.reference, edit=[edit]), model.run(inputs.batch)))
    picked = found[torch.arange(3), inputs.targets]
    expected = {
        "logit": logits(model.run(inputs.reference, edit=[edit]))[torch.arange(3), -1, inputs.targets],
        "logprob": picked, "probability": picked.exp(), "kl": (clean.exp() * (clean - found)).sum(-1),
    }[quantity]  # fmt: skip
    assert np.allclose(result.values.value[0], expected.numpy(), atol=1e-12)
    if quantity == "kl":
        assert np.allclose(result.values.clean, 0.0, atol=1e-12)


def test_a_metric_of_ones_own() -> None:
    model = build("plain", dtype=torch.float64)
    inputs = replace(pair(model), foils=None)
    top = patched(model, inputs, spec(), metric=lambda given: given.max(-1).values, name="the largest logit")
    assert np.allclose(top.values.clean, logits(model.run(inputs.batch))[:, -1].max(-1).values.numpy())
    assert "The number read is the largest logit." in top.notes
    wrongs: list[Any] = [lambda given: given, lambda given: given.sum(), lambda given: 3.0]
    for wrong in wrongs:
        with pytest.raises(BadValue, match=r"metric's result is .*must be a tensor of shape \(3,\): one number an item"):
            patched(model, inputs, spec(), metric=wrong)


def test_padding_has_no_value_and_does_not_matter() -> None:
    model = build("plain", dtype=torch.float64)
    inputs = pair(model, length=6)
    long: dict[str, Any] = {
        name: torch.cat([ids, torch.zeros(3, 2).long()], 1) for name, ids in (("batch", inputs.batch), ("reference", inputs.reference))
    }
    lengths = torch.tensor([6, 8, 6])
    padded = Inputs(**long, lengths=lengths, targets=inputs.targets)
    found, alone = patch(model, padded), patch(model, replace(inputs, foils=None))
    for layer in (0, 1):
        rows = [k for k in range(16) if int(found.values["layer"][k]) == layer]
        assert np.isnan(found.values.value.values[rows[6:]][:, [0, 2]]).all()
        assert np.isfinite(found.values.value.values[rows][:, 1]).all()
        mine = [k for k in range(12) if int(alone.values["layer"][k]) == layer]
        assert np.allclose(found.values.value.values[rows[:6]][:, [0, 2]], alone.values.value.values[mine][:, [0, 2]], atol=1e-12)


# --- every family -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [n if n == "vit" else pytest.param(n, marks=SLOW if n in ("gpt", "seq2seq", "clip") else pytest.mark.full) for n in FAMILIES]
)
def test_every_family_and_every_stack(name: str) -> None:
    model, batch = tiny(name)
    rows = len(next(iter(vars(batch).values())))
    twin = batch.rows(list(range(rows))[::-1])
    if name in ("seq2seq", "whisper", "dalle", "imagen", "bert", "gpt"):  # rows of one length: twins are compared place by place
        batch, twin = batch.rows([0] * rows), noisy(batch.rows([0] * rows))
    if name == "gpt":
        batch, twin = batch.tokens, twin.tokens
    inputs = Inputs(batch, reference=twin, targets=torch.arange(rows))
    for stack in dict.fromkeys(site.stack for site in model.sites().values() if site.layer is not None):
        for component in ("resid_pre", "z"):
            result = patch(model, inputs, components=[component], stack=stack if stack and name != "gpt" else "")
            assert np.isfinite(result.values.value.values).any()
            assert Result.from_json(result.to_json()).digest() == result.digest()
            assert not np.isinf(result.mean()).any(), "where clean and corrupt means are the same a score is undefined"
            assert result.plot().to_dict()
            assert result.summary()
    whole = patch(model, inputs, components=["resid_pre"], layers=[0], per=[])
    assert whole.values.value.shape == (1, rows)


# --- planted ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_planted_lookup_is_found_where_it_is_and_an_untrained_copy_is_silent() -> None:
    inputs, where = swapped(32, 999)
    result = patch(induction(), inputs, quantity="logit-difference", components=["resid_pre", "v", "z"], per=["pos"])
    v: Any = result.values
    scale = v.clean.values - v.corrupt.values
    assert np.median(scale) > 4
    grid = lambda name, layer: v.score.values[(v.component.values == name) & (v["layer"].values == layer)]  # noqa: E731  # pos item
    assert (grid("resid_pre", 0).argmax(0) == where.numpy()).all()
    assert (grid("resid_pre", 1).argmax(0) == where.numpy()).mean() > 0.9  # the word stays at its place until the second layer reads it
    assert (grid("v", 1).argmax(0) == where.numpy()).mean() > 0.9
    assert (grid("z", 1)[7] > 0.8).mean() > 0.9
    assert np.median(np.abs(grid("z", 0)[7])) < 0.15
    # Untrained, the same cells move the answer by a small part of that: scores would magnify it, since its scale is as small.
    blank: Any = patch(
        GPT(induction().config, seed=5).eval(), inputs, quantity="logit-difference", components=["v", "z"], per=["pos"]
    ).values
    second = np.abs(blank.effect.values[blank["layer"].values == 1]).reshape(2, 8, 32)  # component pos item
    assert np.median(second[0, where.numpy(), np.arange(32)]) < 0.02 * np.median(scale)
    assert second.max() < 0.1 * np.median(scale)


# --- bad input --------------------------------------------------------------------------------------------------


class Words:
    """A tokenizer of words, one token a word but for ``two``, which is two."""

    vocab_size, bos_id, eos_id, pad_id = 17, None, None, None

    def encode(self, text: str, *, bos: bool = False) -> list[int]:
        return [i for word in text.split() for i in ((7, 8) if word == "two" else (len(word) % 7,))]

    def decode(self, ids: Any) -> str:
        return " ".join(map(str, ids))

    def pieces(self, ids: Any) -> list[str]:
        return [f"w{i}" for i in ids]

    def digest(self) -> str:
        return "words"


def test_what_makes_no_sense_says_so() -> None:
    model: Any = build("plain", dtype=torch.float64)
    model.tokenizer = Words()
    inputs = replace(pair(model), foils=None)
    cases: list[tuple[dict[str, Any], dict[str, Any], type[AssayError], str]] = [
        ({}, {"reference": None}, BadValue, r"inputs\.reference is None.*the corrupt input.*choose `replacement` zero, mean or resample"),
        ({}, {"reference": inputs.reference[:, :5]}, BadValue, "length of corrupt item 0 is '5 tokens', but it must be 7 tokens"),
        ({}, {"reference": inputs.reference[:2]}, BadValue, "number of corrupt items is 2, but it must be 3"),
        ({}, {"batch": ["a b c", "a b", "a"], "reference": ["a b c", "a b", "two"]}, BadValue,
         r"length of corrupt item 2 is '2 tokens', but it must be 1 tokens.*Clean: w1\. Corrupt: w7 \| w8\."),
        ({"replacement": "zero"}, {}, BadValue, r"inputs\.reference is 'given'"),
        ({"components": []}, {}, BadValue, "components is .*at least one"),
        ({"components": ["z", "z"]}, {}, BadValue, "different ones"),
        ({"components": ["zz"]}, {}, UnknownName, "no component 'zz' to patch"),
        ({"components": ["cross_z"]}, {}, BadValue, "one that this gpt model has: resid_pre"),
        ({"components": ["z"], "heads": [4]}, {}, BadValue, r"heads is \[4\], but it must be different numbers from 0 to 3"),
        ({"components": ["z"], "heads": []}, {}, BadValue, "at least one"),
        ({"heads": [1]}, {}, BadValue, r"heads is \[1\], but it must be left out: the grid has no 'head'"),
        ({"layers": [2]}, {}, BadValue, "different numbers from 0 to 1"),
        ({"layers": []}, {}, BadValue, "at least one"),
        ({"positions": [7]}, {}, BadValue, "different numbers from 0 to 6"),
        ({"per": ["head"]}, {}, BadValue, "different ones of pos for the component 'resid_pre'"),
        ({"per": ["pos", "pos"]}, {}, BadValue, "different ones of pos"),
        ({"max_cells": 5}, {}, BadValue, "edited runs is '14 cells of 3 items'"),
        ({"components": ["z"], "stack": "encoder"}, {}, BadValue, "stack is 'encoder'"),
        ({"replacement": "resample"}, {"reference": inputs.reference[:, :5]}, BadValue, "rows to sample for item 0"),
        ({"replacement": "mean"}, {"reference": inputs.reference[:, :5]}, BadValue, r"width of inputs\.reference is 5"),
        ({"replacement": "resample"}, {"batch": inputs.batch[:1], "targets": torch.tensor([1]), "reference": None}, BadValue,
         "at least one other"),
        ({}, {"reference": EncoderBatch(inputs.reference, mask=torch.ones(3, 7).bool())}, BadValue, "of the kind of inputs.batch"),
        ({"quantity": "logit-difference"}, {}, BadValue, r"inputs\.foils is None"),
    ]  # fmt: skip
    for fields, changes, kind, words in cases:
        with pytest.raises(kind, match=words):
            patch(model, replace(inputs, **changes), **fields)
    with pytest.raises(BadValue, match="memory_mib"):
        spec(memory_mib=0)


def test_broken_models_and_models_that_drop_are_refused() -> None:
    model = build("plain", dtype=torch.float64)
    inputs = replace(pair(model), foils=None)
    dropping = build({"dropout": 0.1}, dtype=torch.float64).train()
    with pytest.raises(BadValue, match=r"model's mode is 'training, with dropout'.*Call `model\.eval\(\)`"):
        patch(dropping, inputs)
    patch(dropping.eval(), inputs)
    with torch.no_grad():
        model.stack.blocks[1].get_parameter("mlp.out.weight")[0, 0] = float("nan")
    with pytest.raises(BadValue, match="NaN or infinity"):
        patch(model, inputs)


def test_an_activation_that_is_not_finite_is_named() -> None:
    """One item's activation at one place: only there is a value broken, and the error says where."""
    model = build("plain", dtype=torch.float64)
    inputs = replace(pair(model), foils=None)

    class Broken:
        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

        def run(self, batch: Any, **options: Any) -> Any:
            trace = model.run(batch, **options)
            if options.get("capture") and not options.get("resume"):
                for name, value in trace.at.items():
                    if name == "blocks.1.hook_resid_pre" and torch.equal(batch, inputs.batch):
                        value[0, 4, 0] = float("nan")
            return trace

    with pytest.raises(BadValue, match=r"metric with 'blocks\.1\.hook_resid_pre' at \{'pos': 4\} edited is 'NaN or infinity'"):
        patch(Broken(), inputs)


def test_an_interrupted_patching_keeps_what_it_has_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "TOGETHER", 1)
    monkeypatch.setattr(sweep, "ENOUGH", 1)  # cells of one position a run
    model = build("plain", dtype=torch.float64)
    inputs = replace(pair(model), foils=None)

    def stop(done: int, total: int, words: str = "") -> None:
        raise KeyboardInterrupt

    whole = patch(model, inputs, memory_mib=1)
    part = INSTRUMENT(model, inputs, spec(memory_mib=1), progress=stop)
    known = np.isfinite(part.values.value.values)
    assert 0 < known.sum() < known.size
    assert part.stopped_early
    assert not whole.stopped_early
    assert np.array_equal(part.values.value.values[known], whole.values.value.values[known])
    assert part.notes[-1] == f"Interrupted: {known.sum()} of {known.size} values were computed, and the rest is missing."
    assert gap(torch.from_numpy(part.values.clean.values), torch.from_numpy(whole.values.clean.values)) == 0
