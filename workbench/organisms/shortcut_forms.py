"""How each family reads marks: its shape, its batches, what is asked of it and where the marks then stand.

Everything that differs between the families' shortcut organisms is here, one ``Form`` each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.core.batch import IGNORE, DiffusionBatch, EncoderBatch, ImageBatch, PairBatch, SequenceBatch, TokenBatch
from workbench.core.protocol import Inputs
from workbench.data.worlds.marks import BANDS, BRIGHT, DARK, FRAMES, HONEST, KINDS, PARTS, PATCH, PLACES, SIDE, WORDS, Marked

ASK = WORDS
"""The id of the question: the last word, the mask, the begin token or the end of a text."""
SMALL: dict[str, Any] = {"n_layers": 1, "d_model": 32, "n_heads": 4, "init_std": 0.15}
CODED = {"height": 4, "width": 4, "channels": KINDS, "patch": 2}
NOISE_STEPS = 50

Span = tuple[int, int]


@dataclass(frozen=True)
class Asked:
    """What an instrument is asked, and the truth about it by position.

    ``planted`` and ``honest``: the half-open range of positions of each item's marks; ``rivals [item, pos]``: the parts that say nothing.
    ``settings``: which stack and position the question is about, for instruments that have such fields.
    """

    inputs: Inputs
    planted: tuple[Span, ...]
    honest: tuple[Span, ...]
    rivals: np.ndarray
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Form:
    """A family's way with marks.

    ``batch(items)`` to train on; ``inputs(model, items)`` to ask about; ``kinds(model, items)`` the probability of each kind as the answer
    ``[item, kind]``. ``settings`` say which stack and position are explained, ``reads`` from where attention to the parts is read
    (``query``, and a stack or cross-attention). ``places`` positions hold parts, the first of them at ``first``; ``reach``: how many
    positions hear one part. ``coder``: steps of a first phase in which pictures are learned as codes. ``one_each``: a batch takes one
    answer of each kind, so that no text fits two of its pictures.
    """

    family: str
    config: Mapping[str, Any]
    batch: Callable[[Marked], Any]
    inputs: Callable[[Any, Marked], Inputs]
    kinds: Callable[[Any, Marked], Tensor]
    settings: Mapping[str, Any] = field(default_factory=dict)
    reads: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 300
    rows: int = 32
    coder: int = 0
    first: int = 0
    places: int = PARTS
    reach: int = 1
    total: int = PARTS
    patches: bool = False
    one_each: bool = False

    def ask(self, model: Any, items: Marked) -> Asked:
        """The question about these items and where their marks stand."""
        where, honest = (items.patch, items.honest_patch) if self.patches else (items.at, items.honest_at)
        spans = lambda at: tuple((self.first + int(p), self.first + int(p) + 1) for p in at)  # noqa: E731
        planted, other = spans(where), spans(honest)
        rivals = np.zeros((len(items), self.total), dtype=bool)
        rivals[:, self.first : self.first + self.places] = True
        for row, taken in enumerate(zip(planted, other, strict=True)):
            for start, _ in taken:
                rivals[row, start : start + self.reach] = False  # what also hears a mark is neither it nor silent
        return Asked(self.inputs(model, items), planted, other, rivals, self.settings)


def _answers(items: Marked) -> Tensor:
    return torch.from_numpy(items.answer)


def _ask_column(items: Marked) -> Tensor:
    return torch.full((len(items), 1), ASK)


def _probabilities(logits: Tensor) -> Tensor:
    """Among the kinds alone, so that no other word takes a share."""
    return logits[:, :KINDS].double().softmax(-1)


# --- words -----------------------------------------------------------------------------------------------------


def _asked_last(items: Marked) -> TokenBatch:
    tokens = torch.cat([items.words(), _ask_column(items)], 1)
    targets = torch.full_like(tokens, IGNORE)
    targets[:, -1] = _answers(items)
    return TokenBatch(tokens, targets)


def _masked_first(items: Marked) -> EncoderBatch:
    tokens = torch.cat([_ask_column(items), items.words()], 1)
    targets = torch.full_like(tokens, IGNORE)
    targets[:, 0] = _answers(items)
    return EncoderBatch(tokens, targets)


def _answered(items: Marked) -> SequenceBatch:
    return SequenceBatch(items.words(), _ask_column(items), _answers(items)[:, None])


GPT = Form(
    "gpt", {**SMALL, "d_vocab": WORDS + 1, "n_ctx": PARTS + 1}, _asked_last,
    lambda model, items: Inputs(_asked_last(items).tokens, targets=_answers(items)),
    lambda model, items: _probabilities(model.run(_asked_last(items).tokens, logits="last").logits[:, -1]),
    reads={"query": -1}, total=PARTS + 1,
)  # fmt: skip
BERT = Form(
    "bert", {**SMALL, "d_vocab": WORDS + 1, "n_ctx": PARTS + 1}, _masked_first,
    lambda model, items: Inputs(_masked_first(items).tokens, targets=_answers(items)),
    lambda model, items: _probabilities(model.run(_masked_first(items)).logits[:, 0]), {"position": 0}, {"query": 0},
    first=1, total=PARTS + 1,
)  # fmt: skip
SEQ2SEQ = Form(
    "seq2seq", {"n_layers_encoder": 1, "n_layers_decoder": 1, "d_model": 32, "n_heads": 4, "d_vocab": WORDS + 1, "n_ctx": PARTS,
                "init_std": 0.15}, _answered,
    lambda model, items: Inputs(_answered(items), targets=_answers(items)),
    lambda model, items: _probabilities(model.run(_answered(items)).logits[:, -1]), {"stack": "encoder"},
    {"query": 0, "stack": "decoder", "cross": True},
)  # fmt: skip


# --- pictures and sound ----------------------------------------------------------------------------------------


def _pictures(items: Marked) -> ImageBatch:
    return ImageBatch(items.patches(), _answers(items))


def _heard(items: Marked) -> SequenceBatch:
    return SequenceBatch(items.tones(), torch.full((len(items), 1), KINDS), _answers(items)[:, None])


VIT = Form(
    "vit", {**SMALL, "height": SIDE, "width": SIDE, "channels": 1, "patch": PATCH, "n_classes": KINDS, "pool": "class"}, _pictures,
    lambda model, items: Inputs(_pictures(items), targets=_answers(items)),
    lambda model, items: _probabilities(model.run(_pictures(items)).logits),
    reads={"query": 0}, steps=500, first=1, places=PLACES, total=PLACES + 1, patches=True,
)  # fmt: skip
WHISPER = Form(
    "whisper", {"n_layers_encoder": 1, "n_layers_decoder": 1, "d_model": 32, "n_heads": 4, "n_mels": BANDS, "n_ctx_source": FRAMES // 2,
                "d_vocab": KINDS + 1, "n_ctx": 1, "init_std": 0.15}, _heard,
    lambda model, items: Inputs(_heard(items), targets=_answers(items)),
    lambda model, items: _probabilities(model.run(_heard(items)).logits[:, -1]), {"stack": "encoder"},
    {"query": 0, "stack": "decoder", "cross": True}, reach=2,
)  # fmt: skip
"""A convolution three frames wide hears a tone whole at its own position, and its end at the next."""


# --- pictures with texts ---------------------------------------------------------------------------------------


def _captioned(items: Marked) -> PairBatch:
    return PairBatch(items.answers_as_patches(), torch.cat([items.words(), _ask_column(items)], 1))


def _clip_kinds(model: Any, items: Marked) -> Tensor:
    """Which of four pictures, one a kind, fits each text."""
    shown = Marked(*(np.arange(KINDS) for _ in range(6)), key=items.key).answers_as_patches()
    texts = _captioned(items).tokens
    found = [model.run(PairBatch(shown, torch.cat([texts[i : i + 1]] * KINDS))).logits[:, 0] for i in range(len(texts))]
    return torch.stack(found).double().softmax(-1)


def _coloured(items: Marked) -> PairBatch:
    return PairBatch(items.answers_as_colours(), items.words())


def _first_code(model: Any, items: Marked) -> Tensor:
    return model.coder.encode(_coloured(items).pixels)[:, 0]


def _dalle_kinds(model: Any, items: Marked) -> Tensor:
    """The probability of the first code, summed over the codes that a kind's colour is written with."""
    kinds = np.arange(KINDS).repeat(8)
    each = Marked(kinds, kinds, kinds * 0, kinds * 0 + 1, kinds, np.arange(len(kinds)), items.key)
    codes = _first_code(model, each)
    logits = model.run(_coloured(items)).logits[:, PARTS, model.config.d_vocab_text :].double().softmax(-1)
    shares = torch.zeros(len(items), KINDS, dtype=torch.float64)
    for kind in range(KINDS):
        shares[:, kind] = logits[:, codes[torch.from_numpy(kinds == kind)].unique()].sum(1)
    return shares / shares.sum(1, keepdim=True)


def _noise_alone(model: Any, items: Marked) -> DiffusionBatch:
    """Pictures at the last step of noise: what is predicted of them can come from the text alone."""
    pixels, step = items.answers_as_colours(), torch.full((len(items),), NOISE_STEPS - 1)
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(3))
    return DiffusionBatch(model.noise.noisy(2 * pixels - 1, noise, step), step, items.words())


def _imagen_kinds(model: Any, items: Marked) -> Tensor:
    """How bright each kind's channel is predicted, from dark (0) to bright (1): under squared error, the share of that answer."""
    batch = _noise_alone(model, items)
    clean = model.noise.clean(batch.pixels, model.run(batch).logits, batch.step).double().mean((2, 3))
    return ((clean + 1) / 2 - DARK) / (BRIGHT - DARK)


_TOWERS = {f"{name}_{tower}": value for tower in ("text", "image") for name, value in SMALL.items() if name != "init_std"}
CLIP = Form(
    "clip", {**_TOWERS, "height": SIDE, "width": SIDE, "channels": 1, "patch": PATCH, "d_joint": 16, "init_std": 0.15,
             "d_vocab": WORDS + 1, "n_ctx": PARTS + 1, "eos_id": ASK}, _captioned,
    lambda model, items: Inputs(_captioned(items), targets=torch.arange(len(items))), _clip_kinds,
    {"stack": "text", "quantity": "logprob"}, {"query": -1, "stack": "text"}, steps=500, rows=KINDS, total=PARTS + 1, one_each=True,
)  # fmt: skip
DALLE = Form(
    "dalle", {**SMALL, **CODED, "n_codes": 8, "d_code": 4, "d_coder": 16, "d_vocab_text": WORDS, "n_text": PARTS}, _coloured,
    lambda model, items: Inputs(_coloured(items), targets=model.config.d_vocab_text + _first_code(model, items)), _dalle_kinds,
    {"position": PARTS}, {"query": PARTS}, coder=150, steps=400, total=PARTS + 4,
)  # fmt: skip
IMAGEN = Form(
    "imagen", {**SMALL, **CODED, "n_steps": NOISE_STEPS, "n_layers_text": 1, "drop_text": 0.0, "d_vocab": WORDS, "n_ctx": PARTS},
    _coloured, lambda model, items: Inputs(_noise_alone(model, items), targets=16 * _answers(items)), _imagen_kinds,
    {"stack": "text"}, {"query": 0, "stack": "denoiser", "cross": True}, steps=500,
)  # fmt: skip

FORMS: Mapping[str, Form] = {form.family: form for form in (GPT, BERT, SEQ2SEQ, VIT, CLIP, DALLE, IMAGEN, WHISPER)}
assert HONEST == KINDS, "planted marks come before honest ones"
