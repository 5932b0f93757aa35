"""Finding a picture by its caption and a caption by its picture, for a contrastive pair of towers.

Captions say size, colour, shape and place, 128 in all, so that several pictures have the same one: any picture of the caption asked for
counts. Recall at 1 stands beside what a random ranking reaches. Some pairs of colour and shape are never trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from evals.task import Measure, Task, TaskData
from workbench.core.batch import PairBatch
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel
from workbench.data.worlds.placed_shapes import CAPTIONS, WORDS, placed_rows
from workbench.data.worlds.shapes import ShapeRows, Shapes, ShapesSpec, tokens_of

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]


class RetrievalSpec(ShapesSpec):
    """The pictures: those of the world of shapes, somewhat larger, with smaller shapes, so that there are places to lie in."""

    rows: int = 12_000
    held_out: int = 960
    size: int = 20
    least: float = 0.15
    most: float = 0.3


@dataclass(frozen=True)
class HeldOut:
    """Test pictures, and those of pairs of colour and shape that are never trained on (None: all are)."""

    test: ShapeRows
    unseen: ShapeRows | None


def make(spec: RetrievalSpec, rows: int) -> TaskData:
    """Pictures with their captions in the splits of the world."""
    world = Shapes(spec)
    shape = {
        "d_vocab": WORDS.size, "n_ctx": tokens_of(CAPTIONS[:1], WORDS).shape[1], "eos_id": WORDS.end,
        "height": spec.size, "width": spec.size, "channels": 3,
    }  # fmt: skip
    held = HeldOut(placed_rows(world, "test"), placed_rows(world, "unseen") if world.unseen else None)
    return TaskData(placed_rows(world, "train"), placed_rows(world, "validation"), shape, held_out=held)


def to_pictures(scores: Floats, owners: Ints, queries: Sequence[int]) -> list[bool]:
    """For each caption of ``queries`` whether the picture of the highest score has it. ``scores`` ``[picture, caption]``; ``owners``
    ``[picture]`` is the caption of each. A tie counts as a hit only where all pictures of the highest score have the caption."""
    _checked(scores, owners)
    return [bool((owners[scores[:, query] == scores[:, query].max()] == query).all()) for query in queries]


def to_captions(scores: Floats, owners: Ints) -> list[bool]:
    """For each picture whether its caption alone has the highest score."""
    _checked(scores, owners)
    own = scores[np.arange(len(owners)), owners]
    return [bool(mine == row.max() and (row == mine).sum() == 1) for mine, row in zip(own, scores, strict=True)]


def chance_of_pictures(owners: Ints, queries: Sequence[int]) -> float:
    """The share of queries that a random ranking of the pictures answers: the mean share of pictures that have the caption."""
    return float(np.mean([(owners == query).mean() for query in queries]))


def _checked(scores: Floats, owners: Ints) -> None:
    if scores.ndim != 2 or owners.shape != scores.shape[:1] or not np.isfinite(scores).all():
        raise BadValue("the scores", scores.shape, f"finite, a row for each of {len(owners)} pictures")
    if owners.min() < 0 or owners.max() >= scores.shape[1]:
        raise BadValue("the captions of the pictures", (int(owners.min()), int(owners.max())), f"within 0 to {scores.shape[1] - 1}")


def score(model: HookedModel, data: TaskData) -> Sequence[Measure]:
    """Recall at 1 in both directions on test pictures, against all captions, each beside its chance; and the same among pictures of pairs
    that were never trained on."""
    held: HeldOut = data.held_out
    out = _both(model, held.test, "", "test pictures")
    return out + (_both(model, held.unseen, ", unseen pairs", "pictures of pairs never trained on") if held.unseen is not None else [])


def _both(model: HookedModel, rows: ShapeRows, name: str, words: str) -> list[Measure]:
    with torch.no_grad():
        logits = model.run(PairBatch(rows.batch(range(len(rows))).pixels, tokens_of(CAPTIONS, WORDS))).logits
    assert logits is not None, "a pair of towers has logits"
    scores, owners = logits.double().numpy(), np.array([CAPTIONS.index(caption) for caption in rows.captions])
    queries = sorted(set(owners.tolist()))
    pictures, captions = to_pictures(scores, owners, queries), to_captions(scores, owners)
    asked = f"captions, each of any of {len(rows)} {words}"
    chances = (chance_of_pictures(owners, queries), 1 / len(CAPTIONS))
    return [
        Measure.share(f"caption to picture{name}", sum(pictures), len(pictures), asked),
        Measure(f"chance, caption to picture{name}", chances[0], chances[0], chances[0], len(pictures), f"{asked}; exact"),
        Measure.share(f"picture to caption{name}", sum(captions), len(captions), f"{words}, each among {len(CAPTIONS)} captions"),
        Measure(f"chance, picture to caption{name}", chances[1], chances[1], chances[1], len(captions), f"{words}; exact"),
    ]


TASK = Task("retrieval", "clip", RetrievalSpec, make, score, must={"caption to picture": 0.88, "picture to caption": 0.82})
