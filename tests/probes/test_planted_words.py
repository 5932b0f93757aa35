"""One planted case a family that reads words: the word that decides is known by position and must be found, and nothing where nothing was
learned.

A row has eight words, one of which decides the answer (of a text that is painted patch by patch: one decides each patch). So chance is
one in eight. Rates are over 64 rows; a model that was never trained must stay at or below three in eight, which chance passes less than
once in a million.

Attention is asked in the last layer, over all heads, where the answer is made. Saliency is asked which of the words would move the answer
most; the question itself (a mask, an end, a begin token) moves every answer and is no rival. Input times gradient, for comparison, puts the
word first in 67 to 100 % of rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from probes.saliency import INSTRUMENT, SaliencySpec
from tests.probes.planted import FILLERS, KINDS, read_most, sentences, trained
from workbench.core.batch import IGNORE, DiffusionBatch, EncoderBatch, PairBatch, TokenBatch
from workbench.core.protocol import Inputs
from workbench.families.bert import BERT, BERTConfig
from workbench.families.clip import CLIP, CLIPConfig
from workbench.families.dalle import Dalle, DalleConfig
from workbench.families.gpt import GPT, GPTConfig
from workbench.families.imagen import Imagen, ImagenConfig

pytestmark = pytest.mark.slow
ITEMS, LENGTH, FOUND, NULL = 64, 8, 0.9, 0.375
SMALL: dict[str, Any] = {"n_layers": 1, "d_model": 32, "n_heads": 4, "init_std": 0.15}
ASK = KINDS + FILLERS
COLOURS = np.array([[0.2, 0.2], [0.2, 0.8], [0.8, 0.2], [0.8, 0.8]])
"""Of two channels; one a kind of word."""


def moved_most(model: Any, inputs: Inputs, first: int = 0, count: int = LENGTH, **spec: Any) -> np.ndarray:
    """Which of ``count`` positions from ``first`` would move each item's answer most."""
    values: Any = INSTRUMENT(model, inputs, SaliencySpec.parse(spec)).values
    return values.attribution.values[:, first : first + count].argmax(-1)


def share(found: np.ndarray, planted: np.ndarray) -> float:
    return float((found == planted).mean())


# --- a decoder ------------------------------------------------------------------------------------------------


def asked_last(count: int, seed: int) -> tuple[TokenBatch, np.ndarray]:
    """The words, then a question; the answer is the word that decides."""
    words, kinds, where = sentences(count, seed)
    tokens = torch.cat([words, torch.full((count, 1), ASK)], 1)
    targets = torch.full_like(tokens, IGNORE)
    targets[:, -1] = kinds
    return TokenBatch(tokens, targets), where


def test_gpt() -> None:
    config = GPTConfig(**SMALL, d_vocab=ASK + 1, n_ctx=LENGTH + 1)
    model = trained(GPT(config), lambda count, seed: asked_last(count, seed)[0], 150)
    batch, where = asked_last(ITEMS, 7)
    inputs = Inputs(batch.tokens, targets=batch.targets[:, -1])
    assert float((model.run(batch.tokens).logits[:, -1].argmax(-1) == inputs.targets).float().mean()) > 0.95
    untrained = GPT(config, seed=1)
    assert share(read_most(model, inputs, slice(0, LENGTH), query=-1), where) >= FOUND
    assert share(read_most(untrained, inputs, slice(0, LENGTH), query=-1), where) <= NULL
    assert share(moved_most(model, inputs), where) >= FOUND
    assert share(moved_most(untrained, inputs), where) <= NULL


# --- an encoder -----------------------------------------------------------------------------------------------


def masked_first(count: int, seed: int) -> tuple[EncoderBatch, np.ndarray]:
    """A masked word, then the words; what was masked is the word that decides."""
    words, kinds, where = sentences(count, seed)
    tokens = torch.cat([torch.full((count, 1), ASK), words], 1)
    targets = torch.full_like(tokens, IGNORE)
    targets[:, 0] = kinds
    return EncoderBatch(tokens, targets), where


def test_bert() -> None:
    config = BERTConfig(**SMALL, d_vocab=ASK + 1, n_ctx=LENGTH + 1)
    model = trained(BERT(config), lambda count, seed: masked_first(count, seed)[0], 200)
    batch, where = masked_first(ITEMS, 7)
    assert batch.targets is not None
    inputs = Inputs(batch.tokens, targets=batch.targets[:, 0])
    assert float((model.run(batch).logits[:, 0].argmax(-1) == inputs.targets).float().mean()) > 0.95
    untrained = BERT(config, seed=1).eval()
    assert share(read_most(model, inputs, slice(1, None), query=0), where) >= FOUND
    assert share(read_most(untrained, inputs, slice(1, None), query=0), where) <= NULL
    assert share(moved_most(model, inputs, 1, position=0), where) >= FOUND
    assert share(moved_most(untrained, inputs, 1, position=0), where) <= NULL


# --- pictures and texts in one space --------------------------------------------------------------------------


def captioned(count: int, seed: int) -> tuple[PairBatch, np.ndarray, np.ndarray]:
    """Noise of 4 x 4 patches, one of which has one of four marks, and words, one of which names it; where both stand."""
    words, kinds, where = sentences(count, seed)
    draw = np.random.default_rng([seed, 1])
    pixels, patch = draw.normal(0, 0.2, (count, 1, 8, 8)), draw.integers(0, 16, count)
    marks = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[1, 1], [0, 0]], [[1, 0], [1, 0]]]) * 3
    for row, (kind, place) in enumerate(zip(kinds.tolist(), patch, strict=True)):
        top, left = 2 * (place // 4), 2 * (place % 4)
        pixels[row, 0, top : top + 2, left : left + 2] += marks[kind]
    tokens = torch.cat([words, torch.full((count, 1), ASK)], 1)
    return PairBatch(torch.from_numpy(pixels.astype(np.float32)), tokens), where, patch


def test_clip() -> None:
    """The word and the patch are what one tower's vector is made of. The gradient at the patches is a weaker witness than attention: a norm
    follows the embedding, so the answer hardly depends on a patch's size (chance is one in sixteen there)."""
    sizes = {"height": 8, "width": 8, "channels": 1, "patch": 2, "d_joint": 16, "init_std": 0.15}
    towers = {f"{name}_{tower}": value for tower in ("text", "image") for name, value in SMALL.items() if name != "init_std"}
    config = CLIPConfig.parse({**sizes, **towers, "d_vocab": ASK + 1, "n_ctx": LENGTH + 1, "eos_id": ASK})
    # four pairs a batch, each of another kind: no text fits two pictures
    model = trained(CLIP(config), lambda count, seed: captioned(count, seed)[0], 300, rows=KINDS)
    untrained = CLIP(config, seed=1).eval()
    batch, where, patch = captioned(ITEMS, 7)
    kinds = sentences(ITEMS, 7)[1]
    logits = model.run(batch).logits
    assert float((kinds[logits.argmax(-1)] == kinds).float().mean()) > 0.95
    inputs = Inputs(batch, targets=torch.arange(ITEMS))
    assert share(read_most(model, inputs, slice(0, LENGTH), query=-1, stack="text"), where) >= FOUND
    assert share(read_most(untrained, inputs, slice(0, LENGTH), query=-1, stack="text"), where) <= NULL
    assert share(moved_most(model, inputs, stack="text", quantity="logprob"), where) >= 0.75
    assert share(moved_most(untrained, inputs, stack="text", quantity="logprob"), where) <= 0.45
    assert share(read_most(model, inputs, slice(1, None), query=0, stack="image"), patch) >= FOUND
    assert share(read_most(untrained, inputs, slice(1, None), query=0, stack="image"), patch) <= NULL
    assert share(moved_most(model, inputs, 1, 16, stack="image"), patch) >= 0.5
    assert share(moved_most(untrained, inputs, 1, 16, stack="image"), patch) <= 0.25


# --- text, then an image as codes -----------------------------------------------------------------------------


def painted(count: int, seed: int) -> tuple[PairBatch, np.ndarray]:
    """Words, and a picture of 2 x 2 patches in the one of four colours that one of the words names."""
    words, kinds, where = sentences(count, seed)
    draw = np.random.default_rng([seed, 1])
    pixels = COLOURS[kinds.numpy()][:, :, None, None] + draw.normal(0, 0.03, (count, 2, 4, 4))
    return PairBatch(torch.from_numpy(pixels.astype(np.float32)), words), where


def test_dalle() -> None:
    """Asked at the begin token, before any code is read: later codes may be read off earlier ones."""
    size = {"height": 4, "width": 4, "channels": 2, "patch": 2, "n_codes": 8, "d_code": 2, "d_coder": 16}
    config = DalleConfig.parse({**SMALL, **size, "d_vocab_text": ASK, "n_text": LENGTH})
    model, untrained = Dalle(config), Dalle(config, seed=1).eval()
    model.learn("coder")
    trained(model, lambda count, seed: painted(count, seed)[0], 150, lr=1e-2)
    model.learn("decoder")
    trained(model, lambda count, seed: painted(count, seed)[0], 200)
    (batch, where), kinds = painted(ITEMS, 7), sentences(ITEMS, 7)[1]
    codes = model.coder.encode(batch.pixels)[:, 0]
    kind_of = dict(zip(codes.tolist(), kinds.tolist(), strict=True))  # a colour may have several codes
    logits = model.run(batch).logits
    assert logits is not None
    written = (logits[:, LENGTH].argmax(-1) - config.d_vocab_text).tolist()
    assert [kind_of.get(code) for code in written] == kinds.tolist()
    inputs = Inputs(batch, targets=config.d_vocab_text + codes)
    assert share(read_most(model, inputs, slice(0, LENGTH), query=LENGTH), where) >= FOUND
    assert share(read_most(untrained, inputs, slice(0, LENGTH), query=LENGTH), where) <= NULL
    assert share(moved_most(model, inputs, position=LENGTH), where) >= FOUND
    assert share(moved_most(untrained, inputs, position=LENGTH), where) <= NULL


# --- images out of noise --------------------------------------------------------------------------------------


def mosaic(count: int, seed: int) -> PairBatch:
    """Eight words, and a picture of 2 x 4 patches, each in the colour that the word of its number names."""
    draw = np.random.default_rng(seed)
    kinds = draw.integers(0, KINDS, (count, LENGTH))
    pixels = COLOURS[kinds].reshape(count, 2, 4, 2).transpose(0, 3, 1, 2).repeat(2, 2).repeat(2, 3)
    return PairBatch(torch.from_numpy((pixels + draw.normal(0, 0.03, pixels.shape)).astype(np.float32)), torch.from_numpy(kinds))


@pytest.mark.full
def test_imagen() -> None:
    """At the last step of noise a picture is noise alone, so what is predicted of it can come from the text only; some steps on, the word
    is still found. Asked about is a pixel, the first of a patch: its predicted velocity. Each row is asked about another patch."""
    size = {"height": 4, "width": 8, "channels": 2, "patch": 2, "n_steps": 50, "n_layers_text": 1, "drop_text": 0.0}
    config = ImagenConfig.parse({**SMALL, **size, "d_vocab": KINDS, "n_ctx": LENGTH})
    model, untrained = trained(Imagen(config), mosaic, 500), Imagen(config, seed=1).eval()
    pairs, told = mosaic(ITEMS, 7), np.arange(ITEMS) % LENGTH
    pixel = torch.from_numpy(2 * (told // 4) * 8 + 2 * (told % 4))
    noise = torch.randn(pairs.pixels.shape, generator=torch.Generator().manual_seed(3))
    for step in (49, 40):
        at = torch.full((ITEMS,), step)
        batch = DiffusionBatch(model.noise.noisy(2 * pairs.pixels - 1, noise, at), at, pairs.tokens)
        logits = model.run(batch).logits
        assert logits is not None
        right = (model.noise.clean(batch.pixels, logits, at) > 0) == (pairs.pixels > 0.5)
        assert float(right.float().mean()) > 0.95
        inputs, across = Inputs(batch, targets=pixel), {"stack": "denoiser", "cross": True}
        assert share(read_most(model, inputs, slice(0, LENGTH), told, **across), told) >= FOUND
        assert share(read_most(untrained, inputs, slice(0, LENGTH), told, **across), told) <= NULL
        assert share(moved_most(model, inputs, stack="text"), told) >= FOUND
        assert share(moved_most(untrained, inputs, stack="text"), told) <= NULL
