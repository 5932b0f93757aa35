"""Direct logit attribution: parts that add up in every family, confirmed by intervention and by TransformerLens; a planted head found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from probes.direct_logit_attribution import INSTRUMENT, DirectLogitAttributionSpec
from tests.families.models import build, tokens
from tests.probes.shaken import READABLE, rows_of, shake, shaken
from tests.reference.output_side import share_by_intervention
from workbench.core.errors import AssayError, BadValue, Incompatible
from workbench.core.protocol import Inputs
from workbench.families.bert import BERT
from workbench.families.gpt import GPT, GPTConfig
from workbench.families.imagen import Imagen
from workbench.families.seq2seq import Seq2Seq, Seq2SeqConfig
from workbench.families.vit import ViT, ViTConfig

GPTS: dict[str, Any] = {
    "grouped": "grouped", "one_kv": "one_kv", "no_norm": "no_norm", "attention_only": "attention_only", "wide_heads": "wide_heads",
    "shared and factorised": {"economy": {"groups": 1, "d_embed": 5}},
}  # fmt: skip


def asked(batch: Any, **more: Any) -> Inputs:
    rows = torch.arange(rows_of(batch))
    return Inputs(batch, targets=rows % 3, foils=(rows + 1) % 3, **more)


def spec(by: str = "head", **more: Any) -> DirectLogitAttributionSpec:
    return DirectLogitAttributionSpec.parse({"by": by, "quantity": "logit-difference", **more})


def check_adds_up(model: Any, batch: Any, **more: Any) -> None:
    splits = []
    for by in ("component", "head", "neuron"):
        v = INSTRUMENT(model, asked(batch), spec(by, **more)).values
        assert v.complete.all()
        assert float(v.gap.max()) <= 1e-12
        np.testing.assert_allclose(v.contribution.sum("component"), v.value, rtol=0, atol=1e-12 * max(1, float(abs(v.contribution).max())))
        np.testing.assert_allclose(v.accumulated[:, -1], v.value, rtol=0, atol=1e-11)
        splits.append(v)
    for i in range(2):  # a finer split adds up to the coarser one, layer by layer
        coarse, fine = (one.contribution.groupby("layer").sum() for one in splits[i : i + 2])
        np.testing.assert_allclose(coarse, fine, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    "name", [name if name in ("grouped", "shared and factorised") else pytest.param(name, marks=pytest.mark.slow) for name in GPTS]
)
def test_the_parts_add_up_in_every_kind_of_decoder(name: str) -> None:
    model = build(GPTS[name], dtype=torch.float64)
    check_adds_up(model, tokens(model))


@pytest.mark.parametrize(
    "name", [name if name == "whisper" else pytest.param(name, marks=pytest.mark.slow) for name in READABLE if name not in ("gpt", "clip")]
)
def test_the_parts_add_up_in_every_family(name: str) -> None:
    check_adds_up(*shaken(name))


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["image", "text"])
def test_the_parts_add_up_in_either_tower(stack: str) -> None:
    check_adds_up(*shaken("clip"), stack=stack)


@pytest.mark.slow
def test_the_parts_add_up_over_the_mean_of_the_patches_and_after_a_norm_of_the_embedding() -> None:
    vit = ViTConfig(height=4, width=6, channels=2, patch=2, n_layers=2, d_model=16, n_heads=4, n_classes=5, pool="mean")
    check_adds_up(shake(ViT(vit)), ViT.tiny()[1])
    config = Seq2SeqConfig(d_model=16, n_heads=4, d_vocab=23, n_ctx=16, embed_norm=True, scale_embed=True, logits_bias=True)
    model, batch = shake(Seq2Seq(config)), Seq2Seq.tiny()[1]
    check_adds_up(model, batch)
    v = INSTRUMENT(model, asked(batch), spec()).values
    assert "start" in v.component.values
    assert "embed" not in v.component.values
    assert abs(v.contribution.sel(component="unembed bias")).min() > 0


# --- confirmed by intervention ------------------------------------------------------------------------------------


def written_by(model: Any, batch: Any, prefix: str, name: str) -> Tensor:
    """The component's output as the model itself says it, ``[batch, pos, d_model]``."""
    words = {"attention": "hook_attn_out", "cross attention": "hook_cross_attn_out", "mlp": "hook_mlp_out"}
    if name in ("embed", "positions"):
        return model.run(batch, capture=(site := f"{prefix}hook_{'embed' if name == 'embed' else 'pos_embed'}"))[site]
    layer, _, rest = name.removeprefix("L").partition(" ")
    if rest in words:
        return model.run(batch, capture=(site := f"{prefix}blocks.{layer}.{words[rest]}"))[site]
    layer, head = name.removeprefix("L").replace("X", "H").split("H")
    part = "cross_attn" if "X" in name else "attn"
    return model.run(batch, capture=(site := f"{prefix}blocks.{layer}.{part}.hook_result"))[site][:, :, int(head)]


def check_interventions(model: Any, batch: Any, prefix: str, held: tuple[str, ...], at: Any, stack: str = "") -> None:
    inputs = asked(batch)
    tried = 0
    for by in ("component", "head"):
        v = INSTRUMENT(model, inputs, spec(by, stack=stack)).values
        for component in v.component.values:
            if "bias" in component:
                continue
            fall = at(share_by_intervention(model, batch, prefix, 1, written_by(model, batch, prefix, component), held))
            rows = torch.arange(len(fall))
            assert inputs.targets is not None
            assert inputs.foils is not None
            expected = fall[rows, inputs.targets] - fall[rows, inputs.foils]
            np.testing.assert_allclose(v.contribution.sel(component=component), expected, rtol=0, atol=1e-11, err_msg=component)
            tried += 1
    assert tried >= 12


@pytest.mark.parametrize("name", ["gpt", pytest.param("dalle", marks=pytest.mark.slow)])
def test_taking_a_part_out_lowers_the_answer_by_its_share(name: str) -> None:
    model, batch = shaken(name)
    at = (lambda logits: logits[:, -1]) if name == "gpt" else lambda logits: logits[torch.arange(3), ends]
    ends = INSTRUMENT(model, asked(batch), spec()).values.position.values
    check_interventions(model, batch, "", ("ln_final.hook_scale",), at)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit", "seq2seq", "whisper"])
def test_taking_a_part_out_lowers_the_answer_in_other_families(name: str) -> None:
    prefix = "" if name == "vit" else "decoder."
    at = (lambda logits: logits) if name == "vit" else lambda logits: logits[:, -1]
    check_interventions(*shaken(name), prefix, (f"{prefix}ln_final.hook_scale",), at)


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["image", "text"])
def test_taking_a_part_out_of_a_tower_lowers_the_cosine_at_the_length_it_had(stack: str) -> None:
    """The length of the projected vector is held by hand: the logits of the changed run times its length over the old one."""
    model, batch = shaken("clip")
    turn = (lambda logits: logits) if stack == "image" else lambda logits: logits.T
    v = INSTRUMENT(model, asked(batch), spec(stack=stack)).values
    name, held, end = f"{stack}.hook_projected", f"{stack}.ln_final.hook_scale", f"{stack}.blocks.1.hook_resid_post"
    from workbench.core.protocol import Add, Replace

    plain = model.run(batch, capture=[name, held, f"{stack}.blocks.1.attn.hook_result"])
    for head in range(v.sizes["component"]):
        if v.component.values[head] not in ("L1H0", "L1H2"):
            continue
        part = plain[f"{stack}.blocks.1.attn.hook_result"][:, :, int(v.component.values[head][-1])]
        changed = model.run(batch, edit=[Add(end, value=-part), Replace(held, value=plain[held])], capture=name)
        ratio = (changed[name].norm(dim=-1) / plain[name].norm(dim=-1))[:, None]
        fall = turn(plain.logits) - turn(changed.logits) * ratio
        rows = torch.arange(3)
        expected = fall[rows, rows % 3] - fall[rows, (rows + 1) % 3]
        np.testing.assert_allclose(v.contribution[:, head], expected, rtol=0, atol=1e-11)


# --- the same numbers as TransformerLens --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one_kv", "grouped", "no_norm"])
def test_the_same_numbers_as_transformer_lens(name: str) -> None:
    """Where the final norm's gain is one: theirs leaves it out, as it is in a model loaded with its norms folded."""
    pytest.importorskip("transformer_lens")
    from workbench.adapters.transformer_lens import present

    model = build(name, dtype=torch.float64)
    if model.ln_final is not None:
        torch.nn.init.ones_(model.ln_final.weight)
    ids, wanted, other = tokens(model, rows=3), torch.tensor([3, 0, 5]), torch.tensor([1, 2, 4])
    _, cache = present(model).run_with_cache(ids)

    def theirs(stack: Tensor) -> np.ndarray:
        return cache.logit_attrs(stack, tokens=wanted, incorrect_tokens=other, pos_slice=-1).numpy().T

    inputs = Inputs(ids, targets=wanted, foils=other)
    found = {by: INSTRUMENT(model, inputs, spec(by)).values for by in ("component", "head", "neuron")}
    parts, labels = cache.decompose_resid(layer=-1, return_labels=True, pos_slice=-1)
    names = {"embed": "embed", "pos_embed": "positions"}
    names |= {f"{i}_{a}_out": f"L{i} {b}" for i in range(2) for a, b in (("attn", "attention"), ("mlp", "mlp"))}
    kept = [i for i, label in enumerate(labels) if label in names]
    ours = found["component"].contribution.sel(component=[names[labels[i]] for i in kept])
    np.testing.assert_allclose(ours, theirs(parts)[:, kept], rtol=0, atol=1e-11)
    assert sum(kind not in ("unembed bias", "norm bias") for kind in found["component"].kind.values) == len(kept)

    heads, labels = cache.stack_head_results(layer=-1, return_labels=True, pos_slice=-1)
    np.testing.assert_allclose(found["head"].contribution.sel(component=labels), theirs(heads), rtol=0, atol=1e-11)

    neurons = theirs(cache.stack_neuron_results(layer=-1, pos_slice=-1))
    own = found["neuron"].isel(component=found["neuron"].kind.values == "neuron").contribution
    np.testing.assert_allclose(own, neurons, rtol=0, atol=1e-11)

    stream = theirs(cache.accumulated_resid(layer=-1, incl_mid=True, pos_slice=-1))
    v = found["component"]
    constant = v.contribution.isel(component=slice(0, 2)).sum("component")
    start = "positions" if "positions" in v.component.values else "embed"
    at = [start, "L0 attention", "L0 mlp", "L1 attention", "L1 mlp"]
    np.testing.assert_allclose(v.accumulated.sel(component=at) - constant, stream, rtol=0, atol=1e-11)


@pytest.mark.slow
def test_a_gain_of_the_final_norm_counts_here_and_is_left_out_by_transformer_lens() -> None:
    pytest.importorskip("transformer_lens")
    from workbench.adapters.transformer_lens import present

    model = build("one_kv", dtype=torch.float64)
    ids, wanted = tokens(model), torch.tensor([3, 0])
    _, cache = present(model).run_with_cache(ids)
    theirs = cache.logit_attrs(cache.decompose_resid(layer=-1, pos_slice=-1), tokens=wanted, pos_slice=-1).sum(0).numpy()
    v = INSTRUMENT(model, Inputs(ids, targets=wanted), DirectLogitAttributionSpec(by="component")).values
    constant = v.contribution.isel(component=slice(0, 2)).sum("component").values
    assert float(v.gap.max()) <= 1e-12
    assert np.abs(theirs + constant - v.value.values).min() > 0.01


# --- planted ------------------------------------------------------------------------------------------------------


def by_hand(*, norm: bool, planted: bool = True, seed: int = 0) -> Any:
    """Two attention layers whose heads attend evenly. The stream has a part for the token (0 to 3), a hidden part (4 to 7) and a part for
    the answer (8 to 11), which alone the unembedding reads. L0H1 moves the token to the hidden part, L1H0 the hidden part to the answer:
    the answer is what came before, and L0H1 acts through L1H0 alone."""
    config = GPTConfig(
        n_layers=2, d_model=12, n_heads=2, d_head=4, d_vocab=4, n_ctx=8, act="none", positions="learned", tied=False, bias=False,
        norm_placement="pre" if norm else "none",
    )  # fmt: skip
    model = GPT(config, seed=seed).double()
    if not planted:
        return model
    eye = torch.eye(4, dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if name.endswith("weight") and "ln" in name else 0.0)
        model.embed.token.weight[:, :4] = eye
        model.weight("W_U")[8:] = eye
        for layer, head, source, end in ((0, 1, 0, 4), (1, 0, 4, 8)):
            model.weight(f"blocks.{layer}.attn.W_V")[head, source : source + 4] = eye
            model.weight(f"blocks.{layer}.attn.W_O")[head, :, end : end + 4] = 3 * eye
    return model


ROWS = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]])


@pytest.mark.parametrize("norm", [False, True])
def test_a_head_that_writes_the_answer_is_found_and_one_that_acts_through_it_gets_nothing(norm: bool) -> None:
    model = by_hand(norm=norm)
    wanted = torch.arange(4)
    inputs = Inputs(ROWS, targets=wanted, foils=(wanted + 1) % 4)
    assert model.run(ROWS, logits="last").logits[:, 0].argmax(-1).equal(wanted)
    result = INSTRUMENT(model, inputs, spec())
    v: Any = result.values
    np.testing.assert_allclose(v.contribution.sel(component="L1H0"), v.value, rtol=1e-12)
    assert float(v.value.min()) > 1
    others = v.contribution.drop_sel(component="L1H0")
    assert float(abs(others).max()) < 1e-12
    assert "The largest: L1H0 " in result.summary()
    from workbench.core.protocol import Zero

    through = model.run(ROWS, edit=[Zero("blocks.0.attn.hook_z", at={"head": 1})], logits="last").logits
    assert through is not None
    assert float((through[:, 0].gather(1, wanted[:, None]) - through[:, 0].gather(1, (wanted[:, None] + 1) % 4)).abs().max()) < 1e-12


@pytest.mark.parametrize("norm", [False, True])
def test_on_an_untrained_copy_no_head_stands_out(norm: bool) -> None:
    wanted = torch.arange(4)
    inputs = Inputs(ROWS, targets=wanted, foils=(wanted + 1) % 4)
    planted = INSTRUMENT(by_hand(norm=norm), inputs, spec()).values
    for seed in range(5):
        v = INSTRUMENT(by_hand(norm=norm, planted=False, seed=seed), inputs, spec()).values
        heads = abs(v.isel(component=v.kind.values == "head").contribution.mean("batch"))
        assert float(heads.max()) < 0.05 * float(planted.contribution.sel(component="L1H0").min())


# --- refusals and bad inputs --------------------------------------------------------------------------------------


def test_what_cannot_be_split_is_refused_with_the_reason() -> None:
    post, bert, imagen = build("post"), BERT.tiny()[0], Imagen.tiny()[0]
    for model, reason in ((post, "not additive"), (bert, "not additive"), (imagen, "values of a predicted picture")):
        with pytest.raises(Incompatible, match=reason):
            INSTRUMENT(model, Inputs(torch.zeros(1, 2).long(), targets=torch.tensor([0])))
    pooled = ViTConfig(height=4, width=6, channels=2, patch=2, n_layers=1, d_model=16, n_heads=4, n_classes=5, pooler=True)
    with pytest.raises(Incompatible, match="non-linearity stands between"):
        INSTRUMENT(ViT(pooled), Inputs(ViT.tiny()[1], targets=torch.tensor([0, 1, 2])))
    with pytest.raises(Incompatible, match="does not offer logits"):
        INSTRUMENT(ViT(ViTConfig.parse({**pooled.model_dump(), "n_classes": 0})), Inputs(ViT.tiny()[1], targets=torch.tensor([0, 1, 2])))


def test_bad_questions_are_errors() -> None:
    model, batch = shaken("whisper")
    with pytest.raises(BadValue, match="stack is 'encoder', but it must be 'decoder'"):
        INSTRUMENT(model, asked(batch), spec(stack="encoder"))
    gpt, ids = shaken("gpt")
    for inputs, asks, words in (
        (Inputs(ids, targets=torch.tensor([0, 23]), foils=torch.tensor([1, 1])), spec(), "from 0 to 22"),
        (asked(ids), spec(position=8), "position is 8, but it must be within every item"),
        (asked(ids), spec(max_cells=3), "at most max_cells = 3"),
        (Inputs(ids, targets=torch.tensor([0, 1]), foils=torch.tensor([0, 2])), spec(), "different from the item's target"),
        (Inputs(ids, targets=torch.tensor([0, 1]), foils=torch.tensor([1, 0])), spec(quantity="logit"), "inputs.foils"),
    ):
        with pytest.raises(BadValue, match=words):
            INSTRUMENT(gpt, inputs, asks)
    with pytest.raises(AssayError, match="by"):
        spec("layer")
    with torch.no_grad():
        gpt.embed.token.weight[3] = float("nan")
    with pytest.raises(BadValue, match="finite"):
        INSTRUMENT(gpt, Inputs(torch.tensor([[3, 3]]), targets=torch.tensor([1])))


class Amplified:
    """A model whose logits are not what its read-out says: each is doubled after all sites were heard."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def run(self, *given: Any, **named: Any) -> Any:
        from dataclasses import replace

        trace = self._model.run(*given, **named)
        return replace(trace, logits=None if trace.logits is None else 2 * trace.logits)


def test_parts_that_miss_the_answer_are_an_error_and_never_a_result() -> None:
    model, ids = shaken("gpt")
    doubled: Any = Amplified(model)
    with pytest.raises(Incompatible, match="its parts miss the answer by .* is not accounted for"):
        INSTRUMENT(doubled, asked(ids), spec())


def test_float32_is_complete_by_the_table_and_training_mode_changes_nothing() -> None:
    model = build("grouped")
    ids = tokens(model)
    first = INSTRUMENT(model, asked(ids), spec("neuron"))
    assert first.values.complete.all()
    assert 0 < float(first.values.gap.max()) <= 2e-6
    model.train()
    assert INSTRUMENT(model, asked(ids), spec("neuron")).digest() == first.digest()


def test_padding_after_an_item_does_not_enter() -> None:
    model, ids = shaken("gpt")
    inputs = Inputs(ids, lengths=torch.tensor([5, 8]), targets=torch.tensor([1, 2]))
    whole = INSTRUMENT(model, inputs).values
    alone = INSTRUMENT(model, Inputs(ids[:1, :5], targets=torch.tensor([1]))).values
    np.testing.assert_allclose(whole.contribution[:1], alone.contribution, rtol=0, atol=1e-12)
    again = INSTRUMENT(model, inputs, DirectLogitAttributionSpec(tokens_a_pass=1)).values
    np.testing.assert_allclose(whole.contribution, again.contribution, rtol=0, atol=1e-12)
