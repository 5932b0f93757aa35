"""Cached, batched decoding against one full forward a token."""

from __future__ import annotations

import pytest
import torch

from tests.engine.models import LETTERS, Wrapped, lettered, wordy
from tests.reference.scoring import greedy
from workbench.core.errors import BadValue
from workbench.core.measure import Generate
from workbench.engine.generate import generate, generations

PROMPTS = ["a", "bc", "de", "fgh", "a", "vut", "klmn", "w"]


def text_of(ids) -> str:
    return "".join(LETTERS[i] for i in ids)


def expected(model, prompt: str, most: int) -> str:
    return text_of(greedy(model, [LETTERS.index(c) for c in prompt], most, None))


def test_ragged_prompts_equal_uncached_decoding():
    model = lettered(n_ctx=32)
    assert generate(model, PROMPTS, most=12) == [expected(model, p, 12) for p in PROMPTS]


def test_without_a_cache_it_is_the_same():
    model = lettered()
    assert generate(Wrapped(model, "cache"), PROMPTS, most=6) == generate(model, PROMPTS, most=6)


def test_with_a_cache_each_token_is_read_once():
    watched = Wrapped(lettered())
    generate(watched, ["abc"], most=5)
    assert [shape for shape, _ in watched.runs] == [(1, 3), (1, 1), (1, 1), (1, 1), (1, 1)]


@pytest.mark.parametrize("budget", [1, 20, 8192])
def test_the_batch_does_not_matter(budget):
    model = lettered()
    requests = [Generate(p, 6) for p in PROMPTS]
    found = dict(generations(model, requests, token_budget=budget, temperature=1.0, seed=3))
    assert [found[i] for i in range(len(PROMPTS))] == generate(model, PROMPTS, most=6, temperature=1.0, seed=3)


def test_until_cuts_before_the_first_stop():
    model = lettered(n_ctx=32)
    whole = expected(model, "abc", 12)
    stop = whole[4:6]
    assert generate(model, ["abc"], most=12, until=[stop, "?"]) == [whole[: whole.index(stop)]]


def test_eos_ends_a_text_and_is_not_part_of_it(monkeypatch):
    model = wordy()
    assert model.tokenizer is not None
    eos = model.tokenizer.eos_id
    prompt = [model.tokenizer.bos_id, *model.tokenizer.encode("the cat")]
    free = greedy(model, prompt, 8, None)
    assert generate(model, ["the cat"], most=8) == [model.tokenizer.decode(greedy(model, prompt, 8, eos))]
    row = next(k for k, token in enumerate(free) if token not in free[:k])
    monkeypatch.setattr(type(model.tokenizer), "eos_id", free[row])
    assert generate(model, ["the cat"], most=8) == [model.tokenizer.decode(free[:row])]


def test_sampling_follows_the_probabilities():
    model = lettered()
    found = generate(model, ["abc"] * 4000, most=1, temperature=1.5, seed=0)
    trace = model.run(torch.tensor([[0, 1, 2]]))
    assert trace.logits is not None
    shares = (trace.logits[0, -1].double() / 1.5).softmax(-1)
    counts = torch.tensor([found.count(c) for c in LETTERS], dtype=torch.float64)
    z = (counts - 4000 * shares) / (4000 * shares * (1 - shares)).sqrt().clamp(min=1)
    assert float(z.abs().max()) < 4.5
    assert generate(model, ["abc"] * 50, most=1, temperature=1.5, seed=0) == found[:50]
    assert generate(model, ["abc"] * 50, most=1, temperature=1.5, seed=1) != found[:50]


def test_what_does_not_fit_is_refused():
    model = lettered(n_ctx=8)
    assert len(generate(model, ["abcd"], most=5)[0]) == 5  # reads 8 positions, writes a ninth token
    with pytest.raises(BadValue, match="at most 8 tokens, the model's context"):
        generate(model, ["abcd"], most=6)
    refused = []
    found = dict(generations(model, [Generate("abcd", 6), Generate("a", 2)], refuse=lambda i, e: refused.append(i)))
    assert refused == [0]
    assert list(found) == [1]


@pytest.mark.parametrize(
    ("prompts", "options", "words"),
    [([""], {}, "no BOS token"), (["a"], {"most": 0}, "at least 1"), (["a"], {"temperature": -1.0}, "greedy")],
)
def test_bad_requests(prompts, options, words):
    with pytest.raises(BadValue, match=words):
        generate(lettered(), prompts, **options)
