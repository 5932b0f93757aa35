"""Coloured shapes painted to order, code by code: pictures as rows of codes behind their caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from evals.judge import Judge, asked, copied
from evals.task import Measure, Task, TaskData
from workbench.core.protocol import HookedModel
from workbench.data.worlds.shapes import PAIRS, WORDS, Shapes, ShapesSpec, caption_of, tokens_of

TEMPERATURE = 0.5
SEED = 0


def make(spec: ShapesSpec, rows: int) -> TaskData:
    """The world's training and validation pictures with captions; what is held out is the world."""
    world = Shapes(spec)
    length = tokens_of([caption_of(*PAIRS[0])]).shape[1]
    shape = {"d_vocab_text": WORDS.size, "n_text": length, "height": spec.size, "width": spec.size, "channels": 3}
    return TaskData(world.rows("train"), world.rows("validation"), shape, held_out=world)


def score(model: HookedModel, data: TaskData) -> Sequence[Measure]:
    """The share of painted pictures whose colour and shape are those asked for, of pairs trained on and of the others; the judge's own
    share right on pictures coded and decoded; and near copies of training pictures."""
    world: Shapes = data.held_out
    painter: Any = model
    judge, train = Judge.of(world.spec), world.labelled("train")
    test = world.labelled("test").batch(range(world.size("test")))
    out, painted = [], None
    for unseen in (False, True) if world.unseen else (False,):
        pairs = asked(world, world.spec.held_out, unseen=unseen)
        pictures = painter.paint(tokens_of([caption_of(*pair) for pair in pairs]), temperature=TEMPERATURE, seed=SEED)
        painted = pictures if painted is None else painted
        right = int((judge.classes(pictures) == torch.tensor([PAIRS.index(pair) for pair in pairs])).sum())
        words = f"pictures of pairs {'never trained on' if unseen else 'trained on'}, painted at temperature {TEMPERATURE:g}"
        out.append(judge.share("unseen pairs" if unseen else "seen pairs", right, len(pairs), words))
    with torch.no_grad():
        again = painter.coder.decode(painter.coder.encode(test.pixels))
    kept = int((judge.classes(again) == test.targets).sum())
    out.append(judge.share("kept by the codes", kept, len(again), "real held-out pictures, coded and decoded"))
    assert painted is not None, "seen pairs are always painted"
    return [*out, copied(painted, train.batch(range(len(train))).pixels, test.pixels)]


TASK = Task("painting", "dalle", ShapesSpec, make, score, must={"seen pairs": 0.9})
