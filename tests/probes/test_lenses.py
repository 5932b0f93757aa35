"""Logit and tuned lens: the last row is the model's answer to the bit, every row the formula written out; planted answers and nulls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probes.lens_fit import Translators, log_answers
from probes.logit_lens import INSTRUMENT as LENS
from probes.logit_lens import LogitLensSpec, read
from probes.stream import places_on
from probes.tuned_lens import INSTRUMENT as TUNED
from probes.tuned_lens import TunedLensSpec
from tests.families.models import build, tokens
from tests.probes.planted import trained
from tests.probes.shaken import shaken
from tests.probes.test_direct_logit_attribution import ROWS, by_hand
from tests.reference.output_side import lens_written_out
from workbench.core.batch import TokenBatch
from workbench.core.errors import BadValue, Incompatible
from workbench.core.protocol import Inputs, Replace
from workbench.core.result import Result
from workbench.families import FAMILIES
from workbench.families.bert import BERT, BERTConfig
from workbench.families.gpt import GPT, GPTConfig
from workbench.families.imagen import Imagen
from workbench.families.vit import ViT, ViTConfig

# --- logit lens -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [name if name in ("gpt", "vit") else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES if name != "imagen"]
)
@pytest.mark.parametrize("points", ["layers", pytest.param("sublayers", marks=pytest.mark.slow)])
def test_the_last_row_is_the_models_own_answer_to_the_bit(name: str, points: str) -> None:
    model, batch = shaken(name)
    for stack in ("image", "text") if name == "clip" else ("",):
        v = LENS(model, Inputs(batch), LogitLensSpec.parse({"points": points, "stack": stack, "top": 2})).values
        assert float(v.last_gap) == 0.0
        last = v.isel(site=-1)
        assert float(last.kl.max()) == 0.0
        assert float(last["rank"].max()) == 0.0
        logits = model.run(batch).logits
        own = (logits.T if stack == "text" else logits).double().log_softmax(-1).numpy()
        own = own[:, None] if own.ndim == 2 else own
        real = last.position.values >= 0
        np.testing.assert_array_equal(last.logprob.values[real], own.max(-1)[real])
        assert float(v.kl.isel(site=0).max()) > 1e-3, "the first row is no copy of the last"


@pytest.mark.parametrize(
    "name", ["grouped", *(pytest.param(name, marks=pytest.mark.slow) for name in ("one_kv", "no_norm", "attention_only"))]
)
def test_every_row_is_the_formula_written_out(name: str) -> None:
    model = build(name, dtype=torch.float64)
    ids = tokens(model, rows=3, length=6)
    v = LENS(model, Inputs(ids), LogitLensSpec(points="sublayers", follow="next", top=17)).values
    trace = model.run(ids, capture="*")
    for site in v.site.values:
        for row in range(3):
            logits = lens_written_out(model, trace[site][row])
            end = lens_written_out(model, trace["blocks.1.hook_resid_post"][row])
            logs, final = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (logits, end))
            here = v.sel(site=site).isel(batch=row)
            following = ids[row, 1:].numpy()
            np.testing.assert_allclose(here.logprob[:-1], logs[np.arange(5), following], rtol=0, atol=1e-12)
            np.testing.assert_allclose(here.kl[:-1], (np.exp(final) * (final - logs)).sum(-1)[:-1], rtol=0, atol=1e-12)
            np.testing.assert_allclose(here.entropy[:-1], -(np.exp(logs) * logs).sum(-1)[:-1], rtol=0, atol=1e-12)
            np.testing.assert_array_equal(here["rank"][:-1], (logs[:-1] > logs[np.arange(5), following][:, None]).sum(-1))
            np.testing.assert_array_equal(here.top_id[:-1], np.argsort(-logs[:-1], -1))
            assert np.isnan(here.logprob[-1])
            assert here.position[-1] == -1


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_what_is_kept_obeys_the_inequalities(seed: int, answers: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    here, end = (4 * torch.randn(2, 3, answers, generator=draw) for _ in range(2))
    kept = read(here, end, end.argmax(-1), answers)
    assert bool((kept.kl >= -1e-12).all())
    assert bool((kept.entropy >= -1e-12).all())
    assert bool((kept.entropy <= np.log(answers) + 1e-12).all())
    assert bool((kept.rank >= 0).all())
    assert bool((kept.rank < answers).all())
    assert torch.equal(kept.rank == 0, kept.top_id[..., 0] == end.argmax(-1))
    torch.testing.assert_close(kept.top_logprob.exp().sum(-1), torch.ones(2, 3, dtype=torch.float64))
    same = read(end, end, end.argmax(-1), 1)
    assert not bool(same.kl.any())
    tied = read(torch.zeros(1, 1, answers), torch.zeros(1, 1, answers), torch.zeros(1, 1, dtype=torch.long), 1)
    assert int(tied.rank) == answers - 1, "ties count against the answer"


@pytest.mark.parametrize("norm", [False, True])
def test_an_answer_written_in_the_last_layer_appears_there_and_not_before(norm: bool) -> None:
    v = LENS(by_hand(norm=norm), Inputs(ROWS, targets=torch.arange(4)), LogitLensSpec(position=-1)).values
    assert v["rank"].isel(pos=0).values.tolist() == [[3, 3, 0]] * 4  # all answers tie before it is written
    np.testing.assert_allclose(v.logprob.isel(site=[0, 1]), np.log(1 / 4), rtol=1e-12)


def test_a_norm_that_follows_is_read_with_a_note_and_only_where_it_was_normed() -> None:
    gpt = build("post")
    assert places_on(gpt, "", None) == ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]
    assert any("Norms follow the sums" in note for note in LENS(gpt, Inputs(tokens(gpt))).notes)
    assert places_on(BERT.tiny()[0], "", None)[0] == "blocks.0.hook_resid_pre"


class Whole:
    """A model whose runs cannot begin in the middle."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        if name == "resumes":
            raise AttributeError(name)
        return getattr(self._model, name)


def test_a_model_that_cannot_begin_in_the_middle_is_run_again() -> None:
    model, ids = shaken("gpt")
    whole: Any = Whole(model)
    first, second = (LENS(one, Inputs(ids)).values for one in (model, whole))
    np.testing.assert_allclose(first.logprob, second.logprob, rtol=0, atol=1e-12)
    with pytest.raises(Incompatible, match="cannot begin at the stream"):
        TUNED(whole, Inputs(ids))


class Swapped(Whole):
    """A model that reads its stream otherwise when it begins in the middle."""

    def run(self, *given: Any, **named: Any) -> Any:
        edits = [Replace(one.site, value=one.value.flip(-1)) for one in named.pop("edit", ())]
        return self._model.run(*given, **named, edit=edits)


def test_a_read_out_that_is_not_the_models_is_an_error() -> None:
    model, ids = shaken("gpt")
    swapped: Any = Swapped(model)
    with pytest.raises(Incompatible, match="gives other answers than the model"):
        LENS(swapped, Inputs(ids))


def test_the_lens_refuses_what_has_no_answers_on_its_stream() -> None:
    with pytest.raises(Incompatible, match="values of a predicted picture"):
        LENS(Imagen.tiny()[0], Inputs(Imagen.tiny()[1]))
    bare = ViTConfig(height=4, width=6, channels=2, patch=2, n_layers=1, d_model=16, n_heads=4, n_classes=0)
    with pytest.raises(Incompatible, match="does not offer logits"):
        LENS(ViT(bare), Inputs(ViT.tiny()[1]))
    span = BERTConfig(n_layers=1, d_model=16, n_heads=4, d_vocab=23, n_ctx=16, head="span")
    with pytest.raises(Incompatible, match="head 'span' does not choose"):
        LENS(BERT(span), Inputs(torch.zeros(1, 3).long()))
    model, batch = shaken("seq2seq")
    with pytest.raises(BadValue, match="stack is 'encoder'"):
        LENS(model, Inputs(batch), LogitLensSpec(stack="encoder"))


def test_questions_that_contradict_themselves_are_errors() -> None:
    model, ids = shaken("gpt")
    targets = torch.tensor([1, 2])
    cases: list[tuple[Inputs, dict[str, Any], str]] = [
        (Inputs(ids, targets=targets), {"follow": "answer"}, "left out where follow is 'answer'"),
        (Inputs(ids), {"follow": "given"}, "inputs.targets is None"),
        (Inputs(ids, targets=torch.tensor([1, 23])), {}, "from 0 to 22"),
        (Inputs(ids, targets=torch.tensor([1, 2, 3])), {}, "one id an item"),
        (Inputs(ids, targets=targets, foils=targets), {}, "inputs.foils"),
        (Inputs(ids[:, :1]), {"follow": "next"}, "2 or more"),
        (Inputs(ids, lengths=torch.tensor([3, 8])), {"position": 3}, "position"),
        (Inputs(ids), {"layers": (0, 0)}, "different numbers from 0 to 1"),
        (Inputs(ids), {"max_cells": 5}, "at most max_cells = 5"),
    ]
    for inputs, spec, words in cases:
        with pytest.raises(BadValue, match=words):
            LENS(model, inputs, LogitLensSpec.parse(spec))
    model, batch = shaken("vit")
    for spec, words in (({"follow": "next"}, "does not write one token"), ({"position": 0}, "have no positions")):
        with pytest.raises(BadValue, match=words):
            LENS(model, Inputs(batch), LogitLensSpec.parse(spec))


# --- tuned lens -----------------------------------------------------------------------------------------------------


def constant_rows() -> Inputs:
    """One word over and over, for each of four words and each of seven lengths: attention that is even then moves that word."""
    rows = [(word, length) for word in range(4) for length in range(2, 9)]
    ids = torch.tensor([[word] * 8 for word, _ in rows])
    return Inputs(ids, lengths=torch.tensor([length for _, length in rows]))


@pytest.mark.slow
def test_a_turned_stream_is_read_right_by_the_tuned_lens_and_not_by_the_logit_lens() -> None:
    """The stream holds the word from the start, but in another part than the unembedding reads; the last layer brings it there."""
    result = TUNED(by_hand(norm=False), constant_rows(), TunedLensSpec(steps=300, lr=0.05))
    kl = result.values.kl
    assert float(kl.sel(lens="logit").min()) > 0.8
    assert float(kl.sel(lens="tuned").max()) < 0.02
    assert float(result.values.gain_low.min()) > 0.5
    assert float(result.values.knowledge_low.sel(lens="tuned").min()) > 0.5


def chained(rows: int, seed: int) -> TokenBatch:
    """Rows in which 9 of 10 tokens follow from the one before."""
    draw = np.random.default_rng(seed)
    ids = np.zeros((rows, 12), dtype=np.int64)
    ids[:, 0] = draw.integers(0, 12, rows)
    for at in range(1, 12):
        ids[:, at] = np.where(draw.random(rows) < 0.9, (5 * ids[:, at - 1] + 3) % 12, draw.integers(0, 12, rows))
    tokens_of = torch.from_numpy(ids)
    return TokenBatch(tokens_of[:, :-1], tokens_of[:, 1:])


CHAIN = GPTConfig(n_layers=2, d_model=24, n_heads=2, d_vocab=12, n_ctx=12, tied=False, init_std=0.2)


@pytest.mark.slow
def test_on_a_trained_model_it_beats_the_logit_lens_and_on_an_untrained_one_it_knows_nothing() -> None:
    inputs = Inputs(chained(120, 7).tokens)
    spec = TunedLensSpec(steps=150, lr=0.01)
    found = TUNED(trained(GPT(CHAIN), chained, 150), inputs, spec).values
    assert float(found.gain_low.min()) > 0
    assert float(found.knowledge_low.sel(lens="tuned").min()) > 0.3
    for seed in range(3):
        null = TUNED(GPT(CHAIN, seed=seed), inputs, spec).values
        assert float(null.knowledge_low.sel(lens="tuned").max()) <= 0
        assert float(null.surprise.sel(lens="tuned").min()) > float(null.chance) - 0.05


@pytest.mark.slow
def test_the_fitted_maps_are_kept_and_fitting_again_gives_them_again() -> None:
    model = build("one_kv")
    inputs, spec = Inputs(tokens(model, rows=30)), TunedLensSpec(steps=20, resamples=400)
    state = torch.get_rng_state()
    first = TUNED(model, inputs, spec)
    assert torch.equal(torch.get_rng_state(), state)
    model.train()
    second = TUNED(model, inputs, spec)
    assert first.digest() == second.digest()
    assert TUNED(model, inputs, spec.model_copy(update={"seed": 1})).digest() != first.digest()
    again: Any = Result.from_json(first.to_json())
    maps = again.translators()
    trace = model.run(inputs.batch, capture="blocks.*.hook_resid_*")
    stream = torch.stack([trace[site].flatten(0, 1) for site in first.values.site.values])
    told = log_answers(model, "", maps(stream).flatten(0, 1))
    by_hand_ = Translators(maps.matrix, maps.shift, maps.step)
    assert float((told - log_answers(model, "", by_hand_(stream).flatten(0, 1))).abs().max()) == 0.0
    assert int(first.values.step.max()) > 0
    assert "matrix" not in first.to_frame()


def test_the_tuned_lens_needs_sentences_to_hold_out() -> None:
    model, ids = shaken("gpt")
    with pytest.raises(BadValue, match="at least 2"):
        TUNED(model, Inputs(ids[:1]))
    with pytest.raises(BadValue, match="at least 2"):
        TUNED(model, Inputs(ids))
    with pytest.raises(BadValue, match="inputs.targets"):
        TUNED(model, Inputs(ids, targets=torch.tensor([0, 1])))
    with pytest.raises(BadValue, match="the last place"):
        TUNED(model, Inputs(ids), TunedLensSpec(layers=(1,)))
    with pytest.raises(Incompatible, match="read what comes after them"):
        TUNED(BERT.tiny()[0], Inputs(ids))
