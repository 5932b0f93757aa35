"""Tree scoring against one forward a token; boundaries of tokens; independence of the batch; nothing cut short."""

from __future__ import annotations

import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.models import WORDS, Wrapped, characters, lettered, words
from tests.reference.scoring import all_logprobs, rolling_logprobs
from workbench.core.errors import BadValue
from workbench.core.measure import Loglikelihood
from workbench.core.protocol import Resume
from workbench.engine import packed
from workbench.engine.reading import picked
from workbench.engine.score import certify, loglikelihoods, naive, rolling, token_logprobs
from workbench.engine.tokens import Encoded, encode_pair, encode_request
from workbench.engine.tree import ROOT, ancestry, layout, pieces_of, tree_of

TOLERANCE = 1e-5  # a scored token in float32: the design's table


def scores(model, requests, **options):
    return dict(loglikelihoods(model, requests, **options))


def random_requests(seed: int, count: int, vocabulary: int, *, most: int = 6) -> list[Encoded]:
    draw = torch.Generator().manual_seed(seed)
    pick = lambda low, high: int(torch.randint(low, high, (1,), generator=draw))  # noqa: E731
    ids = lambda n: tuple(torch.randint(0, vocabulary, (n,), generator=draw).tolist())  # noqa: E731
    return [Encoded(ids(pick(1, 8)), tuple(ids(pick(1, 5)) for _ in range(pick(1, most)))) for _ in range(count)]


def logits_of(model, ids):
    trace = model.run(torch.tensor([ids]))
    assert trace.logits is not None
    return trace.logits[0, -1]


def gaps(found, expected) -> float:
    assert [[len(c) for c in a] for a in found] == [[len(c) for c in a] for a in expected]
    return max(
        abs(x - y) for a, b in zip(found, expected, strict=True) for c, d in zip(a, b, strict=True) for x, y in zip(c, d, strict=True)
    )


@pytest.mark.parametrize("mode", ["certified", "packed"])
@pytest.mark.parametrize("positions", ["rope", "learned"])
def test_trees_equal_one_forward_a_token(positions, mode):
    model = lettered(positions=positions)
    requests = random_requests(0, 15, model.config.d_vocab)
    found = scores(model, requests, mode=mode)
    expected = [all_logprobs(model, r.context, r.continuations) for r in requests]
    assert gaps([found[i] for i in range(15)], expected) < TOLERANCE


@pytest.mark.parametrize("mode", ["certified", "packed"])
def test_float64_is_exact(mode):
    model = lettered().double()
    requests = random_requests(1, 10, model.config.d_vocab)
    found = scores(model, requests, mode=mode)
    expected = [all_logprobs(model, r.context, r.continuations) for r in requests]
    assert gaps([found[i] for i in range(10)], expected) < 1e-12


def test_a_broken_mask_would_be_seen(monkeypatch):
    model = lettered()
    requests = random_requests(2, 5, model.config.d_vocab)
    expected = [all_logprobs(model, r.context, r.continuations) for r in requests]
    monkeypatch.setattr("workbench.engine.tree.ancestry", lambda parents: ancestry(parents) | True)
    found = scores(model, requests, mode="packed")
    assert gaps([found[i] for i in range(5)], expected) > 1e-3


@pytest.mark.parametrize("budget", [1, 16, 64, 8192])
def test_the_batch_does_not_matter(budget):
    model = lettered()
    requests = random_requests(3, 12, model.config.d_vocab)
    for mode in ("certified", "packed") if budget > 1 else ("packed",):
        alone = [scores(model, [r], mode=mode)[0] for r in requests]
        together = scores(model, requests, token_budget=budget, mode=mode)
        assert gaps([together[i] for i in range(12)], alone) < TOLERANCE


def test_one_chunk_gives_the_same_bytes_again():
    model = lettered()
    requests = random_requests(4, 20, model.config.d_vocab)
    assert scores(model, requests, mode="packed") == scores(model, requests, mode="packed")


@pytest.mark.parametrize("piece", [1, 7, 64])
def test_a_big_tree_in_pieces_on_a_cached_context(piece, monkeypatch):
    monkeypatch.setattr(packed, "PIECE", piece)
    model = lettered(n_ctx=32)
    numbers = [tuple(int(d) for d in f"{n:03d}") for n in range(1000)]
    request = Encoded((11, 12, 13, 14), tuple(numbers))
    assert len(tree_of(request.continuations)) == 110
    found = scores(model, [request], mode="packed")[0]
    for n in (0, 7, 123, 500, 999):
        assert gaps([[found[n]]], [all_logprobs(model, request.context, [numbers[n]])]) < TOLERANCE
    assert math.fsum(math.exp(math.fsum(c)) for c in found) < 1


def test_a_model_without_masks_or_cache_scores_the_same():
    model = lettered()
    requests = random_requests(5, 12, model.config.d_vocab)
    plain = Wrapped(model, "mask", "cache")
    for budget in (1, 8192):
        found = scores(plain, requests, token_budget=budget)
        assert gaps([found[i] for i in range(12)], [scores(model, requests)[i] for i in range(12)]) < TOLERANCE


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5).map(tuple), min_size=1, max_size=12), st.integers(1, 6))
def test_trees_and_their_pieces_keep_every_path(continuations, most):
    tree = tree_of(tuple(continuations))
    for number, path in enumerate(tree.paths):
        assert tuple(tree.edges[e][1] for e in path) == continuations[number]
        node = ROOT
        for e in path:
            assert tree.edges[e][0] == node
            node = next((k for k in range(len(tree)) if tree.parent[k] == node and tree.token[k] == tree.edges[e][1]), -2)
    assert len(set(tree.edges)) == len(tree.edges)
    seen: set[int] = set()
    for piece in pieces_of(tree, most):
        assert all(tree.parent[n] == ROOT or tree.parent[n] in piece[: place + 1] for place, n in enumerate(piece))
        assert len(piece) <= most + max(tree.depth, default=0)
        seen.update(piece)
    assert seen == set(range(len(tree)))


def test_logits_are_asked_only_where_something_is_scored():
    model = lettered()
    watched = Wrapped(model)
    scores(watched, [Encoded((1, 2, 3, 4, 5, 6), ((7,), (8,)))], mode="packed")
    assert watched.runs == [((1, 6), (1, 1, model.config.d_vocab))]


def test_bfloat16_logits_are_normalised_in_float32():
    """D10: log-softmax in bfloat16 moves in steps of 0.125 at −21 and makes ties that are none."""
    wide = torch.full((1, 1, 50_000), 2.0, dtype=torch.bfloat16)
    wide[0, 0, 0], wide[0, 0, 1] = -12.125, -12.1875
    at = torch.zeros(2, dtype=torch.long)
    found = picked(wide, at, at, torch.tensor([0, 1]))
    assert found == pytest.approx(wide[0, 0].double().log_softmax(-1)[:2].tolist(), abs=1e-5)
    assert found[0] != found[1]
    assert float(wide[0, 0].log_softmax(-1)[0]) == float(wide[0, 0].log_softmax(-1)[1])  # what the dtype itself would say


def test_a_bfloat16_model_agrees_with_its_own_logits():
    model = lettered().bfloat16()
    request = Encoded((1, 2, 3), ((4, 5), (6,)))
    logits = logits_of(model, [1, 2, 3])
    found = scores(model, [request])[0]
    assert found[1][0] == pytest.approx(float(logits.double().log_softmax(-1)[6]), abs=0.05)  # bfloat16 kernels differ by shape


# --- tokens -------------------------------------------------------------------------------------------------


def test_a_continuation_is_the_rest_of_the_whole_text():
    tokenizer = words()
    encoded = encode_pair(tokenizer, "the cat sat", [" on the mat", " here"])
    assert encoded.context[0] == tokenizer.bos_id
    assert encoded.apart == ()
    for ids, text in zip(encoded.continuations, (" on the mat", " here"), strict=True):
        assert list(encoded.context[1:]) + list(ids) == tokenizer.encode("the cat sat" + text)


def test_a_token_across_the_boundary_is_encoded_apart_and_told():
    tokenizer = words()
    context, continuation = WORDS[0][:2], WORDS[0][2:]
    whole, before = tokenizer.encode(context + continuation), tokenizer.encode(context)
    assert whole[: len(before)] != before, "the test needs a merge across the boundary"
    encoded = encode_pair(tokenizer, context, [continuation, " x"])
    assert encoded.apart == (0,)
    assert list(encoded.continuations[0]) == tokenizer.encode(continuation)


def test_an_empty_context_is_bos_and_needs_one():
    assert encode_pair(words(), "", ["the"]).context == (words().bos_id,)
    with pytest.raises(BadValue, match="no BOS token"):
        encode_pair(characters(), "", ["the"])


@pytest.mark.parametrize("continuations", [(), ("",), ("a", "")])
def test_nothing_to_score_is_an_error(continuations):
    with pytest.raises(BadValue, match="at least one"):
        encode_pair(words(), "the", continuations)


def test_what_does_not_fit_is_refused_never_cut():
    model = lettered(n_ctx=8)
    exact = Encoded((1, 2, 3, 4), ((5, 6, 7, 8, 9),))  # reads 8 positions, predicts the ninth
    assert len(scores(model, [exact])[0][0]) == 5
    text = "abcdefgh"
    with pytest.raises(BadValue, match="at most 8, the model's context"):
        scores(model, [Loglikelihood(text, ("ab",))])
    refused = []
    found = scores(model, [Loglikelihood(text, ("ab",)), Loglikelihood("a", ("b",))], refuse=lambda i, e: refused.append((i, e)))
    assert list(found) == [1]
    assert refused[0][0] == 0
    assert "at most 8" in str(refused[0][1])


def test_a_text_model_through_text():
    model = lettered()
    request = Loglikelihood("ab", ("cd", "c", "b"))
    encoded = encode_request(model, request)
    assert gaps([scores(model, [request])[0]], [all_logprobs(model, encoded.context, encoded.continuations)]) < TOLERANCE


# --- rolling ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "stride", "lead"), [(16, 8, 1), (16, 16, 1), (16, 1, 1), (5, 2, 3), (5, 2, 9), (16, 5, 16)])
def test_rolling_equals_its_definition(window, stride, lead):
    model = lettered(n_ctx=16)
    ids = torch.randint(0, 23, (50,), generator=torch.Generator().manual_seed(1)).tolist()
    found = token_logprobs(model, ids, lead=lead, window=window, stride=stride, token_budget=64)
    expected = rolling_logprobs(model, ids, lead=lead, window=window, stride=stride)
    assert len(found) == 50 - lead
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < TOLERANCE


def test_a_short_text_is_scored_whole():
    model = lettered()
    ids = [1, 2, 3, 4, 5]
    assert token_logprobs(model, ids) == pytest.approx(naive(model, ids[:1], ids[1:]), abs=TOLERANCE)
    assert rolling(model, "cde", context="ab") == pytest.approx(scores(model, [Loglikelihood("ab", ("cde",))])[0][0], abs=TOLERANCE)


@pytest.mark.parametrize(
    ("options", "words_"), [({"window": 99}, "rolling window"), ({"stride": 0}, "stride"), ({"lead": 5}, "first scored")]
)
def test_rolling_refuses_what_it_cannot_mean(options, words_):
    with pytest.raises(BadValue, match=words_):
        token_logprobs(lettered(), [1, 2, 3, 4, 5], **options)


# --- the certificate ------------------------------------------------------------------------------------------


def test_the_certificate_measures_the_gap():
    model = lettered()
    requests = [Loglikelihood(a, ("b", "cd", "ce")) for a in "abcdefgh"]
    found = certify(model, requests, share=0.5)
    assert found.gap < TOLERANCE
    assert (found.continuations, found.tokens) == (12, 20)
    assert "nats a token from naive scoring" in str(found)


def test_the_certificate_sees_a_broken_score(monkeypatch):
    model = lettered()
    monkeypatch.setattr("workbench.engine.packed.Resume", lambda **o: Resume(**{**o, "positions": torch.zeros_like(o["positions"])}))
    assert certify(model, [Loglikelihood("abcd", ("efg", "ef"))], share=1.0, mode="packed").gap > 1e-3


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_certificate_of_no_share_is_refused(share):
    with pytest.raises(BadValue, match="certificate's share"):
        certify(lettered(), [], share=share)


def test_padding_is_seen_by_nobody():
    batch = layout([(r, tree_of(r.continuations)) for r in random_requests(6, 4, 23)])
    assert batch.mask is not None
    pad = ~batch.mask.any(dim=1) | (batch.mask.sum(dim=1) == 1)
    own = torch.eye(batch.mask.shape[1], dtype=torch.bool)
    assert (batch.mask & ~own)[:, :, :].any()
    for row in range(len(batch.tokens)):
        for column in torch.nonzero(pad[row])[:, 0].tolist():
            others = batch.mask[row, :, column] & ~own[:, column]
            assert not others.any()


@pytest.mark.slow
def test_ten_thousand_codes_are_fast():
    model = lettered(n_layers=4, d_model=128, n_ctx=64)
    request = Encoded((11, 12, 13, 14, 15), tuple(tuple(int(d) for d in f"{n:04d}") for n in range(10_000)))
    scores(model, [request])
    start = time.perf_counter()
    found = scores(model, [request])[0]
    assert time.perf_counter() - start < 5
    assert len(found) == 10_000
