"""Composition scores and value norms against products and loops written out, TransformerLens, planted heads and nulls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from probes.composition_scores import INSTRUMENT as COMPOSITION
from probes.composition_scores import CompositionScoresSpec, Heads, random_scores, scores
from probes.value_norms import INSTRUMENT as NORMS
from probes.value_norms import ValueNormsSpec
from tests.families.models import build, tokens
from tests.probes.shaken import shaken
from tests.reference.output_side import compositions, moved_lengths
from workbench.core.errors import BadValue, Incompatible
from workbench.core.protocol import Inputs
from workbench.families.gpt import GPT, GPTConfig
from workbench.families.imagen import Imagen

QUICK = {"draws": 20}


# --- composition ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["grouped", "one_kv", *(pytest.param(name, marks=pytest.mark.slow) for name in ("wide_heads", "no_norm"))])
@pytest.mark.parametrize("fold", [True, False])
def test_scores_are_the_products_written_out(name: str, fold: bool) -> None:
    model = build(name, dtype=torch.float64)
    v = COMPOSITION(model, Inputs(None), CompositionScoresSpec.parse({**QUICK, "fold_norm": fold})).values
    for writer, reader in ((0, 0), (1, 0), (model.config.n_heads - 1, 1)):
        expected = compositions(model, (0, writer), (1, reader), fold=fold)
        for kind, value in expected.items():
            found = float(v.score.sel(composition=kind, writer=f"L0H{writer}", reader=f"L1H{reader}"))
            assert found == pytest.approx(value, rel=1e-12)
    same_layer_or_back = v.score.sel(reader=[name for name in v.reader.values if name.startswith("L0")])
    assert bool(same_layer_or_back.isnull().all())


@pytest.mark.slow
def test_the_same_scores_as_transformer_lens() -> None:
    lens = pytest.importorskip("transformer_lens")
    from transformer_lens.utilities.matrix import composition_scores

    model = build("one_kv", dtype=torch.float64)
    v = COMPOSITION(model, Inputs(None), CompositionScoresSpec.parse({**QUICK, "fold_norm": False})).values

    def factored(layer: int, left: str, right: str) -> Any:
        one, two = (model.weight(f"blocks.{layer}.attn.{name}").expand(4, -1, -1) for name in (left, right))
        return lens.FactoredMatrix(one, two.transpose(1, 2) if right != "W_O" else two)

    ov = factored(0, "W_V", "W_O")
    for kind, other in (("Q", factored(1, "W_Q", "W_K")), ("K", factored(1, "W_K", "W_Q")), ("V", factored(1, "W_V", "W_O"))):
        theirs = composition_scores(ov, other, broadcast_dims=True)
        ours = v.score.sel(composition=kind).values[:4, 4:]
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-12)


def planted(kind: str) -> Any:
    """A random decoder in which L0H2 writes where L1H1 reads, by its query, key or value."""
    config = GPTConfig(n_layers=2, d_model=32, n_heads=4, d_vocab=11, n_ctx=8, norm_placement="none", act="none", bias=False)
    model = GPT(config, seed=3).double()
    with torch.no_grad():
        model.weight(f"blocks.1.attn.W_{kind}")[1] = model.weight("blocks.0.attn.W_O")[2].T
    return model


@pytest.mark.parametrize("kind", ["Q", *(pytest.param(kind, marks=pytest.mark.slow) for kind in "KV")])
def test_the_planted_pair_is_found_and_it_alone(kind: str) -> None:
    result = COMPOSITION(planted(kind), Inputs(None), CompositionScoresSpec(draws=100))
    v: Any = result.values.score.sel(composition=kind)
    at = np.unravel_index(np.nanargmax(v.values), v.shape)
    assert (v.writer.values[at[0]], v.reader.values[at[1]]) == ("L0H2", "L1H1")
    notable = result.values.notable.values
    assert int(notable.sum()) == 1
    assert bool(result.values.notable.sel(composition=kind, writer="L0H2", reader="L1H1"))
    assert f"{kind}: L0H2 to L1H1" in result.summary()


@pytest.mark.slow
def test_random_models_have_no_notable_pair() -> None:
    config = GPTConfig(n_layers=3, d_model=24, n_heads=3, d_vocab=11, n_ctx=8)
    spec = CompositionScoresSpec(draws=60, level=0.01)
    with_one = sum(bool(COMPOSITION(GPT(config, seed=seed), Inputs(None), spec).values.notable.any()) for seed in range(20))
    assert with_one <= 1


def test_a_score_that_is_zero_is_zero_and_random_matrices_score_the_root_of_one_over_the_width() -> None:
    eye = torch.eye(12, dtype=torch.float64)
    part = lambda start: eye[:, start : start + 4][None]  # noqa: E731
    one = Heads(part(0), part(0), part(0), part(4).transpose(1, 2))
    two = Heads(part(4), part(8), part(8), part(0).transpose(1, 2))
    found = scores(one, two)[:, 0, 0]
    assert found[0] == pytest.approx(0.5)  # the whole of what is written is read: sqrt(4) / (sqrt(4) sqrt(4))
    assert float(found[1:].max()) <= 1e-15
    null = random_scores(one, 200, 0)
    assert torch.allclose(null.square().mean(1).sqrt(), torch.tensor(12.0**-0.5, dtype=torch.float64), rtol=0.1)


def test_dead_heads_have_no_score_and_other_stacks_are_asked_by_name() -> None:
    model = build("one_kv", dtype=torch.float64)
    with torch.no_grad():
        model.weight("blocks.1.attn.W_O")[0] = 0
    result = COMPOSITION(model, Inputs(None), CompositionScoresSpec.parse(QUICK))
    assert bool(result.values.score.sel(composition="V", reader="L1H0").isnull().all())
    assert "4 pairs have no score" in " ".join(result.notes)
    v = COMPOSITION(shaken("seq2seq")[0], Inputs(None), CompositionScoresSpec.parse({**QUICK, "stack": "decoder"})).values
    assert bool(v.score.notnull().any())


def test_composition_refuses_what_weights_do_not_tell() -> None:
    with pytest.raises(BadValue, match=r"inputs.batch is 'given'.*weights alone"):
        COMPOSITION(build("one_kv"), Inputs("a text"))
    for layers in ((0,), (0, 2), (1, 1), ()):
        with pytest.raises(BadValue, match="two or more different numbers from 0 to 1"):
            COMPOSITION(build("one_kv"), Inputs(None), CompositionScoresSpec.parse({**QUICK, "layers": layers}))
    with pytest.raises(Incompatible, match="scaled by a condition"):
        COMPOSITION(Imagen.tiny()[0], Inputs(None), CompositionScoresSpec.parse({**QUICK, "stack": "denoiser"}))
    with pytest.raises(Incompatible, match="not additive"):
        COMPOSITION(build("post"), Inputs(None))


# --- value norms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["grouped", *(pytest.param(name, marks=pytest.mark.slow) for name in ("one_kv", "post"))])
def test_norms_are_those_of_the_vectors_one_by_one(name: str) -> None:
    model = build(name, dtype=torch.float64)
    ids = tokens(model, length=5)
    v = NORMS(model, Inputs(ids)).values
    for layer, head in ((0, 0), (1, 3)):
        np.testing.assert_allclose(v.norm.sel(layer=layer, head=head), moved_lengths(model, ids, layer, head), rtol=0, atol=1e-12)


@pytest.mark.slow
def test_norms_of_a_batch_of_its_own_and_of_padding() -> None:
    model, batch = shaken("whisper")
    v = NORMS(model, Inputs(batch), ValueNormsSpec(stack="encoder", heads=(1,))).values
    assert v.norm.shape == (2, 1, 2, 5, 5)
    assert np.isnan(v.norm.values[:, :, 1, :, 3:]).all()
    assert np.isfinite(v.norm.values[:, :, 0]).all()
    gpt, ids = shaken("gpt")
    padded = NORMS(gpt, Inputs(ids, lengths=torch.tensor([4, 8]))).values
    alone = NORMS(gpt, Inputs(ids[:1, :4])).values
    np.testing.assert_allclose(padded.norm[:, :, :1, :4, :4], alone.norm, rtol=0, atol=1e-12)
    np.testing.assert_allclose(padded.norm_to_first[:, :, :1], alone.norm_to_first, rtol=0, atol=1e-12)


def test_a_head_that_rests_on_an_empty_token_is_told_from_one_that_brings_it() -> None:
    """All attention goes to the first token. In layer 0 its value is nothing; in layer 1 it has a bias, so it is brought."""
    model = build({"positions": "learned", "norm_placement": "none", "act": "none", "bias": True, "n_heads": 1}, dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "stack" in name:
                parameter.zero_()
        model.embed.token.weight[0] = 0
        model.weight("W_pos").zero_()
        for layer in (0, 1):
            model.weight(f"blocks.{layer}.attn.W_V")[0] = torch.eye(16)
            model.weight(f"blocks.{layer}.attn.W_O")[0] = torch.eye(16) * 1e-9 if layer == 0 else torch.eye(16)
        model.weight("blocks.1.attn.b_V")[0] = 1.0
    ids = torch.tensor([[0, 3, 4, 5]])
    v = NORMS(model, Inputs(ids)).values
    np.testing.assert_allclose(v.value_norm[0, 0, 0, 0], 0.0, atol=1e-15)
    assert float(v.norm_to_first[0, 0, 0]) == 0.0
    assert float(v.weight_to_first[0, 0, 0]) == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert float(v.value_norm[1, 0, 0, 0]) == pytest.approx(4.0)
    assert float(v.norm_to_first[1, 0, 0]) > 0.2


def test_norms_of_broken_weights_are_an_error() -> None:
    model, ids = shaken("gpt")
    with torch.no_grad():
        model.weight("blocks.1.attn.W_O")[0, 0, 0] = float("nan")
    with pytest.raises(BadValue, match="NaN or infinity"):
        NORMS(model, Inputs(ids))
    with pytest.raises(BadValue, match="heads"):
        NORMS(shaken("gpt")[0], Inputs(ids), ValueNormsSpec(heads=(4,)))
