"""Masked tokens and few labels: what is hidden, what counts of neighbours say of it, and measures that tell a good model from a bad."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evals.finetune import Budget, classifier, fit, fitted, right
from evals.infill import NAMES, REACH, WINDOWS, Infill, Window, around
from evals.ngram import KneserNey, discounts
from evals.task import Measure, TaskData
from evals.tasks.few_labels import CLASSES, FewLabelsSpec, Labelled
from evals.tasks.few_labels import make as make_few
from evals.tasks.few_labels import score as score_few
from evals.tasks.masked_tokens import AGAIN, MaskedTokensSpec, hidden, make, said_again, score
from workbench.core.batch import IGNORE, EncoderBatch
from workbench.core.errors import BadValue
from workbench.data.whole_words import whole_words
from workbench.data.worlds.town import Town
from workbench.data.worlds.town_words import class_of
from workbench.families.bert import BERT, BERTConfig

VOCAB = 5
rows = st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=12).map(np.array), min_size=1, max_size=5)
neighbours = st.lists(st.integers(-1, VOCAB), min_size=REACH, max_size=REACH)
WORLD = {"documents": 300, "held_out": 40, "request_share": 0.6, "pronoun_share": 0.3, "code_share": 0, "secrets": []}


# --- counts ---------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(rows, st.integers(1, 5), st.lists(st.integers(0, VOCAB - 1), min_size=4, max_size=4), st.integers(0, 4))
def test_all_symbols_at_once_are_the_distribution_of_each(texts: Any, order: int, context: list[int], marks: int) -> None:
    model = KneserNey(texts, order=order, vocab=VOCAB)
    whole = [VOCAB] * marks + context[marks:]
    found = model.distributions(np.array([whole[5 - order :], context[5 - order :]]).reshape(2, order - 1))
    for row, known in zip(found, (context[marks:] if marks else context, context), strict=True):
        short = known[max(0, len(known) - order + 1) :]
        if marks and len(known) < order - 1:
            assert row == pytest.approx(model.distribution(known), abs=1e-12)
        else:
            assert row == pytest.approx(model.distribution(short), abs=1e-12)
    assert found.sum(1) == pytest.approx(1.0, abs=1e-12)


def test_what_lies_beyond_an_unknown_symbol_is_not_used() -> None:
    model = KneserNey([np.array([0, 1, 2, 3, 0, 1, 2, 4, 1, 2, 3])], order=4, vocab=VOCAB)
    table = model.distributions(np.array([[0, -1, 2], [4, -1, 2], [3, -1, 2], [0, 1, 2]]))
    assert np.array_equal(table[0], table[1])
    assert np.array_equal(table[0], table[2])
    assert not np.allclose(table[0], table[3])
    with pytest.raises(BadValue, match="at most 5"):
        model.distributions(np.array([[0, 1, 6]]))
    with pytest.raises(BadValue, match=r"\[n, 3\]"):
        model.distributions(np.array([[0, 1]]))


def slow_window(texts: list[Any], left: list[int], right: list[int]) -> list[float]:
    """Absolute discounting as it is written, one window after the other."""
    below = [1 / VOCAB] * VOCAB
    line = [*left, None, *right]
    for offsets in WINDOWS:
        counts: Counter[tuple[int, ...]] = Counter()
        for text in texts:
            marked = [VOCAB] * REACH + text.tolist() + [VOCAB] * REACH
            for at in range(REACH, len(marked) - REACH):
                counts[*(marked[at + o] for o in offsets), marked[at]] += 1
        steps = (0.0, *discounts(np.array(list(counts.values()), dtype=float)))
        here = tuple(line[REACH + o] for o in offsets)
        each = [counts.get((*here, token), 0) for token in range(VOCAB)]
        if -1 in here or sum(each) == 0:
            continue
        freed = sum(steps[min(c, 3)] for c in each)
        below = [(c - steps[min(c, 3)] + freed * b) / sum(each) for c, b in zip(each, below, strict=True)]
    return below


@settings(max_examples=30, deadline=None)
@given(rows, neighbours, neighbours)
def test_a_window_counts_as_it_is_written(texts: Any, left: list[int], right: list[int]) -> None:
    found = Window(texts, VOCAB).distributions(np.array([left]), np.array([right]))[0]
    assert found == pytest.approx(slow_window(texts, left, right), abs=1e-12)
    assert math.isclose(found.sum(), 1.0, abs_tol=1e-12)


def test_each_guess_reads_its_side() -> None:
    """0 or 1 is followed by itself after a 2; what stands around is noise."""
    draw = np.random.default_rng(0)
    before = [np.array([4, 4, bit, 2, bit, *draw.integers(3, 5, 3)]) for bit in draw.integers(0, 2, 200)]
    left, right = around(np.array([4, 4, 1, 2, 1, 3, 4, 3]), np.array([4]), VOCAB)
    told = Infill(before, VOCAB).guesses(left, right)
    assert set(told) == set(NAMES)
    assert told["left"].tolist() == told["left and right"].tolist() == told["window"].tolist() == [1]
    mirrored = Infill([row[::-1] for row in before], VOCAB).guesses(right[:, ::-1], left[:, ::-1])
    assert mirrored["right"].tolist() == mirrored["left and right"].tolist() == [1]
    assert left.tolist() == [[4, 4, 1, 2]]
    assert right.tolist() == [[3, 4, 3, VOCAB]]
    with pytest.raises(BadValue, match="both"):
        Infill(before, VOCAB).guesses(left[:, :2], right)


def test_a_vocabulary_too_large_for_its_keys_is_refused() -> None:
    with pytest.raises(BadValue, match="63 bits"):
        Window([np.array([0])], 1_000_000)


# --- masked tokens --------------------------------------------------------------------------------------------


@lru_cache
def drawn() -> TaskData:
    """A small town's masked tokens."""
    return make(MaskedTokensSpec.parse({"world": WORLD}), 40)


class Oracle:
    """Names every hidden token of the held-out rows, but for one in ``wrong``; without, all of them."""

    def __init__(self, rows: list[Any], vocab: int, mask: int, wrong: int = 0) -> None:
        self.truth = {tuple(shown): whole for shown, _, whole in rows}
        self.vocab, self.mask, self.wrong, self.asked = vocab, mask, wrong, 0

    def run(self, batch: EncoderBatch) -> Any:
        logits = torch.zeros(*batch.tokens.shape, self.vocab)
        for i, ids in enumerate(batch.tokens.tolist()):
            width = len(ids) if batch.mask is None else int(batch.mask[i].sum())
            for at, truth in enumerate(self.truth[tuple(ids[:width])]):
                self.asked += ids[at] == self.mask
                slip = self.wrong and ids[at] == self.mask and self.asked % self.wrong == 0
                logits[i, at, 0 if slip else int(truth)] = 1.0
        return SimpleNamespace(logits=logits)


def by_name(measures: Any) -> dict[str, Measure]:
    return {one.name: one for one in measures}


def test_a_model_that_knows_all_is_above_every_count_and_an_untrained_one_below() -> None:
    data = drawn()
    held = data.held_out
    whole = [(*held.rows.masked(i), held.rows.whole(i)) for i in range(len(held.rows))]
    oracle: Any = Oracle([*whole, *said_again(held)], held.tokenizer.vocab_size, held.tokenizer.mask_id)
    found = by_name(score(oracle, data))
    assert found["masked accuracy"].value == found["said again"].value == 1.0
    for name in ("above the best n-gram", "above the best n-gram, told", "said again, above the best n-gram"):
        best = found[name.replace("above the ", "")]
        assert found[name].value == pytest.approx(1 - best.value)
        assert found[name].low > 0
    assert found["best n-gram"].value <= found["best n-gram, told"].value + 0.05
    half: Any = Oracle(whole, held.tokenizer.vocab_size, held.tokenizer.mask_id, wrong=2)
    assert (hidden(half, whole, held.tokenizer).guess == hidden(oracle, whole, held.tokenizer).guess).mean() == pytest.approx(0.5, abs=0.02)
    model = BERT(BERTConfig.parse({"n_layers": 1, "d_model": 8, "n_heads": 2, **data.shape}), data.tokenizer).eval()
    found = by_name(score(model, data))
    assert found["above the best n-gram"].high < 0


def test_hidden_neighbours_are_unknown_unless_told() -> None:
    held = drawn().held_out
    whole = [(*held.rows.masked(i), held.rows.whole(i)) for i in range(len(held.rows))]
    oracle: Any = Oracle(whole, held.tokenizer.vocab_size, held.tokenizer.mask_id)
    found = hidden(oracle, whole, held.tokenizer)
    assert (found.shown[0] == -1).any()
    for shown, told in zip(found.shown, found.told, strict=True):
        assert (told >= 0).all()
        assert not (shown == held.tokenizer.mask_id).any()
    shown, _, row = whole[0]
    at = int(np.flatnonzero(shown == held.tokenizer.mask_id)[0])
    assert found.truth[0] == row[at]
    assert found.told[1][0, 0] == row[at + 1]
    assert found.told[0][0, -1] == row[at - 1]


def test_words_said_again_stand_alone_under_their_mask() -> None:
    held = drawn().held_out
    found = said_again(held)
    known = set(held.tokenizer.pieces(range(held.tokenizer.vocab_size)))
    slots = [
        word for one in held.town.documents(split="test") for word in one.words if word.slot in AGAIN and class_of(word.text) != "function"
    ]
    assert len(found) == len(slots) > 20
    for (shown, targets, whole), word in zip(found, slots, strict=True):
        assert (shown != whole).sum() == (targets != IGNORE).sum() == (shown == held.tokenizer.mask_id).sum() == 1
        assert held.tokenizer.pieces(targets[targets != IGNORE].tolist()) == [word.text if word.text in known else "[UNK]"]


# --- few labels -----------------------------------------------------------------------------------------------


@lru_cache
def few() -> TaskData:
    """A small town's labelled sentences."""
    return make_few(FewLabelsSpec.parse({"world": WORLD, "labels": 32, "chosen_on": 24, "tested_on": 40, "passes": 8}), 40)


def test_labelled_sentences_hide_the_word_whose_class_is_asked() -> None:
    held = few().held_out
    tokenizer = whole_words(Town(held.spec.world).texts())
    for part, split in ((held.train, "train"), (held.validation, "validation"), (held.test, "test")):
        assert len(part.templates) == len(part.batch.tokens)
        hiding = part.batch.tokens == tokenizer.mask_id
        assert torch.equal(hiding, part.batch.targets != IGNORE), split
        assert hiding.sum(1).tolist() == [1] * len(part.templates)
        assert len(set(part.batch.targets[hiding].tolist())) > 4
    texts = [tokenizer.decode(row) for row in held.train.batch.tokens.tolist()]
    assert not set(texts) & {tokenizer.decode(row) for row in held.test.batch.tokens.tolist()}
    with pytest.raises(BadValue, match="at most 40"):
        make_few(FewLabelsSpec.parse({"world": WORLD, "tested_on": 41}), 4)


def tuned_by(model: Any) -> list[Measure]:
    return list(score_few(model, few()))


def encoder(seed: int = 0) -> BERT:
    return BERT(BERTConfig.parse({"n_layers": 1, "d_model": 16, "n_heads": 2, "init_std": 0.2, **few().shape}), few().tokenizer, seed=seed)


def knowing(model: BERT) -> BERT:
    """The encoder with one vector for all words of a class: what is to be known of the words around, before any training."""
    tokenizer = few().tokenizer
    assert tokenizer is not None
    with torch.no_grad():
        for i, piece in enumerate(tokenizer.pieces(range(tokenizer.vocab_size))):
            model.embed.token.weight[i] = 2.0 * torch.eye(16)[CLASSES.index(kind)] if (kind := class_of(piece)) in CLASSES else 0.0
    return model


def test_nothing_is_changed_and_the_same_model_gives_the_same_measures() -> None:
    model = encoder().eval()
    before = model.digest()
    first, second = tuned_by(model), tuned_by(model)
    assert first == second
    assert model.digest() == before
    assert [one.name for one in first] == ["fine-tuned accuracy", "accuracy from scratch", "gain of pretraining"]
    assert first[2].value == pytest.approx(first[0].value - first[1].value)


def test_an_encoder_without_training_gains_nothing() -> None:
    found = tuned_by(encoder().eval())
    assert found[2].low < 0 < found[2].high or abs(found[2].value) < 0.15


def shown(part: Labelled) -> Labelled:
    """The sentences with a word of the class in the hidden one's place."""
    tokenizer = few().tokenizer
    assert tokenizer is not None
    assert part.batch.targets is not None
    words = [
        [i for i, piece in enumerate(tokenizer.pieces(range(tokenizer.vocab_size))) if class_of(piece) == kind and i > 4]
        for kind in CLASSES
    ]
    tokens, at = part.batch.tokens.clone(), part.batch.targets != IGNORE
    draw = np.random.default_rng(0)
    tokens[at] = torch.tensor([int(draw.choice(words[kind])) for kind in part.batch.targets[at].tolist()])
    return replace(part, batch=replace(part.batch, tokens=tokens))


def test_an_encoder_that_knows_what_is_asked_gains() -> None:
    """Every word shown, and all words of a class alike to the encoder: fresh weights must learn each word by itself."""
    held = few().held_out
    spec = held.spec.model_copy(update={"passes": 40})
    easy = replace(held, spec=spec, train=shown(held.train), validation=shown(held.validation), test=shown(held.test))
    tuned, scratch, gain = score_few(knowing(encoder()).eval(), replace(few(), held_out=easy))
    assert tuned.value > 0.8
    assert scratch.value < 0.7
    assert gain.low > 0.1


def test_a_classifier_takes_the_encoder_and_none_of_its_head() -> None:
    model = encoder()
    tuned, scratch = (classifier(model, CLASSES, seed=3, pretrained=pretrained) for pretrained in (True, False))
    other = classifier(encoder(1), CLASSES, seed=3, pretrained=False)
    for name, value in tuned.state_dict().items():
        taken = name.split(".")[0] != "unembed"
        assert torch.equal(value, (model if taken else scratch).state_dict()[name]), name
        assert torch.equal(scratch.state_dict()[name], other.state_dict()[name])
    assert tuned.config.classes == CLASSES


def test_fine_tuning_takes_the_rate_that_is_best_on_validation() -> None:
    held = few().held_out
    start = classifier(knowing(encoder()), CLASSES, seed=0, pretrained=True)
    untouched = start.digest()
    best = fitted(start, held.train.batch, held.validation.batch, (1e-9, 1e-2), Budget(8, 16), 0)
    assert best.rate == 1e-2
    assert start.digest() == untouched
    again = fit(classifier(knowing(encoder()), CLASSES, seed=0, pretrained=True), held.train.batch, 1e-2, Budget(8, 16), 0)
    assert again.digest() == best.model.digest()
    share: Tensor = right(best.model, held.validation.batch)
    assert best.validation == share.double().mean()
    with pytest.raises(BadValue, match="at least one step of 16 rows"):
        fit(start, held.train.batch.rows(range(4)), 1e-2, Budget(1, 16), 0)
    with pytest.raises(BadValue, match="at least one"):
        fitted(start, held.train.batch, held.validation.batch, (), Budget(8, 16), 0)
