"""Coloured shapes with captions, for a contrastive pair of towers: which caption fits a picture, also for pairs never trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from evals.task import Measure, Task, TaskData
from workbench.core.batch import PairBatch
from workbench.core.protocol import HookedModel
from workbench.data.worlds.shapes import COLOURS, PAIRS, WORDS, Shapes, ShapesSpec, Split, caption_of, tokens_of


def make(spec: ShapesSpec, rows: int) -> TaskData:
    """The world's training and validation pictures; its test and its unseen pairs are held out."""
    world = Shapes(spec)
    captions = tokens_of([caption_of(*PAIRS[0])])
    shape = {
        "d_vocab": WORDS.size, "n_ctx": captions.shape[1], "eos_id": WORDS.end, "height": spec.size, "width": spec.size, "channels": 3,
    }  # fmt: skip
    return TaskData(world.rows("train"), world.rows("validation"), shape, held_out=world)


def score(model: HookedModel, data: TaskData) -> Sequence[Measure]:
    """Zero-shot: the share of pictures whose likeliest of all 16 captions is theirs, for seen and unseen pairs, and of unseen pairs whose
    colour is right. Retrieval: for each seen caption, whether the likeliest of all test pictures is one of that caption."""
    world: Shapes = data.held_out
    logits = _logits(model, world, "test")
    right = logits.argmax(1) == _classes(world, "test")
    out = [Measure.share("seen pairs", int(right.sum()), len(right), "held-out pictures of pairs trained on")]
    seen = [PAIRS.index(pair) for pair in world.seen]
    found = _classes(world, "test")[logits[:, seen].argmax(0)] == torch.tensor(seen)
    out.append(Measure.share("retrieval", int(found.sum()), len(seen), "captions; any picture of the caption counts"))
    if world.unseen:
        chosen, truth = _logits(model, world, "unseen").argmax(1), _classes(world, "unseen")
        words = "pictures of pairs never trained on"
        out.append(Measure.share("unseen pairs", int((chosen == truth).sum()), len(truth), words))
        colour = chosen // len(COLOURS) == truth // len(COLOURS)
        out.append(Measure.share("unseen pairs, colour", int(colour.sum()), len(truth), words))
    return out


def _logits(model: HookedModel, world: Shapes, split: Split) -> torch.Tensor:
    """Every picture of a split against all 16 captions ``[picture, caption]``."""
    rows = world.rows(split)
    pictures = rows.batch(range(len(rows))).pixels
    found = model.run(PairBatch(pictures, tokens_of([caption_of(*pair) for pair in PAIRS]))).logits
    assert found is not None
    return found


def _classes(world: Shapes, split: Split) -> torch.Tensor:
    return torch.tensor([PAIRS.index(world.pair(i, split)) for i in range(world.size(split))])


TASK = Task("shapes", "clip", ShapesSpec, make, score, must={"seen pairs": 0.995})
