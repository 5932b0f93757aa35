"""Low-rank adaptation on every family: what it computes, what trains, what is seen, what is stored, and that it can be undone."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.setting import Copying, model, spec
from workbench.adapters import hf
from workbench.blocks.init import generator_of
from workbench.core.errors import BadValue, CorruptFile, EmptySelection, Incompatible, MissingFile
from workbench.core.protocol import Zero
from workbench.core.tolerance import gap
from workbench.families import FAMILIES
from workbench.families.gpt import GPT
from workbench.training.adapter_files import load_adapter, save_adapter
from workbench.training.checkpoint import load_model, read, write
from workbench.training.loop import train
from workbench.training.lora import LoRASpec, attach, attached, base_digest, detach, linear_maps, merge, savings, unmerge

NAMES = [name if name == "gpt" else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
EVERY = LoRASpec.parse({"rank": 2, "select": ["*"]})


def moved(name: str, dtype: torch.dtype = torch.float64) -> tuple[Any, Any]:
    """A family's tiny model with no weight at zero, and its batch."""
    tiny, batch = FAMILIES.load(name).tiny(seed=0)
    with torch.no_grad():
        for number, parameter in enumerate(tiny.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=generator_of("moved", number)), alpha=0.2)
    cast = {f: v.to(dtype) if v is not None and v.is_floating_point() else v for f, v in vars(batch).items()}
    return tiny.to(dtype).eval(), type(batch)(**cast)


def stir(adapted: Any) -> None:
    """Give every B values of its own."""
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name.endswith("lora_b"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator_of("stir", name)) * 0.05)


def state_of(given: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in given.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def dense(plain: Any, adapted: Any) -> Any:
    """The slow twin: a plain model whose weights are W + alpha / rank B A, written out."""
    twin, state, made = copy.deepcopy(plain), adapted.state_dict(), attached(adapted)
    assert made is not None
    with torch.no_grad():
        for path in made.maps:
            a, b = state[f"{path}.lora_a"], state[f"{path}.lora_b"]
            twin.get_submodule(path).weight.add_(made.spec.alpha / made.spec.rank * (b @ a))
    return twin


@pytest.mark.parametrize("name", NAMES)
def test_every_linear_map_of_every_family_can_be_adapted_and_is_its_dense_twin(name: str) -> None:
    plain, batch = moved(name)
    adapted = copy.deepcopy(plain)
    attach(adapted, EVERY)
    assert torch.equal(adapted.run(batch).logits, plain.run(batch).logits)  # B is zero
    stir(adapted)
    twin = dense(plain, adapted)
    ours, theirs = adapted.run(batch, capture="*"), twin.run(batch, capture="*")
    assert list(ours.at) == list(plain.sites())
    assert [site for site in ours.at if gap(ours[site], theirs[site]) > 1e-12] == []
    assert gap(ours.logits, plain.run(batch).logits) > 1e-3
    assert list(adapted.named_weights()) == list(plain.named_weights())
    assert [name for name, w in adapted.named_weights().items() if gap(w, twin.weight(name)) > 1e-12] == []


def test_float32_too() -> None:
    plain, batch = moved("gpt", torch.float32)
    adapted = copy.deepcopy(plain)
    attach(adapted, EVERY)
    stir(adapted)
    assert gap(adapted.run(batch).logits, dense(plain, adapted).run(batch).logits) < 2e-6


def test_a_wrong_scale_would_be_caught() -> None:
    plain, batch = moved("gpt")
    adapted = copy.deepcopy(plain)
    attach(adapted, EVERY)
    stir(adapted)
    twin = dense(plain, adapted)
    for module in adapted.modules():
        if hasattr(module, "scale") and hasattr(module, "lora_a"):
            module.scale = module.scale * 1.001
    assert gap(adapted.run(batch).logits, twin.run(batch).logits) > 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_only_additions_train_and_their_gradients_are_the_twins(name: str) -> None:
    """dL/dB = s dL/dW Aᵀ and dL/dA = s Bᵀ dL/dW, with dL/dW of the dense twin."""
    plain, batch = moved(name)
    adapted = copy.deepcopy(plain)
    made = attach(adapted, EVERY)
    stir(adapted)
    twin = dense(plain, adapted)
    for one in (adapted, twin):
        torch.manual_seed(0)  # what the loss itself draws
        total, count = one.loss(batch)
        (total / count).backward()
    scale = made.spec.alpha / made.spec.rank
    for path in made.maps:
        layer, whole = adapted.get_submodule(path), twin.get_submodule(path).weight.grad
        if whole is None:  # no part of this loss
            assert layer.lora_a.grad is None
            continue
        assert gap(layer.lora_b.grad, scale * whole @ layer.lora_a.T) < 1e-11, path
        assert gap(layer.lora_a.grad, scale * layer.lora_b.T @ whole) < 1e-11, path
    assert {n.rpartition(".")[2] for n, p in adapted.named_parameters() if p.requires_grad} == {"lora_a", "lora_b"}
    assert all(p.grad is None for n, p in adapted.named_parameters() if "lora" not in n)


@pytest.mark.parametrize("name", NAMES)
def test_merging_is_the_same_model_and_undoing_gives_the_bytes_back(name: str) -> None:
    plain, batch = moved(name)
    before, digest, training = state_of(plain), plain.digest(), [p.requires_grad for p in plain.parameters()]
    attach(plain, EVERY)
    stir(plain)
    with_additions, logits = state_of(plain), plain.run(batch).logits
    weights = {name: w.detach().clone() for name, w in plain.named_weights().items()}
    merged = merge(plain)
    assert list(plain.state_dict()) == list(before)
    assert attached(plain) is None
    assert [p.requires_grad for p in plain.parameters()] == training
    assert all(torch.equal(plain.weight(name), w) for name, w in weights.items())
    assert gap(plain.run(batch).logits, logits) < 1e-12
    unmerge(plain, merged)
    assert equal(state_of(plain), with_additions)
    assert torch.equal(plain.run(batch).logits, logits)
    detach(plain)
    assert equal(state_of(plain), before)
    assert plain.digest() == digest


def test_what_was_trained_after_merging_cannot_be_unmerged() -> None:
    tiny, _ = moved("gpt")
    attach(tiny, LoRASpec.parse({"rank": 2}))
    stir(tiny)
    merged = merge(tiny)
    with torch.no_grad():
        tiny.stack.blocks[1].attn.v.weight[0, 0] += 1
    with pytest.raises(BadValue, match=r"changed since they were merged \('blocks\.1\.attn\.W_V'\)"):
        unmerge(tiny, merged)


def test_parameters_that_did_not_train_before_do_not_after() -> None:
    tiny, _ = moved("gpt")
    tiny.embed.token.weight.requires_grad_(False)
    attach(tiny, LoRASpec.parse({"rank": 1}))
    detach(tiny)
    assert [n for n, p in tiny.named_parameters() if not p.requires_grad] == ["embed.token.weight"]


# --- which maps


def gpt() -> tuple[Any, Any]:
    return GPT.tiny()


def test_selection_is_by_name_and_glob_as_of_sites() -> None:
    tiny, _ = gpt()
    made = attach(tiny, LoRASpec.parse({"rank": 2, "select": ["blocks.1.attn.W_Q", "blocks.*.mlp.W_in"]}))
    assert list(made.maps.values()) == [("blocks.0.mlp.W_in",), ("blocks.1.attn.W_Q",), ("blocks.1.mlp.W_in",)]
    assert list(made.maps) == ["stack.blocks.0.mlp.inner", "stack.blocks.1.attn.q", "stack.blocks.1.mlp.inner"]


def test_the_default_adapts_queries_and_values_of_every_stack() -> None:
    tiny, _ = FAMILIES.load("clip").tiny(seed=0)
    made = attach(tiny, LoRASpec.parse({"rank": 2}))
    assert {name.rpartition(".")[2] for names in made.maps.values() for name in names} == {"W_Q", "W_V"}
    assert {name.partition(".")[0] for names in made.maps.values() for name in names} == {"text", "image"}


def test_wrong_selections_and_ranks_are_refused_and_change_nothing() -> None:
    tiny, _ = gpt()
    digest = tiny.digest()
    with pytest.raises(EmptySelection, match=r"'blocks\.\*\.attn\.W_QQ' matches no linear map of this gpt model. Nearest: 'blocks"):
        attach(tiny, LoRASpec.parse({"select": ["blocks.*.attn.W_QQ"]}))
    with pytest.raises(EmptySelection, match="'W_E' matches no linear map"):  # a table, and W_U is the same one
        attach(tiny, LoRASpec.parse({"select": ["W_E"]}))
    with pytest.raises(BadValue, match=r"the rank is 9, but it must be at most 8, the smaller side of 'blocks\.0\.attn\.W_V'"):
        attach(tiny, LoRASpec.parse({"rank": 9}))
    assert tiny.digest() == digest
    assert all(p.requires_grad for p in tiny.parameters())
    attach(tiny, LoRASpec.parse({"rank": 2}))
    with pytest.raises(BadValue, match="adapted already.*Merge or detach"):
        attach(tiny, LoRASpec.parse({"rank": 2}))
    with pytest.raises(BadValue, match="the model is 'plain'"):
        merge(gpt()[0])


def test_part_of_a_fused_map_is_no_map(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny, _ = gpt()
    named = tiny.named_weights
    halves = lambda: named() | {"blocks.0.mlp.W_first": tiny.stack.blocks[0].mlp.inner.weight[:8].T}  # noqa: E731
    monkeypatch.setattr(tiny, "named_weights", halves)
    with pytest.raises(BadValue, match=r"\['blocks\.0\.mlp\.W_in'\].*with 'blocks\.0\.mlp\.W_first', which is the same map"):
        attach(tiny, LoRASpec.parse({"rank": 2, "select": ["blocks.0.mlp.W_in"]}))


@pytest.mark.parametrize("name", NAMES)
def test_every_linear_map_has_a_public_name(name: str) -> None:
    tiny, _ = FAMILIES.load(name).tiny(seed=0)
    maps = {path for path, module in tiny.named_modules() if type(module) is torch.nn.Linear}
    assert set(linear_maps(tiny).values()) == maps


def test_an_edit_of_one_reader_goes_through_the_addition() -> None:
    plain, batch = moved("gpt")
    adapted = copy.deepcopy(plain)
    attach(adapted, EVERY)
    stir(adapted)
    twin = dense(plain, adapted)
    edit = [Zero("blocks.0.hook_q_input", at={"head": 1}), Zero("blocks.1.attn.hook_result", at={"head": 2})]
    assert gap(adapted.run(batch, edit=edit).logits, twin.run(batch, edit=edit).logits) < 1e-12


# --- training and files


def test_training_moves_additions_alone_and_continues_to_the_byte(tmp_path: Path) -> None:
    how, lora = spec(save_every=5, accumulate=2, precision="fp16"), LoRASpec.parse({"rank": 2, "select": ["*"]})

    def learner() -> Any:
        out = model()
        attach(out, lora)
        return out

    class Interrupted(Exception):
        pass

    def stop(event: str, state: Any) -> None:
        if event == "step" and state["step"] == 8:
            raise Interrupted

    one = learner()
    whole = train(one, Copying(), how, out=tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(learner(), Copying(), how, out=tmp_path / "cut", callbacks=[stop])
    again = learner()
    rest = train(again, Copying(), how, out=tmp_path / "cut")
    assert rest["resumed_from"] == 5
    assert rest["weights"] == whole["weights"]
    assert base_digest(one) == model().digest()
    moments = read(tmp_path / "whole" / "step-00000020").optimizer
    assert moments is not None
    assert all("lora" in name for name in moments)
    loaded = load_model(tmp_path / "whole" / "final")  # adapted as it was
    assert loaded.digest() == one.digest()
    assert attached(loaded) == attached(one)


def test_a_plain_checkpoint_says_nothing_of_adapters(tmp_path: Path) -> None:
    plain, _ = gpt()
    text = (write(tmp_path / "plain", plain) / "config.json").read_text()
    assert "lora" not in text
    attach(plain, LoRASpec.parse({"rank": 2}))
    stir(plain)
    merge(plain)
    assert (write(tmp_path / "merged", plain) / "config.json").read_text() == text


def test_an_adapted_model_is_merged_before_it_is_published(tmp_path: Path) -> None:
    tiny, _ = gpt()
    attach(tiny, LoRASpec.parse({"rank": 2}))
    with pytest.raises(Incompatible, match="it is adapted. Merge its adapters first"):
        hf.save(tiny, tmp_path)


def test_adapters_are_stored_alone_and_only_fit_their_base(tmp_path: Path) -> None:
    tiny, batch = gpt()
    attach(tiny, LoRASpec.parse({"rank": 2}))
    stir(tiny)
    folder = save_adapter(tiny, tmp_path / "adapter")
    base, _ = gpt()
    load_adapter(base, folder)
    assert base.digest() == tiny.digest()
    assert torch.equal(base.run(batch).logits, tiny.run(batch).logits)
    assert sorted(path.name for path in folder.iterdir()) == ["adapter.json", "adapter.safetensors"]
    other, _ = GPT.tiny(seed=1)
    digest = other.digest()
    with pytest.raises(BadValue, match=r"the model's digest is .* the base these adapters were trained on .* Load that model first"):
        load_adapter(other, folder)
    assert other.digest() == digest
    head = json.loads((folder / "adapter.json").read_text())
    (folder / "adapter.json").write_text(json.dumps({**head, "lora": {**head["lora"], "rank": 3}}))
    with pytest.raises(BadValue, match="the additions is .*blocks"):
        load_adapter(other := gpt()[0], folder)
    assert attached(other) is None
    (folder / "adapter.safetensors").write_bytes(b"x")
    with pytest.raises(CorruptFile, match=r"adapter\.safetensors' should be of sha256"):
        load_adapter(gpt()[0], folder)
    with pytest.raises(MissingFile, match="adapter file"):
        load_adapter(gpt()[0], tmp_path)


def test_the_saving_is_what_the_optimizer_and_the_files_hold(tmp_path: Path) -> None:
    fields = {"n_layers": 4, "d_model": 64, "n_heads": 4}
    plain, adapted = model(**fields), model(**fields)
    whole = savings(plain)
    attach(adapted, LoRASpec.parse({"rank": 4}))
    found = savings(adapted)
    assert found.parameters == whole.parameters == sum(p.numel() for p in plain.parameters())
    assert found.trained == 4 * 2 * (64 * 4 + 4 * 64)
    assert found.optimizer_bytes_whole == whole.optimizer_bytes
    assert "4,096 of 200,768 parameters train (2.04%); optimizer state 0.03 MiB in place of 1.53 MiB" in str(found)
    for one, saving in ((plain, whole), (adapted, found)):
        out = tmp_path / str(saving.trained)
        train(one, Copying(), spec(steps=2, save_every=1), out=out)
        held = read(out / "step-00000002").optimizer
        assert held is not None
        assert sum(v.numel() * v.element_size() for v in held.values()) == saving.optimizer_bytes
    files = {p.name: p.stat().st_size for p in save_adapter(adapted, tmp_path / "adapter").iterdir()}
    assert files["adapter.safetensors"] < 0.03 * (tmp_path / str(whole.trained) / "final" / "model.safetensors").stat().st_size
