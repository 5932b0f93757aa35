"""Tones spelled as text, for a listener that writes: character errors on strings that no training recording spells."""

from __future__ import annotations

from collections.abc import Sequence

from evals.task import Measure, Task, TaskData
from evals.transcripts import error_rate, exact, transcribed
from workbench.core.protocol import HookedModel
from workbench.data.worlds.tones import MEL, Tones, TonesSpec


def make(spec: TonesSpec, rows: int) -> TaskData:
    """The world's training and validation recordings; its test recordings are held out."""
    world = Tones(spec)
    shape = {"source": "mel", "n_mels": MEL.n_mels, "d_vocab": len(world.alphabet) + 2}
    return TaskData(world.rows("train"), world.rows("validation"), shape, held_out=world)


def score(model: HookedModel, data: TaskData) -> Sequence[Measure]:
    """The character error rate and the share of whole strings, on the test recordings."""
    world: Tones = data.held_out
    letters = len(world.alphabet)
    pairs = transcribed(model, world.rows("test"), begin=letters, end=letters + 1)
    return [error_rate("character errors", pairs, "letters of held-out strings"), exact("whole strings", pairs, "held-out recordings")]


TASK = Task("tones", "whisper", TonesSpec, make, score, must={"character errors": 0.02})
