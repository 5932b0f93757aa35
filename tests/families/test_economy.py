"""Windows, blocks, shared layers and factorised embeddings in the families that have them: each against its plain twin."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch

from tests.families.test_every_family import misdeclared, unequal, whole
from workbench.adapters import hf
from workbench.blocks import sparse
from workbench.blocks.init import generator_of
from workbench.core.batch import TokenBatch
from workbench.core.errors import BadValue, Incompatible
from workbench.core.protocol import Apply, Resume
from workbench.core.tolerance import gap
from workbench.data.text import CharTokenizer
from workbench.engine.generate import generate
from workbench.families import FAMILIES
from workbench.families.bert import BERTConfig
from workbench.families.gpt import GPT, GPTConfig
from workbench.training.checkpoint import load_model, write
from workbench.training.lora import LoRASpec, attach, linear_maps

ECONOMIES: dict[str, dict[str, Any]] = {
    "window": {"window": 3},
    "blocks": {"sparse": {"size": 2, "local": 1, "leading": 1}},
    "shared": {"groups": 1},
    "factorised": {"d_embed": 5},
    "all": {"window": 3, "groups": 2, "d_embed": 5},
}
CASES = list(itertools.product(("gpt", "bert"), ECONOMIES))


def cases(*names: str) -> list[Any]:
    """The cases of some economies (default: all); beside all at once in gpt, they are slow only by their number."""
    chosen = [case for case in CASES if not names or case[1] in names]
    return [case if case in (("gpt", "all"), ("gpt", "window")) else pytest.param(*case, marks=pytest.mark.slow) for case in chosen]


def built(family: str, economy: dict[str, Any], dtype: torch.dtype = torch.float64, **fields: Any) -> tuple[Any, Any]:
    """The family's tiny model with three layers, an economy and no weight at its first value; and its batch."""
    cls = FAMILIES.load(family)
    tiny, batch = cls.tiny(seed=0)
    model = cls(tiny.config.override({"n_layers": 3, "economy": economy, **fields}), seed=0)
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=generator_of("moved", number)), alpha=0.2)
    return model.to(dtype).eval(), batch


def spread(model: Any, **economy: Any) -> Any:
    """The slow twin without ``groups`` or ``d_embed``: each layer with weights of its own, one table multiplied out."""
    config = model.config.override({"economy": {**model.config.economy.model_dump(), "groups": 0, "d_embed": 0, **economy}})
    twin = type(model)(config, seed=1).to(next(model.parameters()).dtype).eval()
    state, blocks = dict(model.state_dict()), len(model.stack.blocks)
    up = state.pop("embed.up.weight", None)
    if up is not None:
        state["embed.token.weight"] = state["embed.token.weight"] @ up.T
    layers = {name: state.pop(name) for name in list(state) if name.startswith("stack.blocks.")}
    for name, value in layers.items():
        number, rest = name.removeprefix("stack.blocks.").split(".", 1)
        state |= {f"stack.blocks.{i}.{rest}": value for i in range(3) if i * blocks // 3 == int(number)}
    twin.load_state_dict(state, strict=True)
    return twin


@pytest.mark.parametrize(("family", "name"), cases())
def test_the_contract_of_families_holds(family: str, name: str) -> None:
    model, batch = built(family, ECONOMIES[name])
    trace: Any = whole(model, batch)
    plain = model.run(batch).logits
    assert list(trace.at) == list(model.sites()) == list(built(family, {})[0].sites())
    assert misdeclared(trace) == []
    assert bool(unequal(trace)) == (not model.sites().additive)
    assert gap(trace.logits, plain) < 1e-12
    for place in [site for site in model.sites() if "hook_resid" in site]:
        assert gap(model.run(batch, resume=Resume(start=place, residual=trace[place])).logits, plain) < 1e-12, place


@pytest.mark.parametrize(("family", "name"), cases())
def test_every_layer_is_edited_alone(family: str, name: str) -> None:
    model, batch = built(family, ECONOMIES[name])
    plain = model.run(batch, capture="blocks.*.mlp.hook_pre")
    for layer in range(3):
        edit = Apply(f"blocks.{layer}.mlp.hook_post", fn=lambda value, site: value * 2)
        changed = model.run(batch, capture="blocks.*.mlp.hook_pre", edit=[edit])
        moved = [not torch.equal(changed[site], plain[site]) for site in changed.at]
        assert moved == [later > layer for later in range(3)], layer


@pytest.mark.parametrize(("family", "name"), cases("shared", "factorised", "all"))
def test_shared_and_factorised_weights_are_their_spread_out_twin(family: str, name: str) -> None:
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        model, batch = built(family, ECONOMIES[name], dtype)
        twin = spread(model)
        ours, theirs = whole(model, batch), whole(twin, batch)
        assert [site for site in ours.at if gap(ours[site], theirs[site]) > bound] == []
        named = {weight: value for weight, value in model.named_weights().items() if weight != "W_up"}
        assert list(named) == list(twin.named_weights())
        assert [weight for weight, value in named.items() if gap(value, twin.weight(weight)) > bound] == []
        model.train()
        assert gap(model.loss(batch)[0], twin.loss(batch)[0]) < 10 * bound


def test_the_gradient_of_a_shared_weight_is_the_sum_of_its_layers() -> None:
    model, batch = built("gpt", {"groups": 1})
    twin = spread(model)
    for one in (model, twin):
        one.loss(batch)[0].backward()
    for name, parameter in model.stack.blocks[0].named_parameters():
        total: Any = sum(block.get_parameter(name).grad for block in twin.stack.blocks)
        assert gap(parameter.grad, total) < 1e-11, name


def test_neighbouring_layers_share() -> None:
    model, _ = built("gpt", {"groups": 2}, n_layers=5)
    place = {weight: value.data_ptr() for weight, value in model.named_weights().items() if weight.endswith("attn.W_Q")}
    assert len(set(list(place.values())[:3])) == 1
    assert len(set(list(place.values())[3:])) == 1
    assert len(set(place.values())) == 2


@pytest.mark.parametrize("family", ["gpt", "bert"])
def test_the_saving_of_sharing_and_factorising(family: str, tmp_path: Path) -> None:
    """Counted, and stored once."""
    fields = {"d_vocab": 200, "d_model": 32, "d_mlp": 128}
    sizes = {}
    for name in ("shared", "factorised"):
        model, _ = built(family, ECONOMIES[name], torch.float32, **fields)
        folder = write(tmp_path / f"{family} {name}", model)
        sizes[name] = sum(p.numel() for p in model.parameters())
        with safetensors.safe_open(folder / "model.safetensors", framework="pt") as opened:
            stored = {key: opened.get_tensor(key).numel() for key in opened.keys()}  # noqa: SIM118  # it is no mapping
        assert sum(stored.values()) == sizes[name]
        assert load_model(folder).digest() == model.digest()
    plain, _ = built(family, {}, torch.float32, **fields)
    whole_size = sum(p.numel() for p in plain.parameters())
    block = sum(p.numel() for p in plain.stack.blocks[0].parameters())
    assert whole_size - sizes["shared"] == 2 * block
    assert whole_size - sizes["factorised"] == 200 * 32 - (200 * 5 + 5 * 32)


def test_shared_layers_are_adapted_together() -> None:
    model, batch = built("gpt", {"groups": 1})
    assert set(linear_maps(model).values()) == {
        f"stack.blocks.0.{part}" for part in ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.inner", "mlp.out")
    }
    with pytest.raises(BadValue, match=r"with 'blocks\.1\.attn\.W_Q', which is the same map"):
        attach(model, LoRASpec.parse({"rank": 2, "select": ["blocks.0.attn.W_Q"]}))
    logits = model.run(batch).logits
    attach(model, LoRASpec.parse({"rank": 2, "select": ["blocks.*.attn.W_Q"]}))
    assert torch.equal(model.run(batch).logits, logits)


def test_the_first_values_of_a_factorised_table_multiply_to_those_of_a_plain_one() -> None:
    config = {"d_vocab": 2000, "d_model": 64, "n_heads": 4}
    plain = GPT(GPTConfig.parse(config)).weight("W_E")
    factorised = GPT(GPTConfig.parse({**config, "economy": {"d_embed": 16}})).weight("W_E")
    assert factorised.shape == plain.shape
    assert abs(float(factorised.std() / plain.std()) - 1) < 0.1


# --- windows and blocks


@pytest.mark.parametrize(("family", "name"), cases("window", "blocks"))
def test_a_pattern_is_the_plain_model_under_a_dense_mask(family: str, name: str) -> None:
    """Importable: the same weights, every site, and the mask given from outside."""
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        model, _ = built(family, ECONOMIES[name], dtype)
        plain, _ = built(family, {}, dtype)
        ids = torch.randint(0, 23, (2, 12), generator=generator_of("ids"))
        i, j = torch.arange(12)[:, None], torch.arange(12)[None]
        seen = (i - j).abs() < 3 if name == "window" else (i // 2 == j // 2) | (torch.minimum(i, j) < 2)
        mask = (seen & (j <= i) if family == "gpt" else seen)[None]
        ours, theirs = model.run(ids, capture="*"), plain.run(ids, capture="*", resume=Resume(mask=mask))
        assert [site for site in ours.at if gap(ours[site], theirs[site]) > bound] == []
        assert gap(ours.logits, plain.run(ids).logits) > 1e-3
        assert bool((ours["blocks.0.attn.hook_pattern"][:, :, ~mask[0]] == 0).all())


@pytest.mark.parametrize("name", ["window", "blocks", "all"])
def test_a_cache_respects_the_pattern(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "RUN", 2)
    model, _ = built("gpt", ECONOMIES[name])
    ids = torch.randint(0, 23, (2, 14), generator=generator_of("ids"))
    full = model.run(ids).logits
    for cuts in ([14], [5, 9], [1] * 14, [8, 1, 1, 4]):
        past, parts, first = None, [], 0
        for length in cuts:
            trace = model.run(ids[:, first : first + length], resume=Resume(past=past) if past is not None else None, cache=True)
            past, first = trace.past, first + length
            parts.append(trace.logits)
        assert gap(torch.cat(parts, 1), full) < 1e-12, cuts


def test_what_left_the_window_no_longer_acts() -> None:
    model, _ = built("gpt", {"window": 3}, n_layers=1)
    ids = torch.randint(0, 23, (1, 10), generator=generator_of("ids"))
    other = ids.clone()
    other[:, 2] = (other[:, 2] + 1) % 23
    moved = (model.run(ids).logits != model.run(other).logits).any(-1)[0]
    assert moved.nonzero().flatten().tolist() == [2, 3, 4]


def test_a_token_tree_sees_its_window_by_position() -> None:
    """Two continuations of one context scored in one pass, as the engine does, against each alone."""
    model, _ = built("gpt", {"window": 3})
    ids = torch.randint(0, 23, (1, 10), generator=generator_of("ids"))
    context, one, other = ids[:, :4], ids[:, 4:7], ids[:, 7:]
    past = model.run(context, cache=True).past
    triangle, none = torch.ones(3, 3, dtype=torch.bool).tril(), torch.zeros(3, 3, dtype=torch.bool)
    mask = torch.cat([torch.ones(6, 4, dtype=torch.bool), torch.cat([torch.cat([triangle, none], 1), torch.cat([none, triangle], 1)])], 1)
    where = Resume(past=past, positions=torch.tensor([[4, 5, 6, 4, 5, 6]]), mask=mask[None])
    together = model.run(torch.cat([one, other], 1), resume=where).logits
    alone = [model.run(torch.cat([context, branch], 1)).logits[:, 4:] for branch in (one, other)]
    assert gap(together, torch.cat(alone, 1)) < 1e-12


def test_packed_segments_keep_their_windows_apart() -> None:
    model, batch = built("gpt", {"window": 3})
    assert isinstance(batch, TokenBatch)
    packed = model.run(batch).logits
    alone = [model.run(part).logits for part in (batch.tokens[:1, :5], batch.tokens[:1, 5:])]
    assert gap(packed[:1], torch.cat(alone, 1)) < 1e-12


def test_text_is_generated_within_a_window() -> None:
    config = GPTConfig.parse(
        {"n_layers": 2, "d_model": 16, "n_heads": 4, "d_vocab": 5, "n_ctx": 32, "economy": {"window": 4}, "init_std": 0.4}
    )
    model: Any = GPT(config, CharTokenizer.of("abcde")).double().eval()
    text = "abcd"
    for _ in range(12):
        text += "abcde"[int(model.run(text).logits[0, -1].argmax())]
    assert generate(model, ["abcd"], most=12) == [text[4:]]


# --- configs


def test_stored_configs_and_digests_are_as_before_there_were_economies() -> None:
    for cls in (GPTConfig, BERTConfig):
        config = cls.parse({"d_vocab": 5})
        assert "economy" not in config.model_dump()
        assert "economy" in cls.parse({"d_vocab": 5, "economy": {"groups": 1}}).model_dump()


@pytest.mark.parametrize(
    ("economy", "words"),
    [
        ({"window": 2, "sparse": {}}, "either a window or sparse"),
        ({"groups": 9}, "economy.groups must be at most n_layers"),
        ({"window": -1}, "window"),
    ],
)
def test_economies_that_cannot_be(economy: dict[str, Any], words: str) -> None:
    for cls in (GPTConfig, BERTConfig):
        with pytest.raises(BadValue, match=words):
            cls.parse({"d_vocab": 5, "economy": economy})


@pytest.mark.parametrize("name", ECONOMIES)
def test_an_economy_no_published_architecture_has_is_not_exported(name: str, tmp_path: Path) -> None:
    for family in ("gpt", "bert"):
        with pytest.raises(Incompatible, match="has its economy"):
            hf.save(built(family, ECONOMIES[name])[0], tmp_path)
