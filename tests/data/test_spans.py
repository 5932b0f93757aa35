"""Span corruption: nothing is lost, the shares are those asked for, and a decoder learns from it."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from workbench.core.batch import IGNORE
from workbench.core.errors import BadValue
from workbench.data.spans import Corruption, SpanRows, _divided
from workbench.families.seq2seq import Seq2Seq, Seq2SeqConfig
from workbench.training.loop import evaluate, train
from workbench.training.spec import TrainSpec

SENTINELS, BEGIN, END = (20, 21, 22, 23, 24, 25, 26), 18, 19


def rows(texts: Any = None, **how: Any) -> SpanRows:
    texts = texts if texts is not None else [list(range(n % 5, n % 5 + 9)) * 2 for n in range(40)]
    return SpanRows(texts, SENTINELS, **{"begin": BEGIN, "end": END, "seed": 0, "count": 400, **how})


def restored(source: list[int], target: list[int]) -> list[int]:
    """The row, by putting each span back where its sentinel stands."""
    assert (source[-1], target[-1]) == (END, END)
    spans: dict[int, list[int]] = {}
    here: list[int] = []
    for token in target[:-1]:
        if token in SENTINELS:
            spans[token] = (here := [])
        else:
            here.append(token)
    return [kept for token in source[:-1] for kept in (spans[token] if token in SENTINELS else [token])]


def test_the_example_of_the_paper() -> None:
    class Fixed(SpanRows):
        def spans(self, number: int) -> list[tuple[int, int]]:
            return [(2, 4), (8, 9)]

    found = Fixed([list(range(10))], SENTINELS, begin=BEGIN, end=END, seed=0).corrupted(0)
    assert found == ([0, 1, 20, 4, 5, 6, 7, 21, 9, END], [20, 2, 3, 21, 8, 22, END])


def test_nothing_is_lost_and_sentinels_stand_in_their_order() -> None:
    made = rows()
    for number in range(200):
        source, target = made.corrupted(number)
        assert restored(source, target) == list(range(number % 40 % 5, number % 40 % 5 + 9)) * 2
        marks = [token for token in source if token in SENTINELS]
        assert marks == list(SENTINELS[: len(marks)])
        assert [token for token in target if token in SENTINELS] == list(SENTINELS[: len(marks) + 1])


def test_a_span_put_back_in_the_wrong_place_would_be_caught() -> None:
    source, target = rows(corruption=Corruption(0.4, 2.0)).corrupted(0)
    places = [at for at, token in enumerate(source) if token in SENTINELS]
    source[places[0]], source[places[1]] = source[places[1]], source[places[0]]
    assert restored(source, target) != list(range(9)) * 2


@pytest.mark.parametrize(("share", "mean", "length"), [(0.15, 3.0, 100), (0.5, 3.0, 60), (0.15, 1.0, 20), (0.9, 5.0, 30), (0.01, 3.0, 2)])
def test_shares_and_lengths_are_those_asked_for(share: float, mean: float, length: int) -> None:
    corruption = Corruption(share, mean)
    out, n = corruption.sizes(length)
    made = SpanRows([[7] * length], range(100, 100 + n + 1), begin=BEGIN, end=END, seed=1, count=50, corruption=corruption)
    for number in range(50):
        spans = made.spans(number)
        assert len(spans) == n
        assert sum(last - first for first, last in spans) == out
        edges = [0] + [edge for span in spans for edge in span]
        assert all(a < b for a, b in itertools.pairwise(edges))  # apart, not empty, and text first
        assert spans[-1][1] <= length
    assert out == min(max(round(share * length), 1), length - 1)
    assert abs(out / n - mean) < mean or n == 1


def test_a_span_may_stand_anywhere_but_at_the_beginning() -> None:
    made = SpanRows([[7] * 10], SENTINELS, begin=BEGIN, end=END, seed=1, count=2000)  # one span of two tokens
    starts = Counter(made.spans(number)[0][0] for number in range(2000))
    assert set(starts) == set(range(1, 9))
    assert max(abs(count - 250) for count in starts.values()) < 70


def test_every_division_is_equally_likely() -> None:
    counts = Counter(tuple(_divided(6, 3, key, 0)) for key in range(5000))
    assert len(counts) == 10  # 5 choose 2
    assert max(abs(count - 500) for count in counts.values()) < 100


def test_a_row_depends_on_its_number_alone() -> None:
    made, again = rows(), rows()
    together, alone = made.batch([3, 11, 43]), again.batch([43])
    width, long = alone.source.shape[1], alone.tokens.shape[1]
    assert torch.equal(together.source[2, :width], alone.source[0])
    assert alone.targets is not None
    assert together.targets is not None
    assert torch.equal(together.targets[2, :long], alone.targets[0])
    assert made.corrupted(3) != made.corrupted(43)  # the same text again, with other spans
    assert len({made.digest(), rows(seed=1).digest(), rows(count=5).digest(), rows(corruption=Corruption(0.2)).digest()}) == 4
    assert again.digest() == made.digest()


def test_a_batch_is_filled_and_masked() -> None:
    batch = rows([[1, 2, 3], list(range(12))], count=2).batch([0, 1])
    assert batch.mask is not None
    assert batch.targets is not None
    lengths = batch.mask.sum(1)
    assert batch.source[0, lengths[0] - 1] == END
    assert bool((batch.source[~batch.mask] == END).all())
    assert bool((batch.tokens[:, 0] == BEGIN).all())
    real = batch.targets != IGNORE
    assert torch.equal(batch.tokens[:, 1:][real[:, 1:]], batch.targets[:, :-1][real[:, 1:]])
    assert rows([[1, 2, 3]], count=2).batch([0, 1]).mask is None


@pytest.mark.parametrize(
    ("texts", "how", "words"),
    [
        ([], {}, "the rows is 0"),
        ([[1]], {}, "each of two tokens"),
        ([[1, 21]], {}, r"a row is \[21\].*text is no sentinel"),
        ([[1] * 200], {}, "the number of sentinels is 7, but it must be at least 11"),
        ([[1, 2]], {"begin": 20}, "neither begin nor end"),
        ([[1, 2]], {"count": 0}, "count is 0"),
    ],
)
def test_what_cannot_be_corrupted(texts: Any, how: Any, words: str) -> None:
    with pytest.raises(BadValue, match=words):
        rows(texts, **how)


@pytest.mark.parametrize(("fields", "words"), [({"share": 0.0}, "share"), ({"share": 1.0}, "share"), ({"mean": 0.5}, "mean length")])
def test_corruptions_that_cannot_be(fields: Any, words: str) -> None:
    with pytest.raises(BadValue, match=words):
        Corruption(**fields)
    with pytest.raises(BadValue, match="row indices"):
        rows().batch([400])


@pytest.mark.slow
def test_a_decoder_learns_what_was_taken_out() -> None:
    """Rows count upwards, so what is missing can be known from what is left."""
    draw = np.random.default_rng(0)
    texts = [[(int(start) + i) % 16 for i in range(14)] for start in draw.integers(0, 16, 200)]
    made = SpanRows(texts, SENTINELS, begin=BEGIN, end=END, seed=0, count=4000)
    held_out = SpanRows(texts, SENTINELS, begin=BEGIN, end=END, seed=9, count=200)
    model = Seq2Seq(Seq2SeqConfig.parse({"d_model": 32, "n_heads": 4, "d_vocab": 27, "n_ctx": 24, "init_std": 0.18}))
    before = evaluate(model, held_out)[0]
    train(model, made, TrainSpec.parse({"steps": 250, "batch_rows": 16, "lr": 4e-3, "min_lr": 4e-4, "warmup": 20, "threads": 1}))
    assert evaluate(model, held_out)[0] < 0.3 * before
