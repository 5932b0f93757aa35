"""A picture, a recording or texts of one's own as a model reads them; a file is checked by what its bytes are, never by its name.

    picture      PNG or JPEG, made as large as the model's pictures, as many channels, values 0 to 1
    recording    WAV of PCM samples at the rate that the model's frames are made of, as log-mel frames
    texts        words where the model has a tokenizer, else ids

A model was trained on pictures prepared in one way, which its file does not tell: where that was another way than the above, its answers
say little.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.core.batch import ImageBatch, PairBatch, SequenceBatch
from workbench.core.errors import BadValue, CorruptFile, Incompatible, MissingExtra
from workbench.core.protocol import HookedModel, Inputs
from workbench.data.audio import STRIDE, MelSpec, wav_samples, whole_positions
from workbench.data.encoding import text_ids
from workbench.data.worlds.tones import MEL
from workbench.lab.rows import TOGETHER, Rows, asked_of

MOST_BYTES, MOST_PIXELS = 1_000_000, 20_000_000
PICTURES, RECORDINGS = ("png", "jpg", "jpeg"), ("wav",)
Texts = Literal["", "source", "caption", "captions"]
_FORMATS = ("PNG", "JPEG")
_TEXTS: dict[str, Texts] = {"seq2seq": "source", "clip": "captions", "dalle": "caption", "imagen": "caption"}


@dataclass(frozen=True)
class Takes:
    """What a model can be given: endings of a ``file`` (() for none), which ``texts`` ('' for none), and whether its decoder is told the
    token that it ``begins`` with."""

    file: tuple[str, ...] = ()
    texts: Texts = ""
    begins: bool = False


@dataclass(frozen=True)
class Own:
    """What somebody gives: a file's ``content`` and its ``name`` (b'' and '' for none), ``texts``, and the id that a decoder begins with
    (None: as the task's rows begin)."""

    content: bytes = b""
    name: str = ""
    texts: tuple[str, ...] = ()
    begin: int | None = None


def takes(model: HookedModel) -> Takes | None:
    """What somebody can give a model; None where that is nothing: it reads a prompt, or pictures that no file has the channels of."""
    c = model.config
    texts, begins = _TEXTS.get(model.family, ""), model.family in ("whisper", "seq2seq")
    if model.family == "seq2seq":
        return Takes((), texts, begins)
    if model.family == "whisper" and c.source == "mel":
        return Takes(RECORDINGS, texts, begins)
    sees = model.family in ("vit", "whisper", "clip", "dalle", "imagen") and c.channels in (1, 3)
    return Takes(PICTURES, texts, begins) if sees else None


def prepared(model: HookedModel) -> str:
    """How what is given is made into what the model reads, in words."""
    c, kinds = model.config, takes(model)
    file = kinds.file if kinds is not None else ()
    if file == RECORDINGS:
        mel = mel_of(c.n_mels)
        return (
            f"As {mel.n_mels} mel bands of a recording at {mel.rate:,} Hz. A model that was trained on other frames says little about it."
        )
    if not file:
        return "Its text as the tokens of the model."
    height, width = _size(model)
    noisy = " Noise is laid over it, as in training." if hasattr(model, "noised") else ""
    return (
        f"Made {height} by {width} pixels of {c.channels} channel{'s' if c.channels > 1 else ''}, values from 0 to 1.{noisy} A model that "
        "was trained on pictures prepared in another way says little about it."
    )


def own_inputs(model: HookedModel, own: Own, rows: Rows | None = None) -> Inputs:
    """What is given as one row of the model's own kind, asked about the model's own answer. What is left out (texts, and the id a decoder
    begins with) is as in ``rows``, where there are any.

    Raises Incompatible for a model that can be given nothing, BadValue for what is too large, too long, or left out and not known, and
    CorruptFile for what is no such file.
    """
    kinds = takes(model)
    if kinds is None:
        reasons = ["it reads neither pictures, sounds nor pairs that a file or a text could hold"]
        raise Incompatible("something of one's own", f"this {model.family} model", reasons)
    if kinds.file and not 0 < len(own.content) <= MOST_BYTES:
        raise BadValue("the size of the file", f"{len(own.content):,} bytes", f"from 1 to {MOST_BYTES:,}")
    return asked_of(model, _batch(model, kinds, own, rows))


def _batch(model: HookedModel, kinds: Takes, own: Own, rows: Rows | None) -> Any:
    c = model.config
    if model.family == "vit":
        return ImageBatch(pixels(own.content, own.name, c.height, c.width, c.channels))
    if not kinds.begins:
        tokens, mask = _texts(model, kinds, own, rows)
        picture = pixels(own.content, own.name, *_size(model), c.channels)
        return PairBatch(picture.repeat(len(tokens), 1, 1, 1), tokens, mask)  # instruments want a picture a text
    begin = _begin(model, own, rows)
    nothing = torch.zeros_like(begin)
    if model.family == "seq2seq":
        source, mask = _texts(model, kinds, own, rows)
        return SequenceBatch(source, begin, nothing, mask)
    if c.source == "pixels":
        return SequenceBatch(pixels(own.content, own.name, *_size(model), c.channels), begin, nothing)
    return SequenceBatch(frames(own.content, own.name, mel_of(c.n_mels), STRIDE * c.n_ctx_source), begin, nothing)


def _size(model: HookedModel) -> tuple[int, int]:
    """Height and width of its pictures, in pixels."""
    c = model.config
    return (c.image_size, c.image_size) if model.family == "whisper" else (c.height, c.width)


# --- texts ------------------------------------------------------------------------------------------------------


def words_for(model: HookedModel) -> str:
    """In what a text is given."""
    return "words" if model.tokenizer is not None else f"ids from 0 to {_vocabulary(model) - 1}, since this model has no tokenizer"


def _begin(model: HookedModel, own: Own, rows: Rows | None) -> Int[Tensor, "1 1"]:
    """What a decoder reads before it writes."""
    if own.begin is None:
        if rows is None:
            rule = "the id of the token that its training began each text with"
            raise BadValue(
                "the token that the decoder begins with", "nothing", rule, do="Its publisher names it as decoder_start_token_id."
            )
        return rows.batch(0, 1).tokens[:, :1]
    return torch.tensor([[_known(model, own.begin, "the token that the decoder begins with")]])


def _texts(
    model: HookedModel, kinds: Takes, own: Own, rows: Rows | None
) -> tuple[Int[Tensor, "text pos"], Bool[Tensor, "text pos"] | None]:
    """The texts as tokens, with their mask (None: none is padded); those of the first rows where none is given."""
    if not own.texts:
        if rows is None:
            raise BadValue("the text", "nothing", f"at least one {'caption' if kinds.texts != 'source' else 'sentence'}", do="Type one.")
        drawn = rows.batch(0, TOGETHER if kinds.texts == "captions" else 1)
        return (drawn.source if kinds.texts == "source" else drawn.tokens), drawn.mask
    most = TOGETHER if kinds.texts == "captions" else 1
    if len(own.texts) > most:
        raise BadValue("the number of texts", len(own.texts), f"at most {most}")
    found = [_ids(model, text) for text in own.texts]
    longest, context = max(map(len, found)), int(getattr(model.config, "n_text", 0) or model.config.n_ctx)
    if longest > context:
        raise BadValue("the length of a text", f"{longest} tokens", f"at most {context}, as far as this model reads", do="Shorten it.")
    tokens = torch.tensor([[*ids, *[ids[-1]] * (longest - len(ids))] for ids in found])
    mask = torch.tensor([[True] * len(ids) + [False] * (longest - len(ids)) for ids in found])
    return tokens, None if bool(mask.all()) else mask


def _ids(model: HookedModel, text: str) -> list[int]:
    """A text's ids: with the control tokens of its tokenizer around it, and at the end of a text of CLIP the one where it is read."""
    tokenizer: Any = model.tokenizer
    if tokenizer is None:
        words = text.replace(",", " ").split()
        if not words or not all(word.isascii() and word.isdigit() for word in words):
            raise BadValue("a text", text, f"ids with blanks between, from 0 to {_vocabulary(model) - 1}: this model has no tokenizer")
        ids = [_known(model, int(word), "an id") for word in words]
        return _ended(model, ids, sure=model.config.eos_id is not None) if model.family == "clip" else ids
    ids = text_ids(tokenizer, text)
    return _ended(model, ids, sure=True) if model.family == "clip" else ids


def _ended(model: HookedModel, ids: list[int], *, sure: bool) -> list[int]:
    """A text of CLIP with its end token, where it is read: put behind it where that is left out. A model that names none reads at the
    largest id, in the first models the last there is; where that is not ``sure``, it must be there. Raises BadValue, also for an end token
    before the end: what stands behind it would not be read."""
    named = model.config.eos_id
    end = named if named is not None else _vocabulary(model) - 1
    if ids[-1] != end:
        if not sure:
            rule = f"ids that end in the largest, {end}: this model names no end token, and reads a text at its largest id"
            raise BadValue("a text", " ".join(map(str, ids)), rule, do=f"Put {end} behind it.")
        ids = [*ids, end]
    if ids.index(end) < len(ids) - 1:
        rule = f"ids with the end token ({end}) at the end alone: there the text is read"
        raise BadValue("a text", " ".join(map(str, ids)), rule, do="Leave out what stands behind it.")
    return ids


def _known(model: HookedModel, given: int, what: str) -> int:
    if not 0 <= given < _vocabulary(model):
        raise BadValue(what, given, f"from 0 to {_vocabulary(model) - 1}, the model's vocabulary")
    return given


def _vocabulary(model: HookedModel) -> int:
    return int(getattr(model.config, "d_vocab_text", 0) or model.config.d_vocab)


def lines_of(text: str) -> tuple[str, ...]:
    """The lines of a text that hold something."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())


# --- files ------------------------------------------------------------------------------------------------------


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
