"""Kneser-Ney: proper distributions, equal to a loop over the definition, and a published-size figure on a real text."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.ngram import FALLBACK, KneserNey, as_bytes, discounts
from tests.reference.kneser_ney import MARK, SlowKneserNey
from workbench.core.errors import BadValue
from workbench.data import sources
from workbench.data.corpora import tinyshakespeare

TEXT = "the cat sat on the mat . the dog sat on the log . a cat and a dog met at noon near the old mill and then they sat . " * 3
symbols = st.lists(st.integers(0, 4), min_size=1, max_size=40)


@settings(max_examples=40, deadline=None)
@given(st.lists(symbols, min_size=1, max_size=4), st.integers(1, 5), st.lists(st.integers(0, 4), max_size=6))
def test_every_context_has_a_distribution(sequences, order, context):
    model = KneserNey([np.array(s) for s in sequences], order=order, vocab=5)
    found = model.distribution(context)
    assert found.min() > 0
    assert abs(found.sum() - 1) < 1e-12


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_bytes_sum_to_one_in_seen_and_unseen_contexts(order):
    model = KneserNey(as_bytes(TEXT), order=order)
    for context in ("", "t", "the c", "on the m", "zzzzz", "\x00é"):
        assert abs(model.distribution(as_bytes(context).tolist()).sum() - 1) < 1e-12


@settings(max_examples=25, deadline=None)
@given(st.lists(symbols, min_size=1, max_size=3), st.integers(1, 4), symbols, st.lists(st.integers(0, 4), max_size=5))
def test_it_equals_the_definition(sequences, order, text, context):
    fast = KneserNey([np.array(s) for s in sequences], order=order, vocab=5)
    slow = SlowKneserNey(sequences, order, 5)
    found = fast.probabilities(np.array(text), context=np.array(context, dtype=np.int64))
    whole = [MARK] * (order - 1) + context + text
    for place, symbol in enumerate(text):
        history = tuple(whole[: order - 1 + len(context) + place])
        for k in range(1, order + 1):
            assert found[k - 1, place] == pytest.approx(slow.p(symbol, history, k), abs=1e-12)


def test_it_equals_the_definition_where_discounts_are_estimated():
    ids = [b % 23 for b in TEXT.encode()]
    fast, slow = KneserNey(np.array(ids), order=3, vocab=23), SlowKneserNey([ids], 3, 23)
    assert discounts(fast._orders[1].mass) == pytest.approx(slow.discounts[2])
    assert slow.discounts[3] != FALLBACK or slow.discounts[2] != FALLBACK
    text = ids[10:40]
    expected = [slow.p(s, (MARK, MARK, *text[:i])) for i, s in enumerate(text)]
    assert np.exp(-fast.nats(np.array(text))) == pytest.approx(np.array(expected), abs=1e-12)


def test_sequences_do_not_run_into_each_other():
    apart = KneserNey([as_bytes("ab"), as_bytes("cd")], order=2)
    joined = KneserNey(as_bytes("abcd"), order=2)
    follows = lambda model: model.probabilities(as_bytes("c"), context=as_bytes("b"))[-1, 0]  # noqa: E731
    assert follows(joined) > 0.3
    assert follows(apart) < 0.2


def test_discounts_of_a_known_table():
    mass = np.array([1.0] * 10 + [2.0] * 5 + [3.0] * 3 + [4.0] * 2)
    y = 10 / 20
    assert discounts(mass) == pytest.approx((1 - 2 * y * 5 / 10, 2 - 3 * y * 3 / 5, 3 - 4 * y * 2 / 3))
    assert discounts(np.array([1.0, 5.0])) == FALLBACK


@pytest.mark.parametrize(
    ("sequences", "order", "words"),
    [
        ([], 2, "empty"),
        ([np.array([], dtype=int)], 2, "empty"),
        (as_bytes("ab"), 6, "1 to 5"),
        (as_bytes("ab"), 0, "1 to 5"),
        (np.array([256]), 2, "0 to 255"),
    ],
)
def test_bad_input(sequences, order, words):
    with pytest.raises(BadValue, match=words):
        KneserNey(sequences, order=order)


def test_digests_tell_texts_and_orders_apart():
    digests = {KneserNey(as_bytes(t), order=o).digest() for t in ("ab", "ba") for o in (1, 2)}
    assert len(digests) == 4
    assert KneserNey(as_bytes("ab"), order=2).digest() in digests


@pytest.mark.skipif(not sources.mirror_folder() or not sources.available("tinyshakespeare"), reason="tinyshakespeare is not mirrored")
@pytest.mark.slow
def test_byte_5_gram_on_tinyshakespeare():
    """The figure beside which character models are shown: 1.562 nats (2.253 bits) a character; the text is ASCII, so also a byte."""
    split = tinyshakespeare()
    start = time.perf_counter()
    model = KneserNey(as_bytes(split["train"]), order=5)
    found = model.nats(as_bytes(split["validation"])).mean()
    assert time.perf_counter() - start < 20
    assert found == pytest.approx(1.5617, abs=5e-4)
