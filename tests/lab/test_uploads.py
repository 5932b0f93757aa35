"""A file of one's own: what it is decides, never what it is called; too large, too long, or of another kind is a sentence."""

from __future__ import annotations

import io
import struct
import wave
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from workbench.core.batch import PairBatch, SequenceBatch
from workbench.core.errors import AssayError, BadValue, CorruptFile, Incompatible
from workbench.data.audio import MelSpec, log_mel
from workbench.data.pairs import PairRows, Words
from workbench.data.text import BPETokenizer
from workbench.data.worlds.shapes import ShapeRows
from workbench.families.clip import CLIP, CLIPConfig
from workbench.families.dalle import Dalle
from workbench.families.imagen import Imagen
from workbench.families.seq2seq import Seq2Seq
from workbench.families.vit import ViT, ViTConfig
from workbench.families.whisper import Whisper
from workbench.lab import rows, uploads
from workbench.lab.refs import load
from workbench.lab.uploads import Own

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


def test_a_model_answers_about_it_without_any_rows() -> None:
    assert uploads.takes(load("family:vit")) is None, "no file has its two channels"
    model = ViT(ViTConfig(height=8, width=12, patch=4, n_layers=1, d_model=16, n_heads=2)).eval()
    assert uploads.takes(model) == uploads.Takes(uploads.PICTURES)
    c = model.config
    content = png(DRAW.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8))
    asked = uploads.own_inputs(model, Own(content, "mine.png"))
    logits = model.run(uploads.pixels(content, "mine.png", c.height, c.width, c.channels)).logits
    assert logits is not None
    assert asked.targets is not None
    assert torch.equal(asked.targets, logits.argmax(-1))
    for size in (b"", b"\x89PNG" + b"\0" * uploads.MOST_BYTES):
        with pytest.raises(BadValue, match="the size of the file"):
            uploads.own_inputs(model, Own(size, "mine.png"))


TOKENIZER = BPETokenizer.train(["a red square on the left of a blue circle"] * 8, 280)
PICTURE = png(noise(12, 16))


def in_colour(family: type[Any], **fields: Any) -> Any:
    """The tiny model of a family, with pictures of three channels."""
    model, _ = family.tiny()
    return family(type(model.config).parse({**model.config.model_dump(), "channels": 3, **fields})).eval()


def paired(tokenizer: Any) -> CLIP:
    size = {"d_vocab": TOKENIZER.vocab_size, "n_ctx": 16, "eos_id": TOKENIZER.eos_id}
    model, _ = CLIP.tiny()
    return CLIP(CLIPConfig.parse({**model.config.model_dump(), "channels": 3, **size}), tokenizer).eval()


def test_a_picture_is_held_against_captions_in_words_or_ids() -> None:
    model = paired(TOKENIZER)
    assert uploads.takes(model) == uploads.Takes(uploads.PICTURES, "captions")
    captions = ("a red square", "a blue circle on the left")
    asked = uploads.own_inputs(model, Own(PICTURE, "a.png", captions))
    whole = [[TOKENIZER.bos_id, *TOKENIZER.encode(text), TOKENIZER.eos_id] for text in captions]
    for ids, row, mask in zip(whole, asked.batch.tokens.tolist(), asked.batch.mask.tolist(), strict=True):
        assert row[: len(ids)] == ids
        assert mask == [i < len(ids) for i in range(len(row))]
    one = uploads.pixels(PICTURE, "a.png", 4, 6, 3)
    alone = [model.run(PairBatch(one, torch.tensor([ids]))).logits for ids in whole]
    wanted = torch.cat([logits for logits in alone if logits is not None], 1)
    torch.testing.assert_close(rows.answers(model, asked.batch)[:1], wanted)
    assert asked.targets is not None
    assert asked.targets.tolist() == [int(wanted.argmax())] * 2
    said = rows.top_answers(model, asked).values.token.values.tolist()
    assert sorted(text.strip() for text in said) == sorted(captions), "answers are the captions' words"
    spelt = tuple(" ".join(map(str, ids)) for ids in whole)
    again = uploads.own_inputs(paired(None), Own(PICTURE, "a.png", spelt))
    assert torch.equal(again.batch.tokens, asked.batch.tokens)


def test_a_caption_in_ids_is_read_at_its_end_token_or_refused() -> None:
    named, unnamed = in_colour(CLIP), in_colour(CLIP, eos_id=None)
    read = uploads.own_inputs(named, Own(PICTURE, "a.png", ("3 11 20 5 3",))).batch
    assert read.tokens.tolist() == [[3, 11, 20, 5, 3, 22]]
    whole = uploads.own_inputs(named, Own(PICTURE, "a.png", ("3 11 20 5 3 22",))).batch
    assert whole.tokens.tolist() == read.tokens.tolist()
    assert uploads.own_inputs(unnamed, Own(PICTURE, "a.png", ("3 11 22",))).batch.tokens.tolist() == [[3, 11, 22]]
    cut = PairBatch(read.pixels, torch.tensor([[3, 11, 20]]))
    torch.testing.assert_close(rows.answers(unnamed, PairBatch(read.pixels, torch.tensor([[3, 11, 20, 5, 3]]))), rows.answers(unnamed, cut))
    for text in ("3 11 20 5 3", "3 11 20"):
        with pytest.raises(BadValue, match=f"a text is '{text}', but it must be ids that end in the largest, 22: .* Put 22 behind it"):
            uploads.own_inputs(unnamed, Own(PICTURE, "a.png", (text,)))
    for model, text in ((named, "3 22 5"), (named, "3 22 22"), (unnamed, "3 22 5 22")):
        with pytest.raises(BadValue, match=r"the end token \(22\) at the end alone: there the text is read\. Leave out"):
            uploads.own_inputs(model, Own(PICTURE, "a.png", (text,)))
    with pytest.raises(BadValue, match="9 tokens.*at most 8"):
        uploads.own_inputs(named, Own(PICTURE, "a.png", ("1 2 3 4 5 6 7 8",)))


def test_every_family_that_takes_something_can_be_asked_without_rows() -> None:
    heard = wav(DRAW.uniform(-0.5, 0.5, 800).astype(np.float32), uploads.mel_of(5).rate)
    seen = {"source": "pixels", "image_size": 8, "patch": 4, "n_ctx_source": 0, "positions": "learned"}
    given = [
        (Seq2Seq.tiny()[0].eval(), Own(texts=("3 4 5",), begin=2), (1, 3)),
        (Whisper.tiny()[0].eval(), Own(heard, "a.wav", begin=2), (1, 5)),
        (in_colour(Whisper, **seen), Own(PICTURE, "a.png", begin=2), (1, 3, 8, 8)),
        (in_colour(Dalle), Own(PICTURE, "a.png", ("1 2",)), (1, 3, 4, 6)),
        (in_colour(Imagen), Own(PICTURE, "a.png", ("1 2",)), (1, 3, 4, 6)),
    ]
    for model, own, shape in given:
        asked = uploads.own_inputs(model, own)
        source = asked.batch.source if isinstance(asked.batch, SequenceBatch) else asked.batch.pixels
        assert tuple(source.shape[: len(shape)]) == shape
        if isinstance(asked.batch, SequenceBatch):
            assert asked.batch.tokens.tolist() == [[2]], "what the decoder begins with"
        assert bool(rows.answers(model, asked.batch).isfinite().all())


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (Own(texts=("3 4",)), "decoder_start_token_id"),
        (Own(texts=("3 4",), begin=23), "from 0 to 22, the model's vocabulary"),
        (Own(begin=2), "at least one sentence"),
        (Own(texts=("3 4", "5"), begin=2), "at most 1"),
        (Own(texts=("a word",), begin=2), "this model has no tokenizer"),
        (Own(texts=("²",), begin=2), "this model has no tokenizer"),
        (Own(texts=("3 99",), begin=2), "from 0 to 22"),
        (Own(texts=("1 " * 17,), begin=2), "17 tokens.*at most 16"),
    ],
)
def test_what_is_left_out_or_cannot_be_meant_is_a_sentence(own: Own, said: str) -> None:
    with pytest.raises(BadValue, match=said):
        uploads.own_inputs(Seq2Seq.tiny()[0].eval(), own)


def test_what_is_left_out_is_as_in_the_rows() -> None:
    model, batch = Seq2Seq.tiny()
    drawn = rows.Rows("rows", 2, "", batch)
    asked = uploads.own_inputs(model.eval(), Own(texts=("3 4",)), drawn)
    assert torch.equal(asked.batch.tokens, batch.tokens[:1, :1])
    captions, pairs = in_colour(CLIP), CLIP.tiny()[1]
    beside = uploads.own_inputs(captions, Own(PICTURE, "a.png"), rows.Rows("rows", 3, "", pairs))
    assert torch.equal(beside.batch.tokens, pairs.tokens)


def test_the_text_of_a_row_is_read_where_somebody_can() -> None:
    model, batch = Seq2Seq.tiny()
    assert rows.text_of(model, rows.Rows("rows", 2, "", batch), 0) == "", "nobody knows the words of made-up ids"
    words = Words(["copy", "a", "b"])
    pairs = PairRows([(["copy", "a"], ["a"]), (["copy", "b", "a"], ["b", "a"])], words)
    drawn = rows.Rows("rows", 2, "", pairs)
    assert [rows.text_of(model, drawn, i) for i in range(2)] == ["copy a", "copy b a"]
    assert [rows.ids_of(drawn, i) for i in range(2)] == [[0, 1, words.end], [0, 2, 1, words.end]]
    painted = ShapeRows([np.zeros((3, 8, 8), np.float32)] * 2, ["a red circle", "a blue cross"])
    assert rows.text_of(load("family:dalle"), rows.Rows("rows", 2, "", painted), 1) == "a blue cross"
    assert rows.text_of(load("family:vit"), rows.Rows("rows", 2, "", ViT.tiny()[1]), 0) == ""


def test_who_reads_a_prompt_is_given_none() -> None:
    with pytest.raises(Incompatible, match="neither pictures, sounds nor pairs"):
        uploads.own_inputs(load("family:gpt"), Own(PICTURE, "x.png"))
