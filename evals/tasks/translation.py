"""Sentences of a generated language to translate, for an encoder-decoder: exact match on held-out items that no training row holds."""

from __future__ import annotations

from collections.abc import Sequence

from evals.task import Measure, Task, TaskData
from evals.transcripts import exact, transcribed
from workbench.core.protocol import HookedModel
from workbench.data.worlds.translation import Translation, TranslationSpec


def make(spec: TranslationSpec, rows: int) -> TaskData:
    """The world's training and validation rows; its test rows are held out."""
    world = Translation(spec)
    train = world.rows("train")
    return TaskData(train, world.rows("validation"), {"d_vocab": train.words.size}, held_out=world.rows("test"))


def score(model: HookedModel, data: TaskData) -> Sequence[Measure]:
    """The share of held-out items written without a fault."""
    words = data.held_out.words
    pairs = transcribed(model, data.held_out, begin=words.begin, end=words.end)
    return [exact("exact match", pairs, "held-out items")]


TASK = Task("translation", "seq2seq", TranslationSpec, make, score, must={"exact match": 0.95})
