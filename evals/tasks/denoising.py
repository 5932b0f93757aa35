"""Coloured shapes painted to order, out of noise: a base model's small pictures, or an upsampling stage's larger ones from small ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from evals.judge import Judge, asked, copied
from evals.task import Measure, Task, TaskData
from workbench.core.protocol import HookedModel
from workbench.data.worlds.shapes import PAIRS, WORDS, Shapes, ShapesSpec, caption_of, tokens_of

GUIDANCE = 2.0
CURVE = (0.0, 1.0, 3.0, 5.0)
"""Guidances beside the one that counts; 0 is told nothing, 1 is the text's own prediction."""
SEED = 0


def make(spec: ShapesSpec, rows: int) -> TaskData:
    """The world's training and validation pictures with captions; what is held out is the world."""
    world = Shapes(spec)
    length = tokens_of([caption_of(*PAIRS[0])]).shape[1]
    shape = {"d_vocab": WORDS.size, "n_ctx": length, "height": spec.size, "width": spec.size, "channels": 3}
    return TaskData(world.rows("train"), world.rows("validation"), shape, held_out=world)


def score(model: HookedModel, data: TaskData) -> Sequence[Measure]:
    """The share of painted pictures whose colour and shape are those asked for: pairs trained on, the others, and the first at other
    guidances; and near copies of training pictures. An upsampling stage is given the small images of real held-out pictures."""
    world: Shapes = data.held_out
    judge = Judge.of(world.spec)
    by_guidance = {guidance: _painted(model, world, guidance, unseen=False) for guidance in (GUIDANCE, *CURVE)}
    out = [_share(judge, by_guidance[GUIDANCE], "seen pairs", f"pictures of pairs trained on, guidance {GUIDANCE:g}")]
    if world.unseen:
        pictures = _painted(model, world, GUIDANCE, unseen=True)
        out.append(_share(judge, pictures, "unseen pairs", f"pictures of pairs never trained on, guidance {GUIDANCE:g}"))
    for guidance in CURVE:
        out.append(_share(judge, by_guidance[guidance], f"seen pairs, guidance {guidance:g}", "pictures of pairs trained on"))
    train, test = (world.labelled(split) for split in ("train", "test"))
    return [*out, copied(by_guidance[GUIDANCE][0], *(rows.batch(range(len(rows))).pixels for rows in (train, test)))]


def _share(judge: Judge, painted: tuple[torch.Tensor, torch.Tensor], name: str, words: str) -> Measure:
    pictures, classes = painted
    return judge.share(name, int((judge.classes(pictures) == classes).sum()), len(classes), words)


def _painted(model: HookedModel, world: Shapes, guidance: float, *, unseen: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures and the class asked of each; an upsampling stage's are of the real held-out pictures' own classes."""
    painter: Any = model
    by = painter.config.upsamples
    if by == 1:
        pairs = asked(world, world.spec.held_out, unseen=unseen)
        low = None
    else:
        real = world.labelled("unseen" if unseen else "test")
        batch = real.batch(range(len(real)))
        assert batch.targets is not None, "labelled pictures have classes"
        pairs, low = [PAIRS[int(one)] for one in batch.targets], functional.avg_pool2d(batch.pixels, by)
    tokens = tokens_of([caption_of(*pair) for pair in pairs])
    return painter.paint(tokens, low=low, guidance=guidance, seed=SEED), torch.tensor([PAIRS.index(pair) for pair in pairs])


TASK = Task("denoising", "imagen", ShapesSpec, make, score, must={"seen pairs": 0.9})
