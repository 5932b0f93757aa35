"""Public texts and recordings in the splits that published figures use, or in splits of our own where upstream has none at hand."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from workbench.core.errors import BadValue, CorruptFile, MissingFile, UnknownName
from workbench.data.audio import AudioRows, MelSpec, wav_samples
from workbench.data.sources import path, read_text

_HEADING = re.compile(r"^ = [^=].*[^=] = \n", re.MULTILINE)
_RECORDING = re.compile(r"(?:.*/)?(?P<digit>\d)_(?P<speaker>[a-z]+)_(?P<number>\d+)\.wav")


def tinyshakespeare() -> dict[str, str]:
    """Training and validation text: the first nine tenths of the characters and the rest, as nanoGPT cuts it."""
    text = read_text("tinyshakespeare")
    cut = int(len(text) * 0.9)
    return {"train": text[:cut], "validation": text[cut:]}


def wikitext_articles() -> list[str]:
    """The articles of WikiText-2's validation file, each from its heading on, in order."""
    text = read_text("wikitext-2", "valid.txt")
    starts = [m.start() for m in _HEADING.finditer(text)]
    if len(starts) < 10:
        raise CorruptFile("wikitext-2/valid.txt", "a text of at least 10 articles", f"{len(starts)} headings were found")
    return [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]


def wikitext2() -> dict[str, list[str]]:
    """Articles in our own split: of every ten in order, eight for training, the ninth for validation, the tenth for test.

    It is a split of upstream's validation file, so figures on it compare with each other and with nothing published.
    """
    articles = wikitext_articles()
    return {
        "train": [a for i, a in enumerate(articles) if i % 10 < 8],
        "validation": articles[8::10],
        "test": articles[9::10],
    }


# --- spoken digits --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SpokenDigit:
    """One recording of the Free Spoken Digit Dataset: who says which digit for the how-manieth time (``number``, from 0), and the samples
    ``[sample]`` (float32, full scale 1) at ``rate`` Hz."""

    digit: int
    speaker: str
    number: int
    wave: np.ndarray
    rate: int


def spoken_digits(folder: Path | None = None) -> list[SpokenDigit]:
    """All recordings (of ``folder``, where one is given), by speaker, digit and number. Raises MissingData, MissingFile for a folder
    without any, and CorruptFile for a recording that cannot be read or has another name."""
    if folder is not None:
        return _in_order([_named(folder, file.name, file.read_bytes()) for file in sorted(folder.glob("*.wav"))], folder)
    place = path("fsdd", "recordings.zip")
    out: list[SpokenDigit] = []
    try:
        with zipfile.ZipFile(place) as pack:
            for name in pack.namelist():
                out.append(_named(place, name, pack.read(name)))
    except (zipfile.BadZipFile, zlib.error) as error:
        raise CorruptFile(place, "a zip of recordings", f"it is not ({error})") from None
    return _in_order(out, place)


def _named(place: Path, name: str, content: bytes) -> SpokenDigit:
    match = _RECORDING.fullmatch(name)
    if match is None:
        raise CorruptFile(place, "recordings named digit_speaker_number.wav", f"it holds '{name}'")
    wave, rate = wav_samples(content, f"{place}:{name}")
    return SpokenDigit(int(match["digit"]), match["speaker"], int(match["number"]), wave, rate)


def _in_order(found: list[SpokenDigit], place: Path) -> list[SpokenDigit]:
    if not found:
        raise MissingFile(place, "folder or zip of recordings named digit_speaker_number.wav")
    return sorted(found, key=lambda one: (one.speaker, one.digit, one.number))


def by_recording(recordings: Sequence[SpokenDigit]) -> dict[str, list[SpokenDigit]]:
    """The authors' split, with known speakers: numbers 0 to 4 of each speaker and digit for test, the rest for training."""
    return {"train": [r for r in recordings if r.number >= 5], "test": [r for r in recordings if r.number < 5]}


def by_speaker(recordings: Sequence[SpokenDigit], held_out: str) -> dict[str, list[SpokenDigit]]:
    """One speaker for test, the others for training. Raises UnknownName for a speaker there is not."""
    speakers = {r.speaker for r in recordings}
    if held_out not in speakers:
        raise UnknownName("speaker", held_out, speakers, where="in these recordings")
    return {"train": [r for r in recordings if r.speaker != held_out], "test": [r for r in recordings if r.speaker == held_out]}


DIGITS = MelSpec.parse({"rate": 8_000, "n_mels": 40, "window": 200, "hop": 80})
"""Frames of the recordings, which have 8,000 samples a second: 25 ms every 10 ms."""
BEGIN = 10
"""The token a decoder reads before it says the digit (tokens 0 to 9)."""


def digit_rows(recordings: Sequence[SpokenDigit], mel: MelSpec = DIGITS, longest_s: float = 1.0) -> AudioRows:
    """Recordings as rows to train on: the decoder reads ``BEGIN`` and says the digit. What is after ``longest_s`` seconds is left out
    (of one second: in 1 recording of 500). Raises BadValue for frames of another rate."""
    if odd := sorted({r.rate for r in recordings} - {mel.rate}):
        raise BadValue("mel.rate", mel.rate, f"{odd[0]}, the rate of the recordings")
    waves = [r.wave[: round(longest_s * r.rate)] for r in recordings]
    targets = torch.tensor([[r.digit] for r in recordings])
    return AudioRows(waves, mel, torch.full_like(targets, BEGIN), targets)
