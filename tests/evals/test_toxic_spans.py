"""Marked characters: the F1 by hand and by sets, a lexicon that counts, and a tagger that finds what stands around a word or nothing."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.lexicon import Lexicon
from evals.spans import THRESHOLDS, Marked, character_f1, threshold
from evals.task import Measure, TaskData
from evals.tasks.toxic_spans import TASK, ToxicSpansSpec, pieces, prepared, score, word_scores
from workbench.core.batch import IGNORE, EncoderBatch
from workbench.core.errors import BadValue, MissingData
from workbench.data import sources
from workbench.data.counter import Draw
from workbench.data.subwords import subwords
from workbench.data.toxic_spans import NAME, Post, runs, splits, words_of
from workbench.families.bert import BERT, BERTConfig
from workbench.training.loop import train
from workbench.training.spec import TrainSpec

texts = st.text("ab '!\n", min_size=1, max_size=20)
SPEC = ToxicSpansSpec.parse({"vocabulary": 300, "length": 16})


def marked_posts(data: st.DataObject, text: str) -> Post:
    return Post(text, tuple(sorted(data.draw(st.sets(st.integers(0, len(text) - 1))))))


# --- the measure ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "gold", "value"),
    [
        ([0, 1, 2], [1, 2, 3], 2 / 3), ([0, 1], [0, 1], 1.0), ([], [], 1.0), ([3], [], 0.0), ([], [3], 0.0), ([1, 2], [3], 0.0),
        ([1, 1], [1, 2], 2 / 3),
    ],
)  # fmt: skip
def test_the_f1_of_one_text_by_hand(found: list[int], gold: list[int], value: float) -> None:
    assert character_f1(found, gold) == pytest.approx(value, abs=1e-12)


def slow_f1(post: Post, marked: list[bool]) -> float:
    """Word by word, blank by blank, as sets of offsets."""
    spans, found = words_of(post.text), set()
    for (start, end), here in zip(spans, marked, strict=True):
        found |= set(range(start, end)) if here else set()
    for (_, end), (start, _), left, right in zip(spans, spans[1:], marked, marked[1:], strict=False):
        if left and right and not post.text[end:start].strip():
            found |= set(range(end, start))
    return character_f1(found, post.toxic)


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=4), st.data())
def test_all_texts_at_once_are_each_by_its_sets(written: list[str], data: st.DataObject) -> None:
    posts = [marked_posts(data, text) for text in written]
    cut = Marked.of(posts)
    chosen = [data.draw(st.lists(st.booleans(), min_size=n, max_size=n)) for n in (len(words_of(post.text)) for post in posts)]
    found = cut.f1(np.array([mark for row in chosen for mark in row], dtype=bool))
    assert found == pytest.approx([slow_f1(post, row) for post, row in zip(posts, chosen, strict=True)], abs=1e-12)
    assert cut.everything() == pytest.approx([character_f1(range(len(post.text)), post.toxic) for post in posts], abs=1e-12)
    assert ((found >= 0) & (found <= 1)).all()
    gold = [[2 * sum(at in post.toxic for at in range(*span)) > span[1] - span[0] for span in words_of(post.text)] for post in posts]
    assert cut.majority().tolist() == [each for row in gold for each in row]
    with pytest.raises(BadValue, match="one for each of"):
        cut.f1(np.zeros(len(cut.size) + 1, dtype=bool))


def test_the_threshold_is_the_best_of_all() -> None:
    posts = [Post("bad good bad", (0, 1, 2, 9, 10, 11)), Post("good good", ()), Post("bad bad", (0, 1, 2, 3, 4, 5, 6))]
    cut = Marked.of(posts)
    scores = np.array([0.62, 0.41, 0.62, 0.41, 0.3, 0.9, 0.62])
    assert threshold(cut, scores) == (0.45, 1.0), "of equally good ones the lowest"
    means = {level: float(np.mean(cut.f1(scores >= level))) for level in THRESHOLDS}
    assert threshold(cut, -scores)[1] == means[0.95] == pytest.approx(1 / 3), "marking nothing is right in one of three"


# --- the lexicon ----------------------------------------------------------------------------------------------


def test_a_lexicon_counts_how_often_a_word_was_toxic() -> None:
    known = [Post("Zog off", (0, 1, 2)), Post("a zog a", (2, 3, 4)), Post("the zog", ()), Post("a day off", ())]
    validation = [Post("ZOG", (0, 1, 2)), Post("off a day", ()), Post("new zog new", (4, 5, 6))]
    found = Lexicon.fitted(known, validation)
    assert found.scores([Post("zog day other", ())]).tolist() == [pytest.approx(2 / 3), 0.0, 0.0]
    assert found.f1(validation).tolist() == [1.0, 1.0, 1.0]
    assert found.level == THRESHOLDS[0]


# --- tokens of words ------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=3), st.data())
def test_pieces_hold_every_token_once_with_its_word(written: list[str], data: st.DataObject) -> None:
    posts = [marked_posts(data, text) for text in written]
    tokenizer = subwords(["ab ba a'b"], 300)
    cut = pieces(posts, tokenizer, 8)
    ids = [i for at in range(len(cut.rows)) for i in cut.rows.batch([at]).tokens[0].tolist()[1:-1]]
    assert ids == [i for post in posts for i in tokenizer.encode(post.text)]
    assert cut.rows.longest <= 8
    assert [len(word) for word in cut.word] == [cut.rows.batch([at]).tokens.shape[1] - 2 for at in range(len(cut.rows))]
    words = np.concatenate(cut.word)
    assert set(words[words >= 0].tolist()) == set(range(sum(len(words_of(post.text)) for post in posts)))
    targets = [cut.rows.batch([at]).targets for at in range(len(cut.rows))]
    slow = []
    for post in posts:
        for start, end in tokenizer.offsets(post.text)[1]:
            solid = [at for at in range(start, end) if not post.text[at].isspace()]
            slow.append(int(2 * sum(at in post.toxic for at in solid) >= max(1, len(solid))))
    assert [i for row in targets if row is not None for i in row[0, 1:-1].tolist()] == slow


class Known:
    """Knows the toxic tokens of the rows it is shown: logits +9 where a target says so, and -9 elsewhere."""

    def __init__(self, rule: Callable[[EncoderBatch], torch.Tensor]) -> None:
        self.rule = rule

    def run(self, batch: EncoderBatch) -> Any:
        toxic = self.rule(batch).float() * 18 - 9
        return SimpleNamespace(logits=torch.stack([torch.zeros_like(toxic), toxic], -1))


def test_word_scores_are_means_over_a_words_tokens() -> None:
    posts = [Post("ab zzzz", (3, 4, 5, 6)), Post("zz ab", (0, 1))]
    cut = pieces(posts, subwords(["ab " * 9], 300), 64)
    oracle: Any = Known(lambda batch: batch.targets == 1)
    assert word_scores(oracle, cut, 4) == pytest.approx([0, 1, 1, 0], abs=1e-3)
    first: Any = Known(lambda batch: torch.arange(batch.tokens.shape[1]).expand_as(batch.tokens) == 4)  # control, ' ab', blank, z, z …
    assert word_scores(first, pieces(posts[:1], subwords(["ab " * 9], 300), 64), 2) == pytest.approx([0, 0.25], abs=1e-3)


# --- the task -------------------------------------------------------------------------------------------------


def marks(count: int, seed: str, *, planted: bool) -> list[Post]:
    """Posts of eight words. Planted: *zog* is marked exactly after *very*, half of the times, so that no list of words can know. Null:
    marks are drawn without looking at the words."""
    out = []
    for number in range(count):
        draw = Draw("posts", seed, number)
        words = [draw.pick(("the", "day", "was", "good", "and", "long")) for _ in range(8)]
        at = 1 + draw.below(6)
        words[at - 1 : at + 1] = [draw.pick(("very", "not")), "zog"]
        marked = words[at - 1] == "very" if planted else draw.uniform() < 0.5
        start = len(" ".join(words[:at])) + 1 if planted else len(" ".join(words[: draw.below(7)]) + " ")
        out.append(Post(" ".join(words), tuple(range(start, start + 3)) if marked else ()))
    return out


def task(*, planted: bool) -> TaskData:
    return prepared({name: marks(n, name, planted=planted) for name, n in (("train", 400), ("validation", 80), ("test", 120))}, SPEC)


def found(data: TaskData, steps: int) -> dict[str, Measure]:
    config = {"n_layers": 1, "d_model": 32, "n_heads": 4, "init_std": 0.1, **data.shape}
    model = BERT(BERTConfig.parse(config), data.tokenizer, seed=1)
    spec = {"steps": steps, "batch_rows": 16, "lr": 5e-3, "warmup": 10, "threads": 1}
    train(model, data.train, TrainSpec.parse(spec))
    return {one.name: one for one in TASK.score(model.eval(), data)}


@pytest.mark.slow
def test_a_tagger_finds_what_only_the_neighbour_tells_and_a_lexicon_does_not() -> None:
    measures = found(task(planted=True), 120)
    assert measures["span F1"].value > 0.97
    assert measures["lexicon"].value < 0.65
    assert measures["above the lexicon"].low > 0.3
    assert measures["left unmarked"].value > 0.95


@pytest.mark.slow
def test_marks_that_no_word_tells_are_not_found() -> None:
    measures = found(task(planted=False), 60)
    assert measures["span F1 where something is marked"].value < 0.4
    assert measures["above the lexicon"].low <= 0.05


def test_the_measures_of_a_tagger_that_knows_are_one() -> None:
    data = task(planted=True)
    knows: Any = Known(lambda batch: batch.targets == 1)
    silent: Any = Known(lambda batch: batch.targets == IGNORE - 1)
    by = {one.name: one for one in score(knows, data)}
    assert by["span F1"].value == by["span F1 where something is marked"].value == by["left unmarked"].value == 1.0
    assert by["span F1"].count == 120
    assert by["span F1"].low < 1.0, "all right in 120 posts is no proof of all"
    bare = sum(not post.toxic for post in data.held_out.posts["test"])
    assert by["nothing marked"].value == pytest.approx(bare / 120)
    assert by["above the lexicon"].value == pytest.approx(1 - by["lexicon"].value)
    assert set(by) >= set(TASK.must)
    none = {one.name: one for one in score(silent, data)}
    assert none["span F1"].value == none["nothing marked"].value
    assert data.train.digest() == task(planted=True).train.digest()
    with pytest.raises(BadValue, match="at least one"):
        prepared({"train": data.held_out.posts["train"], "validation": [], "test": []}, SPEC)


@pytest.mark.slow
def test_the_real_posts_make_a_task_and_no_measure_quotes_one() -> None:
    if not sources.available(NAME):
        pytest.skip(str(MissingData(NAME, [])))
    posts = {name: part[:n] for (name, part), n in zip(splits().items(), (600, 100, 100), strict=True)}
    data = prepared(posts, ToxicSpansSpec.parse({"vocabulary": 600, "length": 64}))
    model = BERT(BERTConfig.parse({"n_layers": 1, "d_model": 8, "n_heads": 2, **data.shape}), data.tokenizer).eval()
    by = {one.name: one for one in TASK.score(model, data)}
    assert by["span F1"].count == 100
    assert by["above the lexicon"].high < 0, "an untrained tagger is below a list of words"
    assert by["nothing marked"].value == pytest.approx(sum(not post.toxic for post in posts["test"]) / 100)
    told = " ".join(map(str, by.values()))
    assert not any(word in told.split() for post in posts["test"] for start, end in runs(post.toxic) for word in [post.text[start:end]])
