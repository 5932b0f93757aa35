"""The tones: a world of short recordings that spell strings, so that what a listening model should write is known exactly.

Each letter of an alphabet is one tone, or a pair of a low and a high one (as on a telephone's keys: letters share their parts). A
recording plays 3 to 6 letters with pauses, each tone a little off its pitch and its length, under noise. It depends on (spec, split,
index) alone. A string belongs to one split for good, whatever the seed, so held-out strings never occur in training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from workbench.core.errors import BadValue, UnknownName
from workbench.core.spec import Spec
from workbench.data.audio import AudioRows, MelSpec, spelled
from workbench.data.counter import Draw, gaussian, key_of

Split = Literal["train", "validation", "test"]
RATE = 8_000
ALPHABET = "abcdefghijklmnop"
LOW, HIGH = (400.0, 480.0, 576.0, 691.0), (1000.0, 1200.0, 1440.0, 1728.0)
"""Pitches (Hz) of a letter's two parts, neighbours a minor third apart: letter i has low ``i // 4`` and high ``i % 4``."""
SINGLE = tuple(round(400.0 * 1.12**i, 1) for i in range(len(ALPHABET)))
"""Pitches (Hz) where each letter is one tone."""
LOUDNESS = 0.2
FADE_S = 0.005
MEL = MelSpec.parse({"rate": RATE, "n_mels": 40, "window": 200, "hop": 80})
"""Frames in which neighbouring pitches fall into different filters: 25 ms every 10 ms, 40 filters up to 4 kHz."""
_TENTHS: dict[str, tuple[int, ...]] = {"train": tuple(range(8)), "validation": (8,), "test": (9,)}


class TonesSpec(Spec):
    """Everything about the tones.

    ``rows`` and ``held_out``: recordings of the training split and of each of validation and test. ``letters`` of the alphabet are used.
    ``pitch_jitter``: a tone is off its pitch by up to this share; ``length_jitter``: tones and pauses are longer or shorter by up to
    this share. ``noise``: deviation of the noise, where a tone's amplitude is 1.
    """

    seed: int = 0
    rows: PositiveInt = 2_000
    held_out: PositiveInt = 300
    letters: int = Field(8, ge=4, le=len(ALPHABET))
    pairs: bool = True
    shortest: PositiveInt = 3
    longest: PositiveInt = 6
    letter_s: float = Field(0.08, ge=0.02, le=1.0)
    pause_s: float = Field(0.04, ge=0.0, le=1.0)
    pitch_jitter: float = Field(0.02, ge=0.0, lt=0.05)
    length_jitter: float = Field(0.2, ge=0.0, lt=1.0)
    noise: float = Field(0.3, ge=0.0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not 2 <= self.shortest <= self.longest <= 32:
            raise ValueError(f"shortest and longest must be 2 to 32 letters in this order, and they are {self.shortest} and {self.longest}")
        return self


@dataclass(frozen=True)
class Clip:
    """One recording: its string, its samples (float32, full scale 1), and which samples (start, stop) each letter sounds in."""

    text: str
    wave: np.ndarray
    spans: tuple[tuple[int, int], ...]


class Tones:
    """The tones by their spec."""

    def __init__(self, spec: TonesSpec | None = None) -> None:
        self.spec = spec or TonesSpec.parse({})
        self.alphabet = ALPHABET[: self.spec.letters]

    def size(self, split: Split = "train") -> int:
        """How many recordings a split has. Raises UnknownName for another split."""
        if split not in _TENTHS:
            raise UnknownName("split", split, _TENTHS)
        return self.spec.rows if split == "train" else self.spec.held_out

    def text(self, index: int, split: Split = "train") -> str:
        """The string of the ``index``-th recording of a split. Raises BadValue when there is none."""
        if not 0 <= index < self.size(split):
            raise BadValue("recording index", index, f"within 0 to {self.size(split) - 1} in split '{split}'")
        draw = Draw("tones text", self.spec.seed, split, index)
        while True:  # one string in ten belongs to the rarest split, so this ends
            length = self.spec.shortest + draw.below(self.spec.longest - self.spec.shortest + 1)
            text = "".join(draw.pick(self.alphabet) for _ in range(length))
            if key_of("tones split", text) % 10 in _TENTHS[split]:
                return text

    def clip(self, index: int, split: Split = "train") -> Clip:
        """The ``index``-th recording of a split."""
        text, spec = self.text(index, split), self.spec
        draw = Draw("tones clip", spec.seed, split, index)
        around = lambda share: 1.0 + share * (2.0 * draw.uniform() - 1.0)  # noqa: E731
        parts, spans, at = [np.zeros(draw.below(RATE // 10))], [], 0
        for letter in text:
            at += len(parts[-1])
            count = round(RATE * spec.letter_s * around(spec.length_jitter))
            time = np.arange(count) / RATE
            tones = [np.sin(2.0 * math.pi * (f * around(spec.pitch_jitter) * time + draw.uniform())) for f in self.pitches(letter)]
            edge = np.minimum(1.0, np.minimum(time, time[::-1]) / FADE_S)
            parts += [edge * np.sum(tones, axis=0), np.zeros(round(RATE * spec.pause_s * around(spec.length_jitter)))]
            spans.append((at, at + count))
            at += count
        whole = np.concatenate(parts)
        whole = whole + spec.noise * gaussian(key_of("tones noise", spec.seed, split, index), len(whole))
        return Clip(text, np.clip(LOUDNESS * whole, -1.0, 1.0).astype(np.float32), tuple(spans))

    def pitches(self, letter: str) -> tuple[float, ...]:
        """The pitches (Hz) of a letter, before jitter. Raises UnknownName."""
        if letter not in self.alphabet or len(letter) != 1:
            raise UnknownName("letter", letter, self.alphabet)
        i = self.alphabet.index(letter)
        return (LOW[i // 4], HIGH[i % 4]) if self.spec.pairs else (SINGLE[i],)

    def rows(self, split: Split = "train", mel: MelSpec = MEL) -> AudioRows:
        """A split as rows to train on; tokens as ``audio.spelled`` makes them. Raises BadValue for frames of another rate."""
        if mel.rate != RATE:
            raise BadValue("mel.rate", mel.rate, f"{RATE}, the rate of the recordings")
        clips = [self.clip(i, split) for i in range(self.size(split))]
        return AudioRows([clip.wave for clip in clips], mel, *spelled([clip.text for clip in clips], self.alphabet))

    def truth(self) -> dict[str, Any]:
        """What is planted, as plain JSON values."""
        letters = {letter: list(self.pitches(letter)) for letter in self.alphabet}
        return {"world": "tones", "spec": self.spec.model_dump(mode="json"), "spec_digest": self.spec.digest(), "letters": letters}
