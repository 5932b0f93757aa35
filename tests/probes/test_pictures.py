"""Results of models that read images or mel frames hold the picture and which part of it a position is, and draw it from what is stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from probes.attention_pattern import INSTRUMENT as ATTENTION
from probes.input_x_gradient import INSTRUMENT as PRODUCT
from probes.pictures import COLUMNS, ROWS
from probes.saliency import INSTRUMENT as SALIENCY
from tests.core.test_picture_chart import cells_of
from workbench.core.batch import SequenceBatch
from workbench.core.protocol import Inputs
from workbench.core.result import Result
from workbench.families import FAMILIES
from workbench.families.whisper import Whisper, WhisperConfig

PICTURED = [("vit", ""), ("clip", "image"), ("dalle", ""), ("imagen", "denoiser"), ("whisper", "encoder")]


def tiny(family: str) -> tuple[Any, Any, Inputs]:
    model, batch = FAMILIES.load(family).tiny(seed=0)
    rows = len(next(value for value in vars(batch).values() if value is not None))
    return model.eval(), batch, Inputs(batch, targets=torch.arange(rows))


def asked(instrument: Any, model: Any, inputs: Inputs, stack: str, **spec: Any) -> Any:
    return instrument(model, inputs, instrument.spec.parse({"stack": stack, **spec}))


@pytest.mark.parametrize(("family", "stack"), PICTURED)
def test_what_is_stored_draws_the_same_chart(family: str, stack: str) -> None:
    model, _, inputs = tiny(family)
    for instrument in (ATTENTION, PRODUCT, SALIENCY):
        result = asked(instrument, model, inputs, stack)
        assert result.values.picture.dtype == np.uint8
        again = Result.from_json(result.to_json())
        assert again.digest() == result.digest()
        assert again.plot().to_dict() == result.plot().to_dict()
        assert not {"picture", "box", "shown", "edge"} & set(result.to_frame().columns)
        assert set(result.to_frame().columns) == set(type(result).columns)


@pytest.mark.parametrize(("family", "stack"), [("vit", ""), ("clip", "image"), ("imagen", "denoiser"), ("whisper", "encoder")])
def test_a_box_is_what_its_position_reads(family: str, stack: str) -> None:
    """Change the pixels outside a box and the embedding there stays; of a spectrogram, what convolutions hear beside it is kept too."""
    model, batch, _ = tiny(family)
    found, field = model.picture(batch, stack), "source" if family == "whisper" else "pixels"
    site = f"{stack}.hook_embed" if stack else "hook_embed"
    before = model.run(batch, capture=site)[site]
    reach = 3 if family == "whisper" else 0
    for pos, (top, bottom, left, right) in enumerate(found.boxes.tolist()):
        old = getattr(batch, field)
        new = old + 1.0
        rows = slice(top, bottom) if family != "whisper" else slice(None)
        new[..., rows, max(0, left - reach) : right + reach] = old[..., rows, max(0, left - reach) : right + reach]
        after = model.run(type(batch)(**{**vars(batch), field: new}), capture=site)[site]
        same = (after == before).all(-1).all(0)
        if bottom > top:
            assert bool(same[pos])
            assert int(same.sum()) < len(same) or reach


def test_the_class_token_is_no_candidate() -> None:
    model, _, inputs = tiny("vit")
    values = asked(SALIENCY, model, inputs, "").values
    assert values.candidate.values.tolist() == [[False] + [True] * 6] * 3
    assert np.isfinite(values.attribution.values[:, 0]).all()
    model, _, inputs = tiny("dalle")
    painted = asked(SALIENCY, model, inputs, "").values
    assert painted.token.values[0][~painted.candidate.values[0]].tolist() == ["begin"]


def test_the_charts_show_each_part_of_the_picture() -> None:
    model, _, inputs = tiny("vit")
    attention = asked(ATTENTION, model, inputs, "")
    chart = attention.plot().to_dict()
    assert chart["title"]["text"] == "What the class token reads of item 0, 7 of 8 heads"
    assert len(chart["concat"]) == 8
    head = cells_of(chart, 1)
    assert [cell["value"] for cell in head] == attention.values.pattern.values[0, 0, 0, 0, 1:].tolist()
    product = asked(PRODUCT, model, inputs, "")
    chart = product.plot().to_dict()
    assert "effect of each part of the picture on the answer, 3 items" in chart["title"]["text"]
    assert [cell["value"] for cell in cells_of(chart, 1)] == product.values.attribution.values[0, 1:].tolist()


def test_cross_attention_shows_frames_that_words_read_and_words_that_patches_read() -> None:
    model, _, inputs = tiny("whisper")
    heard = asked(ATTENTION, model, inputs, "decoder", cross=True)
    assert heard.values.attrs["picture"]["along"] == "key"
    cells = cells_of(heard.plot().to_dict(), 1)
    assert [cell["value"] for cell in cells] == pytest.approx(heard.values.pattern.values[0, 0, 0].mean(0).tolist())
    model, _, inputs = tiny("imagen")
    told = asked(ATTENTION, model, inputs, "denoiser", cross=True)
    assert told.values.attrs["picture"]["along"] == "query"
    chart = told.plot().to_dict()
    assert len(chart["concat"]) == 5  # the picture, and one panel a word
    cells = cells_of(chart, 2)
    assert [cell["value"] for cell in cells] == pytest.approx(told.values.pattern.values[-1, :, 0, :, 1].mean(0).tolist())
    assert told.values.key_token.values[3].tolist()[0] == "null text"
    assert told.notes[-1] == "At steps 0 to 9 of noise (0 is the least)."


def test_a_long_recording_is_kept_small_and_its_boxes_are_in_frames() -> None:
    config = WhisperConfig(n_layers_encoder=1, d_model=8, n_heads=2, n_mels=130, n_ctx_source=300, d_vocab=5, n_ctx=2)
    batch = SequenceBatch(torch.randn(1, 130, 600, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 1, dtype=torch.long))
    values = asked(SALIENCY, Whisper(config).eval(), Inputs(batch, targets=torch.tensor([1])), "encoder").values
    assert values.picture.shape == (1, ROWS, COLUMNS, 1)
    assert values.box.values[-1].tolist() == [0, 130, 598, 600]
    assert (values.attrs["picture"]["height"], values.attrs["picture"]["width"]) == (130, 600)
    bright = batch.source[0].flip(0).numpy()
    whole = np.round(255 * (bright - bright.min()) / (bright.max() - bright.min())).astype(np.uint8)
    assert values.picture.values[0, 1, 1, 0] == whole[(130 * 1) // ROWS, (600 * 1) // COLUMNS]


def test_words_have_no_picture() -> None:
    model, _, inputs = tiny("clip")
    assert "picture" not in asked(ATTENTION, model, inputs, "text").values
    model, _, inputs = tiny("seq2seq")
    assert "picture" not in asked(ATTENTION, model, inputs, "encoder").values
