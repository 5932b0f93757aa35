"""Certified scores: the same bits in whatever batch, order and subset a text is asked; each beginning run once; ranks and moments."""

from __future__ import annotations

import math
import random
from inspect import unwrap
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.models import Wrapped, lettered
from tests.reference.scoring import all_logprobs
from workbench.blocks import forest as forests
from workbench.blocks.forest import forest, stretches
from workbench.core.errors import BadValue
from workbench.core.measure import Loglikelihood
from workbench.core.protocol import Resume
from workbench.engine import certified as way
from workbench.engine import score
from workbench.engine.certified import outside, padded, passes
from workbench.engine.reading import read
from workbench.engine.score import Detail, certify, details, loglikelihoods, rolling, standing, token_logprobs
from workbench.engine.tokens import Encoded
from workbench.families.gpt import GPT, GPTConfig

TOLERANCE = 1e-5  # nats a scored token in float32


def branching(seed: int, count: int, *, deep: int = 12, vocabulary: int = 23) -> list[Encoded]:
    """Requests that share beginnings of every length, some of them whole."""
    draw = random.Random(seed)
    stems = [tuple(draw.randrange(vocabulary) for _ in range(draw.randint(1, deep))) for _ in range(4)]
    out = []
    for _ in range(count):
        stem = draw.choice(stems)
        context = stem[: draw.randint(1, len(stem))] + tuple(draw.randrange(vocabulary) for _ in range(draw.randint(0, 2)))
        tails = tuple(tuple(draw.randrange(vocabulary) for _ in range(draw.randint(1, 4))) for _ in range(draw.randint(1, 4)))
        out.append(Encoded(context, tails))
    return out


def shaped(**options: Any) -> GPT:
    """A random model of an odd shape, with weights large enough that its guesses differ."""
    config = GPTConfig.parse({"n_layers": 2, "d_model": 16, "n_heads": 4, "d_vocab": 23, "n_ctx": 40, "tied": False} | options)
    model = GPT(config, seed=1)
    for parameter in model.parameters():
        parameter.data.mul_(4 if parameter.ndim == 2 else 1)
    return model.eval()


def scores(model: Any, requests: list[Encoded], **options: Any) -> list[list[list[float]]]:
    found = dict(loglikelihoods(model, requests, **options))
    return [found[index] for index in range(len(requests))]


SHAPES: dict[str, dict[str, Any]] = {
    "rotary, grouped": {"n_kv_heads": 2},
    "learned": {"positions": "learned", "act": "gelu_tanh"},
    "odd width": {"d_mlp": 37, "act": "swiglu", "norm": "rms", "bias": False},
    "odd vocabulary": {"d_vocab": 4099, "norm_placement": "post", "act": "quick_gelu"},
    "one head": {"n_heads": 1, "d_model": 10, "act": "relu", "norm_placement": "none"},
    "window": {"economy": {"window": 5}},
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_subset_in_any_order_has_the_same_bits(name, monkeypatch):
    monkeypatch.setattr(forests, "STRETCHES", ((8, 4), (16, 8), (1 << 62, 16)))
    model, requests = shaped(**SHAPES[name]), branching(0, 24)
    whole = scores(model, requests)
    draw = random.Random(1)
    for budget in (1 << 13, 40):
        chosen = draw.sample(range(24), 9)
        assert scores(model, [requests[i] for i in chosen], token_budget=budget) == [whole[i] for i in chosen]
    twin = [all_logprobs(model, r.context, r.continuations) for r in requests[:6]]
    flat = lambda answers: np.array([value for answer in answers for row in answer for value in row])  # noqa: E731
    assert np.abs(flat(whole[:6]) - flat(twin)).max() < TOLERANCE


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.full), pytest.param(3, marks=pytest.mark.full)])
def test_every_batch_size_from_1_to_64_gives_the_same_bits(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model, requests = shaped(d_mlp=37), branching(2, 64)
        whole = scores(model, requests)
        for size in range(1, 65) if threads == 1 else (1, 2, 3, 7, 16, 33, 64):
            first = size * 5 % 64  # a batch of every size, at another place each
            assert scores(model, requests[first : first + size]) == whole[first : first + size]
    finally:
        torch.set_num_threads(before)


@settings(max_examples=8, deadline=None)
@given(st.permutations(range(12)), st.integers(1, 12), st.sampled_from([7, 60, 8192]))
def test_any_order_any_number_any_budget(order, count, budget):
    model, requests = lettered(n_ctx=32), branching(3, 12)
    whole = scores(model, requests)
    chosen = list(order)[:count]
    assert scores(model, [requests[i] for i in chosen], token_budget=budget) == [whole[i] for i in chosen]


def test_without_padding_the_bits_would_move(monkeypatch):
    model, requests = lettered(n_ctx=32), branching(4, 40)
    monkeypatch.setattr(way, "padded", lambda rows, config: rows)
    whole = scores(model, requests)
    assert any(scores(model, [request]) != [whole[i]] for i, request in enumerate(requests))


def test_packed_rows_move_bits_and_say_so():
    model, requests = lettered(n_ctx=32), branching(5, 40)
    whole = scores(model, requests, mode="packed")
    assert any(scores(model, [request], mode="packed") != [whole[i]] for i, request in enumerate(requests))
    assert standing(model, "packed") == "packed rows share passes"


def test_long_texts_pass_every_stretch():
    model = shaped(n_ctx=1100, n_layers=1, positions="learned")
    draw = random.Random(6)
    ids = [draw.randrange(23) for _ in range(1090)]
    alone = scores(model, [Encoded(tuple(ids[:1080]), (tuple(ids[1080:]), (3,)))])[0]
    beside = scores(model, [Encoded(tuple(ids[:300]), ((1, 2),)), Encoded(tuple(ids[:1080]), (tuple(ids[1080:]),))])[1]
    assert beside[0] == alone[0]
    naive = model.run(torch.tensor([ids])).logits
    assert naive is not None
    wanted = naive[0].double().log_softmax(-1)[range(1079, 1089), ids[1080:]]
    assert np.abs(np.array(alone[0]) - wanted.numpy()).max() < TOLERANCE


def test_stretches_follow_from_the_position_alone():
    longest = list(stretches(3000))
    for length in (1, 16, 17, 256, 257, 1024, 1500):
        assert list(stretches(length)) == longest[: len(list(stretches(length)))]
    assert [a for a, _ in longest] == [0, *(b for _, b in longest[:-1])]


# --- each beginning once -------------------------------------------------------------------------------------


class Counted(Wrapped):
    """A model that counts the tokens that pass its layers."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.resumes, self.read = model.resumes, 0

    def run(self, batch: Any, **options: Any) -> Any:
        self.read += 0 if batch is None else batch.numel()
        return self.model.run(batch, **options)


def test_a_beginning_is_run_once_whatever_hangs_from_it():
    model = Counted(lettered(n_ctx=64))
    stem = tuple(i % 23 for i in range(40))
    requests = [Encoded((*stem, i), ((1, 2), (1, 3), (4, 5))) for i in range(20)]
    scores(model, requests)
    assert model.read == padded(40 + 20 * (1 + 2), model.config)  # of three continuations, two distinct first tokens are read
    (only,) = passes(list(enumerate(requests)), 8192)
    assert len(only.tokens) == 100
    assert sum(len(now.tokens) for now in passes(list(enumerate(requests)), 60)) > 100  # a pass runs what it shares again


def test_a_pass_holds_at_most_its_budget():
    requests = list(enumerate(branching(7, 60)))
    for budget in (1, 20, 50):
        found = list(passes(requests, budget))
        longest = max(len(r.context) + max(map(len, r.continuations)) - 1 for _, r in requests)
        assert all(len(now.tokens) <= max(budget, longest) for now in found)
        asked = sorted((unit.request, unit.number) for now in found for unit in now.units)
        assert asked == [(i, c) for i, r in requests for c in range(len(r.continuations))]


# --- who is outside ------------------------------------------------------------------------------------------


def test_who_is_outside_is_told_and_scored_all_the_same():
    model = lettered(n_ctx=32)
    assert outside(model) == standing(model) == ""
    plain = Wrapped(model, "mask", "cache")
    assert standing(plain) == "this gpt model cannot run texts as a forest"
    assert "bfloat16" in outside(lettered().bfloat16())
    requests = branching(8, 3)
    for a, b in zip(scores(plain, requests), scores(model, requests), strict=True):
        assert np.abs(np.array(a[0]) - np.array(b[0])).max() < TOLERANCE


def test_the_certificate_says_what_it_holds_for():
    model = lettered(n_ctx=32)
    requests = [Loglikelihood(a, ("b", "cd", "ce")) for a in ("ab", "abc", "abd", "b", "bc", "bcd")]
    found = certify(model, requests, share=1.0)
    assert (found.moved, found.outside) == (0, "")
    assert found.gap < TOLERANCE
    assert str(found).startswith("certified: at most ")
    assert "0 of 30 tokens changed a bit" in str(found)
    loose = certify(Wrapped(model), requests, share=1.0)
    assert str(loose).startswith("not certified (this gpt model cannot run texts as a forest)")


def test_a_mode_that_is_none_is_refused():
    with pytest.raises(BadValue, match="'certified' or 'packed'"):
        unwrap(score._check)(8192, "exact")  # the types would stop it here, where types are checked


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parents": torch.tensor([0, 0])}, "number of an earlier token"),
        ({"parents": torch.tensor([-2, 0])}, "number of an earlier token"),
        ({"parents": torch.tensor([-1.0, 0.0])}, "integers"),
        ({"parents": torch.tensor([-1])}, "one for each token"),
        ({"parents": torch.tensor([-1, 0]), "positions": torch.tensor([[0, 1]])}, "alone"),
    ],
)
def test_a_forest_that_is_none_is_refused(options, words):
    with pytest.raises(BadValue, match=words):
        lettered().run(torch.tensor([[1, 2]]), resume=Resume(**options))


def test_a_path_beyond_the_context_is_refused():
    with pytest.raises(BadValue, match="model's context"):
        lettered(n_ctx=4).run(torch.tensor([[1] * 6]), resume=Resume(parents=torch.arange(6) - 1))


def test_a_forest_seen_densely_is_the_same():
    model = shaped(economy={"window": 5})
    parents = torch.tensor([-1, 0, 1, 1, 3, 4, 5, 6, 2, -1, 9, 7])
    tokens = torch.randint(0, 23, (1, 12), generator=torch.Generator().manual_seed(0))
    fast = model.run(tokens, resume=Resume(parents=parents)).logits
    seen = model.run(tokens, resume=Resume(parents=parents), capture=("blocks.1.attn.hook_pattern",))
    assert fast is not None
    assert seen.logits is not None
    assert float((fast - seen.logits).abs().max()) < 1e-5
    pattern = seen["blocks.1.attn.hook_pattern"][0, 0] > 0
    assert pattern[11].nonzero()[:, 0].tolist() == [4, 5, 6, 7, 11]  # its own path is 0 1 3 4 5 6 7 11, seen five at a time
    assert pattern[8].nonzero()[:, 0].tolist() == [0, 1, 2, 8]
    assert forest(parents, torch.device("cpu")).depth.tolist() == [0, 1, 2, 2, 3, 4, 5, 6, 3, 0, 1, 7]


# --- what else is known of a token ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["certified", "packed"])
def test_rank_entropy_and_variance_equal_their_definitions(mode):
    model, requests = shaped(d_vocab=9001), branching(9, 5)
    found = dict(details(model, requests, mode=mode))
    for index, request in enumerate(requests):
        for detail, ids in zip(found[index], request.continuations, strict=True):
            logits = model.run(torch.tensor([[*request.context, *ids[:-1]]])).logits
            assert logits is not None
            logp = logits[0, len(request.context) - 1 :].double().log_softmax(-1)
            p, own = logp.exp(), logp[range(len(ids)), ids]
            mean = (p * logp).sum(-1)
            assert np.allclose(detail.logprobs, own.numpy(), atol=1e-5)
            assert np.allclose(detail.entropies, -mean.numpy(), atol=1e-5)
            assert np.allclose(detail.variances, (p * (logp - mean[:, None]) ** 2).sum(-1).numpy(), atol=1e-4)
            assert detail.ranks == (logp > own[:, None]).sum(-1).tolist()
            assert detail.greedy == (logp.argmax(-1).tolist() == list(ids))


def test_details_have_the_same_bits_in_any_batch():
    model, requests = shaped(d_vocab=4099), branching(10, 12)
    whole = dict(details(model, requests))
    assert [dict(details(model, [request]))[0] for request in requests] == [whole[i] for i in range(12)]
    assert dict(details(model, requests, moments=False))[0][0].entropies == []


def test_equal_logits_rank_by_id_as_greedy_decoding_takes_them():
    logits = torch.tensor([[1.0, 3.0, 3.0, -math.inf]])
    at = torch.zeros(4, dtype=torch.long)
    found = read(logits, at, torch.arange(4), "all")
    assert found[:, 1].tolist() == [2, 0, 1, 3]
    assert np.isfinite(found[:3]).all()
    assert found[0, 2] == pytest.approx(-sum(p * math.log(p) for p in torch.tensor([1.0, 3.0, 3.0]).double().softmax(0).tolist()))
    assert Detail([0.0], [1], [], []).greedy is False


# --- rolling --------------------------------------------------------------------------------------------------


def test_a_long_text_is_certified_window_by_window():
    model = lettered(n_ctx=16)
    ids = [i * 7 % 23 for i in range(60)]
    whole = token_logprobs(model, ids, window=16, stride=8)
    assert token_logprobs(model, ids, window=16, stride=8, token_budget=20) == whole
    loose = token_logprobs(model, ids, window=16, stride=8, mode="packed")
    assert np.abs(np.array(loose) - np.array(whole)).max() < TOLERANCE
    assert rolling(model, "cde", context="ab") == scores(model, [Encoded((0, 1), ((2, 3, 4),))])[0][0]
