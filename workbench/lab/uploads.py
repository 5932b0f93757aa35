"""A picture or a recording of one's own as a model reads it: checked by what its bytes are, never by its name.

    picture      PNG or JPEG, made as large as the model's pictures, as many channels, values 0 to 1
    recording    WAV of PCM samples at the rate that the model's frames are made of, as log-mel frames

A model was trained on pictures prepared in one way, which its file does not tell: where that was another way than the above, its answers
say little.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.core.batch import ImageBatch, SequenceBatch
from workbench.core.errors import BadValue, CorruptFile, Incompatible, MissingExtra
from workbench.core.protocol import HookedModel, Inputs
from workbench.data.audio import STRIDE, MelSpec, wav_samples, whole_positions
from workbench.data.worlds.tones import MEL
from workbench.lab.rows import Rows, row_inputs

MOST_BYTES, MOST_PIXELS = 1_000_000, 20_000_000
PICTURES, RECORDINGS = ("png", "jpg", "jpeg"), ("wav",)
_FORMATS = ("PNG", "JPEG")


def endings(model: HookedModel) -> tuple[str, ...]:
    """What files a model can be given: their endings, or () for a model that reads neither pictures nor sounds alone."""
    if model.family == "whisper" and model.config.source == "mel":
        return RECORDINGS
    return PICTURES if model.family in ("vit", "whisper") and model.config.channels in (1, 3) else ()


def prepared(model: HookedModel) -> str:
    """How a file is made into what the model reads, in words."""
    c = model.config
    if endings(model) == RECORDINGS:
        mel = mel_of(c.n_mels)
        return (
            f"As {mel.n_mels} mel bands of a recording at {mel.rate:,} Hz. A model that was trained on other frames says little about it."
        )
    size = (c.height, c.width) if model.family == "vit" else (c.image_size, c.image_size)
    return (
        f"Made {size[0]} by {size[1]} pixels of {c.channels} channel{'s' if c.channels > 1 else ''}, values from 0 to 1. A model that was "
        "trained on pictures prepared in another way says little about it."
    )


def own_inputs(model: HookedModel, rows: Rows, content: bytes, name: str) -> Inputs:
    """The file as one row of the model's own kind, asked about the model's own answer (as ``rows.row_inputs`` asks).

    Raises Incompatible for a model that reads neither, BadValue for what is too large or too long, CorruptFile for what is no such file.
    """
    kinds = endings(model)
    if not kinds:
        raise Incompatible("a file of one's own", f"this {model.family} model", ["it reads neither pictures nor sounds alone"])
    if not content or len(content) > MOST_BYTES:
        raise BadValue("the size of the file", f"{len(content):,} bytes", f"from 1 to {MOST_BYTES:,}")
    made = _batch(model, rows, content, name)
    return row_inputs(model, Rows("a file of one's own", 1, "", made), 0)


def _batch(model: HookedModel, rows: Rows, content: bytes, name: str) -> Any:
    c = model.config
    if model.family == "vit":
        return ImageBatch(pixels(content, name, c.height, c.width, c.channels))
    begin = rows.batch(0, 1).tokens[:, :1]  # what the decoder reads before it writes
    nothing = torch.zeros_like(begin)
    if c.source == "pixels":
        return SequenceBatch(pixels(content, name, c.image_size, c.image_size, c.channels), begin, nothing)
    return SequenceBatch(frames(content, name, mel_of(c.n_mels), STRIDE * c.n_ctx_source), begin, nothing)


def mel_of(n_mels: int) -> MelSpec:
    """How a wave becomes frames of so many bands: as the shipped tasks do it, else as Whisper does."""
    return MEL if n_mels == MEL.n_mels else MelSpec.parse({"n_mels": n_mels})


def pixels(content: bytes, name: str, height: int, width: int, channels: int) -> Tensor:
    """``[1, channel, height, width]``, float32 from 0 to 1. Raises CorruptFile, BadValue and MissingExtra."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("pillow", "dashboard", "Reading a picture") from None
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise BadValue("the picture", f"{picture.width:,} by {picture.height:,} pixels", f"of at most {MOST_PIXELS:,} pixels")
            whole = picture.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise CorruptFile(name, "a whole PNG or JPEG picture", "it is none", do="Save it again as PNG.") from None
    found = np.asarray(whole, dtype=np.float32).reshape(height, width, channels) / 255.0
    return torch.from_numpy(np.ascontiguousarray(found.transpose(2, 0, 1)))[None]


def frames(content: bytes, name: str, mel: MelSpec, most: int) -> Tensor:
    """``[1, mel, frame]`` of a recording. Raises CorruptFile for what is no WAV, BadValue for another rate and for one that is too long."""
    wave, rate = wav_samples(content, name)
    if rate != mel.rate:
        raise BadValue("the rate of the recording", f"{rate:,} Hz", f"{mel.rate:,} Hz, which this model's frames are made of",
                       do=f"Convert it: `sox in.wav -r {mel.rate} out.wav`.")  # fmt: skip
    longest = most * mel.hop
    if len(wave) > longest:
        raise BadValue("the recording", f"{len(wave) / rate:.2f} s", f"at most {longest / rate:.2f} s, as far as this model hears")
    return mel.of(whole_positions(wave, mel))[None]
