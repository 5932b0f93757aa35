"""Spoken digits, for a listener that writes: held-out recordings of known speakers, or of one the training never heard.

Data: the Free Spoken Digit Dataset (`workbench data list`), from the mirror or the cache.
"""

from __future__ import annotations

from collections.abc import Sequence

from evals.task import Measure, Task, TaskData
from evals.transcripts import exact, transcribed
from workbench.core.protocol import HookedModel
from workbench.core.spec import Spec
from workbench.data.corpora import BEGIN, DIGITS, by_recording, by_speaker, digit_rows, spoken_digits


class SpokenDigitsSpec(Spec):
    """``speaker`` is left out of training and tested; '' tests held-out recordings of every speaker (the authors' split)."""

    speaker: str = ""


def make(spec: SpokenDigitsSpec, rows: int) -> TaskData:
    """Recordings as log-mel frames; the decoder says one token, the digit."""
    recordings = spoken_digits()
    split = by_speaker(recordings, spec.speaker) if spec.speaker else by_recording(recordings)
    train, test = digit_rows(split["train"]), digit_rows(split["test"])
    shape = {"source": "mel", "n_mels": DIGITS.n_mels, "d_vocab": BEGIN + 1, "n_ctx": 1}
    return TaskData(train, test, shape, held_out=(spec.speaker, test))


def score(model: HookedModel, data: TaskData) -> Sequence[Measure]:
    """The share of held-out recordings whose digit is said."""
    speaker, rows = data.held_out
    pairs = transcribed(model, rows, begin=BEGIN, end=None)
    words = f"recordings of {speaker}, who is not in the training" if speaker else "held-out recordings of known speakers"
    return [exact("accuracy", pairs, words)]


TASK = Task("spoken-digits", "whisper", SpokenDigitsSpec, make, score, must={"accuracy": 0.98})
