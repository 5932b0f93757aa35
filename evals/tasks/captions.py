"""Coloured shapes to be captioned: patches instead of mel frames, and a decoder that writes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from evals.task import Measure, Task, TaskData
from evals.transcripts import exact, transcribed
from workbench.core.batch import SequenceBatch
from workbench.core.protocol import HookedModel
from workbench.data.worlds.shapes import WORDS, ShapeRows, Shapes, ShapesSpec


class CaptionRows:
    """Pictures as the source, their captions as what is written (a ``RowData`` of ``SequenceBatch``)."""

    def __init__(self, rows: ShapeRows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Sequence[int]) -> SequenceBatch:
        """The rows ``indices``: captions without their end are read, without their begin predicted."""
        found = self.rows.batch(indices)
        return SequenceBatch(found.pixels, found.tokens[:, :-1].contiguous(), found.tokens[:, 1:].contiguous())

    def digest(self) -> str:
        """sha256 (hex) over pictures and captions."""
        return self.rows.digest()


def make(spec: ShapesSpec, rows: int) -> TaskData:
    """The world's training and validation pictures; its test and its unseen pairs are held out."""
    world = Shapes(spec)
    train = CaptionRows(world.rows("train"))
    shape = {
        "source": "pixels", "image_size": spec.size, "channels": 3, "d_vocab": WORDS.size, "n_ctx": train.batch([0]).tokens.shape[1],
    }  # fmt: skip
    return TaskData(train, CaptionRows(world.rows("validation")), shape, held_out=world)


def score(model: HookedModel, data: TaskData) -> Sequence[Measure]:
    """The share of captions written without a fault, for pairs trained on and for those that were not."""
    world: Shapes = data.held_out
    with torch.no_grad():
        out = [_exact(model, world.rows("test"), "exact captions", "held-out pictures of pairs trained on")]
        if world.unseen:
            out.append(_exact(model, world.rows("unseen"), "unseen pairs", "pictures of pairs never trained on"))
    return out


def _exact(model: HookedModel, rows: ShapeRows, name: str, words: str) -> Measure:
    return exact(name, transcribed(model, CaptionRows(rows), begin=WORDS.begin, end=WORDS.end), words)


TASK = Task("captions", "whisper", ShapesSpec, make, score, must={"exact captions": 0.95})
