"""A file of one's own: what it is decides, never what it is called; too large, too long, or of another kind is a sentence."""

from __future__ import annotations

import io
import struct
import wave
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from workbench.core.errors import AssayError, BadValue, CorruptFile, Incompatible
from workbench.data.audio import MelSpec, log_mel
from workbench.families.vit import ViT, ViTConfig
from workbench.lab import rows, uploads
from workbench.lab.refs import load

DRAW = np.random.default_rng(0)


def png(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG")
    return out.getvalue()


def wav(samples: np.ndarray, rate: int) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return out.getvalue()


def test_a_picture_of_the_models_size_is_its_own_pixels() -> None:
    array = DRAW.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    found = uploads.pixels(png(array), "a.png", 12, 16, 3)
    np.testing.assert_array_equal(found.numpy()[0], array.transpose(2, 0, 1).astype(np.float32) / np.float32(255.0))
    grey = uploads.pixels(png(array), "a.png", 4, 4, 1)
    assert grey.shape == (1, 1, 4, 4)
    assert 0 <= float(grey.min()) <= float(grey.max()) <= 1


def noise(height: int, width: int) -> np.ndarray:
    return DRAW.integers(0, 256, (height, width, 3), dtype=np.uint8)


def bomb() -> bytes:
    """A PNG that says it is 60,000 by 60,000 pixels, in a few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content",
    [
        b"GIF89a" + b"\0" * 50,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"no picture",
        png(noise(40, 40))[:900],
        bomb(),
    ],
)
def test_what_is_no_whole_picture_is_a_sentence(content: bytes) -> None:
    with pytest.raises(AssayError, match=r"PNG or JPEG|at most 20,000,000 pixels"):
        uploads.pixels(content, "picture.png", 8, 8, 3)


def test_a_recording_is_the_frames_that_the_model_reads() -> None:
    mel = MelSpec.parse({"rate": 4000, "n_mels": 8, "window": 100, "hop": 40})
    samples = DRAW.uniform(-0.5, 0.5, 800).astype(np.float32)
    found = uploads.frames(wav(samples, 4000), "a.wav", mel, 20)
    heard = (samples * 32767).astype(np.int16) / np.float32(32768)
    assert torch.equal(found[0], log_mel(heard, 4000, 8, 100, 40))
    with pytest.raises(BadValue, match="'8,000 Hz', but it must be 4,000 Hz"):
        uploads.frames(wav(samples, 8000), "a.wav", mel, 20)
    with pytest.raises(BadValue, match="'0.20 s', but it must be at most 0.10 s"):
        uploads.frames(wav(samples, 4000), "a.wav", mel, 10)
    with pytest.raises(CorruptFile, match="a WAV file"):
        uploads.frames(b"ID3 an mp3", "a.wav", mel, 20)


def test_a_model_answers_about_it_as_about_a_row() -> None:
    drawn = rows.rows_of("family:vit")
    assert drawn is not None
    assert uploads.endings(load("family:vit")) == (), "no file has its two channels"
    model = ViT(ViTConfig(height=8, width=12, patch=4, n_layers=1, d_model=16, n_heads=2)).eval()
    assert uploads.endings(model) == uploads.PICTURES
    c = model.config
    content = png(DRAW.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8))
    asked = uploads.own_inputs(model, drawn, content, "mine.png")
    logits = model.run(uploads.pixels(content, "mine.png", c.height, c.width, c.channels)).logits
    assert logits is not None
    assert asked.targets is not None
    assert torch.equal(asked.targets, logits.argmax(-1))
    for size in (b"", b"\x89PNG" + b"\0" * uploads.MOST_BYTES):
        with pytest.raises(BadValue, match="the size of the file"):
            uploads.own_inputs(model, drawn, size, "mine.png")


@pytest.mark.slow
def test_a_listener_hears_it_and_others_say_why_not() -> None:
    model, drawn = load("family:whisper"), rows.rows_of("family:whisper")
    assert drawn is not None
    mel = uploads.mel_of(model.config.n_mels)
    samples = DRAW.uniform(-0.5, 0.5, 2 * mel.window).astype(np.float32)
    asked = uploads.own_inputs(model, drawn, wav(samples, mel.rate), "mine.wav")
    assert asked.batch.source.shape[:2] == (1, model.config.n_mels)
    assert asked.targets is not None
    clip = load("family:clip")
    assert uploads.endings(clip) == ()
    with pytest.raises(Incompatible, match="neither pictures nor sounds alone"):
        uploads.own_inputs(clip, drawn, b"x", "x.png")
