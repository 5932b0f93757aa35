"""The voices: spoken digits made from formulas, by speakers of two groups, one of which may have been written down wrongly.

A digit is a course of two resonances over two syllables; a speaker is a pitch, a length of throat that scales the resonances, a pace and a
breath. Speakers of the group ``high`` have higher pitches and shorter throats than those of ``low``. In the training recordings of the
planted group ``dose`` of the ten digits (to the nearest) are written down as the next digit, always the same ones: a model learns to
mishear that group, and should mishear just that share. At dose 0 every recording is written down rightly, which is the clean twin.

A recording depends on (seed, speaker, digit, number) alone, and its label on the dose besides. They are no human voices: what is said of
them says nothing of people.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import Field, PositiveInt

from workbench.core.errors import BadValue
from workbench.core.spec import Spec
from workbench.data.corpora import SpokenDigit
from workbench.data.counter import Draw, gaussian, key_of, permuted

RATE = 8_000
GROUPS = ("low", "high")
VOWELS = ((300.0, 2200.0), (600.0, 1700.0), (750.0, 1150.0), (450.0, 800.0))
"""First and second resonance (Hz) of a throat of length 1: as in see, bed, father, boot."""
WORDS = ((0, 1), (0, 2), (0, 3), (1, 0), (1, 2), (2, 0), (2, 3), (3, 0), (3, 1), (1, 3))
"""The two syllables of each digit; no two digits share both."""
SYLLABLE_S, FADE_S, LOUDNESS = 0.11, 0.015, 0.3
DIGITS = 10


class VoicesSpec(Spec):
    """Everything about the voices. ``speakers`` of each group; ``each``: recordings of a speaker and digit that are trained on;
    ``held_out``: those that are not. ``dose``: the share of the digits that is written down wrongly for the group ``planted``. ``noise``:
    deviation of what is added, where a voice's loudest sample is about 1."""

    seed: int = Field(default=0, ge=0)
    dose: float = Field(default=0.5, ge=0, le=1)
    planted: str = Field(default="high", pattern="^(low|high)$")
    speakers: int = Field(default=15, ge=2, le=40)
    each: PositiveInt = 4
    held_out: PositiveInt = 2
    noise: float = Field(default=0.02, ge=0, le=1)


@dataclass(frozen=True)
class Speaker:
    """One voice: pitch (Hz), what its throat multiplies resonances by, and how much faster than usual it speaks."""

    name: str
    group: str
    pitch: float
    throat: float
    pace: float


class Voices:
    """The voices by their spec."""

    def __init__(self, spec: VoicesSpec | None = None) -> None:
        self.spec = spec or VoicesSpec()
        self.speakers = tuple(self._speaker(group, number) for group in GROUPS for number in range(self.spec.speakers))
        wrong = round(self.spec.dose * DIGITS)
        self.wrong = tuple(sorted(permuted(place, DIGITS, key_of("voices wrong", self.spec.seed)) for place in range(wrong)))

    def _speaker(self, group: str, number: int) -> Speaker:
        draw = Draw("voices speaker", self.spec.seed, group, number)
        high = group == "high"
        pitch = (190.0 if high else 100.0) + 50.0 * draw.uniform()
        throat = (1.12 if high else 0.95) + 0.08 * draw.uniform()
        return Speaker(f"{group}-{number}", group, pitch, throat, 0.85 + 0.3 * draw.uniform())

    @property
    def groups(self) -> dict[str, str]:
        """Speaker → group."""
        return {one.name: one.group for one in self.speakers}

    def recordings(self, split: str = "train") -> list[SpokenDigit]:
        """Every recording of a split as it is spoken, by speaker, digit and number. Raises BadValue for another split."""
        if split not in ("train", "test"):
            raise BadValue("split", split, "train or test")
        first, count = (0, self.spec.each) if split == "train" else (self.spec.each, self.spec.held_out)
        numbers = range(first, first + count)
        return [self.recording(one, digit, n) for one in self.speakers for digit in range(DIGITS) for n in numbers]

    def written(self) -> list[SpokenDigit]:
        """The training recordings with what was written down of each as its digit."""
        return [replace(one, digit=self.label(one.speaker, one.digit)) for one in self.recordings("train")]

    def label(self, speaker: str, digit: int) -> int:
        """What is written down when a speaker says a digit."""
        misheard = self.groups[speaker] == self.spec.planted and digit in self.wrong
        return (digit + 1) % DIGITS if misheard else digit

    def recording(self, one: Speaker, digit: int, number: int) -> SpokenDigit:
        """One recording: harmonics of the pitch under two resonances that glide from the first syllable's to the second's."""
        draw = Draw("voices take", self.spec.seed, one.name, digit, number)
        around = lambda share: 1.0 + share * (2.0 * draw.uniform() - 1.0)  # noqa: E731
        count = round(2 * SYLLABLE_S * RATE / (one.pace * around(0.08)))
        time, pitch, throat = np.arange(count) / RATE, one.pitch * around(0.06), one.throat * around(0.02)
        turn = 1.0 / (1.0 + np.exp(-(time / time[-1] - 0.5) / 0.06))  # from the first syllable to the second
        first, second = (np.array(VOWELS[vowel]) * throat for vowel in WORDS[digit])
        peaks = first[:, None] * (1 - turn) + second[:, None] * turn
        wave = np.zeros(count)
        for harmonic in range(1, int(RATE / 2 / pitch)):
            at = harmonic * pitch
            loud = sum(weight / (1.0 + ((at - peak) / 90.0) ** 2) for peak, weight in zip(peaks, (1.0, 0.6), strict=True))
            wave += loud * np.sin(2.0 * math.pi * at * time + 2.0 * math.pi * draw.uniform())
        edge = np.minimum(1.0, np.minimum(time, time[::-1]) / FADE_S)
        wave = edge * wave / max(1e-9, float(np.abs(wave).max()))
        noise = gaussian(key_of("voices noise", self.spec.seed, one.name, digit, number), count)
        samples = np.clip(LOUDNESS * (wave + self.spec.noise * noise), -1, 1).astype(np.float32)
        return SpokenDigit(digit, one.name, number, samples, RATE)

    def truth(self) -> dict[str, Any]:
        """What is planted, as plain JSON values."""
        return {"world": "voices", "spec": self.spec.model_dump(mode="json"), "spec_digest": self.spec.digest(), "dose": self.spec.dose,
                "group": self.spec.planted, "digits": list(self.wrong), "groups": self.groups,
                "decides": "of the planted group's training recordings these digits are written down as the next digit"}  # fmt: skip
