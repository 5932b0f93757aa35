"""Granted or not: a bag of words is right in exactly half, a reader in all, and nobody where labels are shuffled."""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.bags import Bags
from evals.task import Measure, TaskData
from evals.tasks.granted import TASK, GrantedSpec, classified, make, score
from workbench.core.batch import EncoderBatch
from workbench.core.errors import BadValue
from workbench.families.bert import BERT, BERTConfig
from workbench.training.loop import train
from workbench.training.spec import TrainSpec


@lru_cache
def drawn(*, shuffled: bool = False, later: bool = True, negated: float = 0.3) -> TaskData:
    return make(GrantedSpec.parse({"rows": 400, "held_out": 100, "shuffled": shuffled, "later": later, "negated": negated}), 1)


def by_name(measures: Any) -> dict[str, Measure]:
    return {one.name: one for one in measures}


# --- bags -----------------------------------------------------------------------------------------------------


def test_a_bag_tells_what_a_word_tells_and_a_pair_what_a_pair_tells() -> None:
    draw = np.random.default_rng(0)
    rows = [draw.integers(2, 9, 8).tolist() for _ in range(300)]
    by_word = [int(3 in row) for row in rows]
    assert Bags.fitted(rows[:200], by_word[:200], rows[:50], by_word[:50], neighbours=False).guesses(rows[200:]).tolist() == by_word[200:]
    ordered = [[*row[:4], *((0, 1) if i % 2 else (1, 0)), *row[4:]] for i, row in enumerate(rows)]  # the same words, in two orders
    labels = [i % 2 for i in range(300)]
    plain = Bags.fitted(ordered[:200], labels[:200], ordered[:50], labels[:50], neighbours=False)
    assert 0.3 < (plain.guesses(ordered[200:]) == np.array(labels[200:])).mean() < 0.7
    pairs = Bags.fitted(ordered[:200], labels[:200], ordered[:50], labels[:50], neighbours=True)
    assert (pairs.guesses(ordered[200:]) == np.array(labels[200:])).all()
    assert plain.guesses([[77, 3], [3]]).tolist() == [plain.guesses([[3]])[0]] * 2, "a word that was never seen counts nothing"
    for bad, says in (([1] * 200, "at least two in training"), ([1] * 199, "one for each of 200")):
        with pytest.raises(BadValue, match=says):
            Bags.fitted(rows[:200], bad, rows[:50], by_word[:50], neighbours=False)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), max_size=6), min_size=1, max_size=4), st.booleans())
def test_counts_are_those_of_going_through_the_row(rows: list[list[int]], neighbours: bool) -> None:
    bags = Bags.fitted([[0, 1, 2], [3, 1]], [0, 1], [[0]], [0], neighbours=neighbours)
    table = bags._table(rows).toarray()
    for row, counted in zip(rows, table, strict=True):
        for feature, number in bags.known.items():
            slow = sum(tuple(row[at : at + len(feature)]) == feature for at in range(len(row) - len(feature) + 1))
            assert counted[number] == slow
    assert ((1, 2) in bags.known) == neighbours


# --- the task -------------------------------------------------------------------------------------------------


class Reader:
    """Knows each row's label; those of ``wrong`` first rows it gets wrong."""

    def __init__(self, data: TaskData, wrong: int = 0) -> None:
        rows = data.held_out.rows
        self.known = {}
        for at in range(len(rows)):
            batch = rows.batch([at])
            assert batch.targets is not None
            self.known[tuple(batch.tokens[0].tolist())] = abs(int(batch.targets[0]) - (at < wrong))

    def run(self, batch: EncoderBatch) -> Any:
        real = [row if batch.mask is None else row[batch.mask[at]] for at, row in enumerate(batch.tokens)]
        return SimpleNamespace(logits=torch.eye(2)[[self.known[tuple(row.tolist())] for row in real]])


def test_a_reader_is_right_where_a_bag_is_at_chance_exactly() -> None:
    data = drawn()
    reader: Any = Reader(data)
    found = by_name(score(reader, data))
    assert found["accuracy"].value == 1.0
    assert found["bag of words"].value == 0.5, "of mirrored twos it gets one right"
    assert 0.3 < found["bag of words and pairs"].value < 0.7
    assert found["above the better bag"].value == pytest.approx(1 - max(found["bag of words"].value, found["bag of words and pairs"].value))
    assert found["accuracy"].count == 100
    assert set(found) >= set(TASK.must)
    some: Any = Reader(data, wrong=10)
    assert by_name(score(some, data))["accuracy"].value == pytest.approx(0.9)
    assert classified(some, data.held_out.rows).shape == (100,)


@pytest.mark.slow
def test_a_small_reader_learns_who_was_answered_and_nothing_of_shuffled_labels() -> None:
    spec = TrainSpec.parse({"steps": 40, "batch_rows": 32, "lr": 3e-3, "warmup": 10, "threads": 1})
    null = drawn(shuffled=True)
    model = BERT(BERTConfig.parse({"n_layers": 1, "d_model": 32, "n_heads": 4, **null.shape}), null.tokenizer, seed=1)
    train(model, null.train, spec)
    found = by_name(score(model.eval(), null))
    for name in ("accuracy", "bag of words", "bag of words and pairs"):
        assert found[name].low < 0.5 < found[name].high, name
