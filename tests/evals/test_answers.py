"""Extracted answers: the two measures by hand, the likeliest span by trying all, and guesses that do not read."""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from evals.answers import exact_match, likeliest_spans, normalised, token_f1
from evals.task import Measure, TaskData
from evals.tasks.answers import TASK, AnswersSpec, answers, first_name, make, nearest_name, random_span, rows_of, score
from workbench.core.batch import EncoderBatch, RowData
from workbench.core.errors import BadValue
from workbench.data.whole_words import whole_words
from workbench.data.worlds.town_stories import Story
from workbench.families.bert import BERT, BERTConfig
from workbench.training.loop import train
from workbench.training.spec import TrainSpec

TOLD = "please open the gate, kim tells sam. near the park ash met lee."
ASKED = Story(TOLD, "who was asked to open the gate ?", (32, 35), "asked", ("kim", "sam", "ash", "lee"), ())
PLACE = Story(TOLD, "where was it that ash met lee ?", (37, 50), "place", ("kim", "sam", "ash", "lee"), ())


# --- measures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "wanted", "same", "f1"),
    [
        ("the Gate.", "gate", True, 1.0),
        ("a  red gate", "red gate", True, 1.0),
        ("red gate", "the old red gate", False, 0.8),  # 2 of 2 and 2 of 3
        ("gate gate", "gate", False, 2 / 3),  # each word counts as often as it stands
        ("kim", "sam", False, 0.0),
        ("", "sam", False, 0.0),
        ("the", "an", True, 1.0),  # nothing is left of either
        ("theme", "me", False, 0.0),  # an article is a word
    ],
)
def test_measures_by_hand(found: str, wanted: str, same: bool, f1: float) -> None:
    assert exact_match(found, wanted) == same
    assert token_f1(found, wanted) == pytest.approx(f1, abs=1e-12)
    assert token_f1(wanted, found) == pytest.approx(f1, abs=1e-12)


@settings(deadline=None)
@given(st.text(), st.text())
def test_f1_is_between_0_and_1_and_1_exactly_for_the_same_words(left: str, right: str) -> None:
    assert 0 <= token_f1(left, right) <= 1
    assert (token_f1(left, right) == 1) == (sorted(normalised(left).split()) == sorted(normalised(right).split()))
    assert exact_match(left, left)
    assert token_f1(left, right) == 1 or not exact_match(left, right)


def slow_spans(begin: np.ndarray, end: np.ndarray, allowed: np.ndarray, longest: int) -> list[list[int]]:
    """Every span of every row."""
    out = []
    for row in range(len(begin)):
        best: tuple[float, list[int]] = (-np.inf, [])
        for first in range(begin.shape[1]):
            for last in range(first, min(first + longest, begin.shape[1])):
                total = begin[row, first] + end[row, last]
                if all(allowed[row, first : last + 1]) and total > best[0]:
                    best = (total, [first, last])
        out.append(best[1])
    return out


@settings(deadline=None)
@given(arrays.arrays(np.float64, (2, 3, 6), elements=st.integers(-3, 3)), arrays.arrays(np.bool_, (3, 6)), st.integers(1, 8))
def test_the_likeliest_span_is_the_best_of_all(scores: np.ndarray, allowed: np.ndarray, longest: int) -> None:
    if not allowed.any(1).all():
        with pytest.raises(BadValue, match="one allowed in every row"):
            likeliest_spans(scores[0], scores[1], allowed, longest)
        return
    assert likeliest_spans(scores[0], scores[1], allowed, longest).tolist() == slow_spans(scores[0], scores[1], allowed, longest)


# --- rows and guesses -----------------------------------------------------------------------------------------


def test_a_row_is_the_question_and_the_story_and_its_target_the_answer() -> None:
    tokenizer = whole_words([TOLD, ASKED.question, PLACE.question])
    batch = rows_of([ASKED, PLACE], tokenizer, marked=False).batch([0, 1])
    assert batch.types is not None
    assert batch.targets is not None
    for row, types, (first, last), story in zip(batch.tokens, batch.types, batch.targets.tolist(), (ASKED, PLACE), strict=True):
        assert tokenizer.pieces(row[first : last + 1].tolist()) == story.said.split()
        assert types[first] == 1
        assert tokenizer.pieces(row[types == 0].tolist())[1:-1][: len(story.question.split())] == story.question.split()
    assert (ASKED.said, PLACE.said) == ("sam", "near the park")


def test_guesses_read_no_sentence() -> None:
    tokenizer = whole_words([TOLD, ASKED.question])
    assert first_name(ASKED, tokenizer) == "kim"
    assert nearest_name(ASKED, tokenizer) == "kim", "two tokens from 'gate', where the answer is four away"
    assert nearest_name(PLACE, tokenizer) == "sam", "ash and lee are in the question"
    drawn = {random_span(Story(TOLD, f"{n} ?", (37, 50), "place", (), ()), tokenizer) for n in range(200)}
    assert all(len(tokenizer.encode(span)) == 3 and span in TOLD for span in drawn)
    assert len(drawn) == len(tokenizer.encode(TOLD)) - 2, "every span of three tokens comes"


# --- the task -------------------------------------------------------------------------------------------------


@lru_cache
def drawn() -> TaskData:
    return make(AnswersSpec.parse({"rows": 300, "held_out": 120}), 1)


class Oracle:
    """Says the right span of each row of a task, or, where it does not see the question, the first word of the story."""

    def __init__(self, data: TaskData) -> None:
        rows = data.held_out.rows
        batch = rows.batch(range(len(rows)))
        assert batch.mask is not None
        self.spans = {
            tuple(row[real].tolist()): span for row, real, span in zip(batch.tokens, batch.mask, batch.targets.tolist(), strict=True)
        }

    def run(self, batch: EncoderBatch) -> Any:
        logits = torch.zeros(*batch.tokens.shape, 2)
        for at, row in enumerate(batch.tokens):
            real = row if batch.mask is None else row[batch.mask[at]]
            first, last = self.spans.get(tuple(real.tolist()), (0, 0))
            logits[at, first, 0] = logits[at, last, 1] = 1.0
        return SimpleNamespace(logits=logits)


def by_name(measures: Any) -> dict[str, Measure]:
    return {one.name: one for one in measures}


def test_a_model_that_knows_is_right_and_above_every_guess() -> None:
    data, oracle = drawn(), Oracle(drawn())
    knows: Any = oracle
    assert answers(knows, data.held_out) == [story.said for story in data.held_out.stories]
    found = by_name(score(knows, data))
    assert found["exact match"].value == found["token F1"].value == found["exact match of names"].value == 1.0
    assert found["question hidden"].value < 0.2, "with the question hidden the rows are others"
    assert found["exact match"].count == 120
    best = max(found["first name"].value, found["nearest name"].value)
    assert found["above the better guess"].value == pytest.approx(1 - best)
    assert 0.2 < found["nearest name"].value < 0.7
    assert found["first name"].value < 0.5
    assert found["random span"].value < 0.2 < found["random span, token F1"].value + 0.2
    assert set(found) >= set(TASK.must)
    model = BERT(BERTConfig.parse({"n_layers": 1, "d_model": 8, "n_heads": 2, **data.shape}), data.tokenizer).eval()
    assert by_name(score(model, data))["above the better guess"].high < 0.1
    places = make(AnswersSpec.parse({"rows": 30, "held_out": 20, "meetings": 1.0}), 1)
    other = BERT(BERTConfig.parse({"n_layers": 1, "d_model": 8, "n_heads": 2, **places.shape}), places.tokenizer).eval()
    assert "nearest name" not in by_name(score(other, places))


class Dealt:
    """Rows whose answers are at the places of other rows' answers: there is nothing to read them off."""

    def __init__(self, rows: RowData) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Any) -> EncoderBatch:
        batch, other = self.rows.batch(indices), self.rows.batch([(int(i) * 7 + 3) % len(self) for i in indices])
        assert other.targets is not None
        last = batch.tokens.shape[1] - 1 if batch.mask is None else batch.mask.sum(1, keepdim=True) - 2
        return EncoderBatch(batch.tokens, torch.minimum(other.targets, torch.as_tensor(last)), batch.mask, batch.types)

    def digest(self) -> str:
        return f"dealt {self.rows.digest()}"


@pytest.mark.slow
@pytest.mark.parametrize("dealt", [False, True])
def test_answers_in_one_sentence_are_learned_and_answers_dealt_out_are_not(dealt: bool) -> None:
    data = make(AnswersSpec.parse({"rows": 2500, "held_out": 200, "sentences": 1, "meetings": 0.5}), 1)
    model = BERT(BERTConfig.parse({"n_layers": 1, "d_model": 32, "n_heads": 4, "init_std": 0.12, **data.shape}), data.tokenizer, seed=1)
    spec = TrainSpec.parse({"steps": 60 if dealt else 140, "batch_rows": 32, "lr": 4e-3, "warmup": 20, "beta2": 0.98, "threads": 1})
    train(model, Dealt(data.train) if dealt else data.train, spec)
    found = by_name(score(model.eval(), data))
    if dealt:
        assert found["exact match"].value < 0.35
        assert found["above the better guess"].high < 0.1
    else:
        assert found["exact match"].value > 0.8
        assert found["exact match"].low > found["question hidden"].high
