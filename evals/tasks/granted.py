"""Whether a request of the town was granted, for an encoder that classifies texts, beside a bag of words that by construction cannot tell.

Documents come in mirrored twos with the same words and opposite labels, so a classifier that counts words is right in exactly half of
them; one that also counts neighbouring pairs of words has little more to go by. With ``shuffled`` labels nobody can tell. For the
model the words of the story that the question repeats are marked (``data.two_texts``), the same ones in both of a mirrored two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from evals.bags import Bags
from evals.task import Measure, Task, TaskData
from workbench.core.protocol import HookedModel
from workbench.core.stats.resampling import paired_bootstrap
from workbench.data.labelled import LabelledRows
from workbench.data.pretrained import PretrainedTokenizer
from workbench.data.two_texts import TYPES, question_and_text
from workbench.data.whole_words import whole_words
from workbench.data.worlds.town_grants import CLASSES, Grant, Grants, GrantsSpec

ROWS = 250
"""Rows that are classified at once."""
COUNTED = 4000
"""The most training documents whose words are counted."""


class GrantedSpec(GrantsSpec):
    """The documents; ``marked``: whether words that the question repeats are."""

    marked: bool = True


@dataclass(frozen=True)
class HeldOut:
    """The documents of each split that the score reads, and the test's as rows."""

    train: Sequence[Grant]
    validation: Sequence[Grant]
    test: Sequence[Grant]
    rows: LabelledRows
    tokenizer: PretrainedTokenizer


def make(spec: GrantedSpec, rows: int) -> TaskData:
    """The documents of each split; the vocabulary is the training documents'."""
    world = Grants(spec)
    train, validation, test = (world.documents(split) for split in ("train", "validation", "test"))
    tokenizer = whole_words([text for one in train for text in (one.question, one.story)])
    parts = [rows_of(documents, tokenizer, marked=spec.marked) for documents in (train, validation, test)]
    shape = {
        "d_vocab": tokenizer.vocab_size, "n_ctx": max(part.longest for part in parts), "n_types": TYPES, "head": "sequence",
        "classes": list(CLASSES),
    }  # fmt: skip
    return TaskData(parts[0], parts[1], shape, tokenizer, HeldOut(train[:COUNTED], validation, test, parts[2], tokenizer))


def rows_of(documents: Sequence[Grant], tokenizer: PretrainedTokenizer, *, marked: bool) -> LabelledRows:
    """A question and its story a row; the target is the label."""
    framed = [question_and_text(tokenizer, one.question, one.story, marked=marked) for one in documents]
    labels = [one.label for one in documents]
    ids, types = [row for row, _ in framed], [kinds for _, kinds in framed]
    return LabelledRows("sequence", ids, labels, pad=tokenizer.roles["pad"], types=types)


def classified(model: HookedModel, rows: LabelledRows) -> NDArray[np.int64]:
    """The likeliest class of each row."""
    parts = []
    for at in range(0, len(rows), ROWS):
        with torch.no_grad():
            logits = model.run(rows.batch(range(at, min(at + ROWS, len(rows))))).logits
        assert logits is not None, "a classifier has logits"
        parts.append(logits.argmax(-1).numpy())
    return np.concatenate(parts)


def score(model: HookedModel, data: TaskData) -> Sequence[Measure]:
    """Accuracy on test documents, of the model and of both bags, and how much more often the model is right than the better of these, with
    an interval over mirrored twos."""
    held: HeldOut = data.held_out
    truth = np.array([one.label for one in held.test])
    right = classified(model, held.rows) == truth
    words = "held-out documents, in mirrored twos"
    out = [Measure.share("accuracy", int(right.sum()), len(right), words)]
    texts = [[held.tokenizer.encode(f"{one.question} {one.story}") for one in part] for part in (held.train, held.validation, held.test)]
    known = ([one.label for one in held.train], [one.label for one in held.validation])
    best: NDArray[np.bool_] | None = None
    for name, neighbours in (("bag of words", False), ("bag of words and pairs", True)):
        bags = Bags.fitted(texts[0], known[0], texts[1], known[1], neighbours=neighbours)
        hits = bags.guesses(texts[2]) == truth
        out.append(Measure.share(name, int(hits.sum()), len(hits), words))
        best = hits if best is None or hits.sum() > best.sum() else best
    assert best is not None, "there are two bags"
    gain = paired_bootstrap(right, best, clusters=[one.pair for one in held.test], bounds=(-1.0, 1.0))
    return [*out, Measure("above the better bag", gain.value, gain.interval.low, gain.interval.high, gain.n, words)]


TASK = Task("granted", "bert", GrantedSpec, make, score, must={"above the better bag": 0.4})
