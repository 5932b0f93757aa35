"""Attention and gradients of stacks that are not token decoders, against the slow obvious way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from probes.attention_pattern import INSTRUMENT as ATTENTION
from probes.attention_pattern import AttentionPatternSpec
from probes.input_x_gradient import INSTRUMENT as PRODUCT
from probes.integrated_gradients import INSTRUMENT as INTEGRATED
from probes.integrated_gradients import IntegratedGradientsSpec
from probes.saliency import INSTRUMENT as SALIENCY
from probes.saliency import SaliencySpec
from workbench.core.errors import BadValue, UnknownName
from workbench.core.protocol import Inputs, Replace
from workbench.families import FAMILIES


def tiny(name: str) -> tuple[Any, Any]:
    """A family's tiny model in float64, and its batch."""
    model, batch = FAMILIES.load(name).tiny(seed=0)
    cast = {f: v.double() if v is not None and v.is_floating_point() else v for f, v in vars(batch).items()}
    return model.double().eval(), type(batch)(**cast)


@pytest.mark.parametrize(
    ("family", "stack", "cross"),
    [("vit", "", False), ("seq2seq", "encoder", False), ("seq2seq", "decoder", True), ("whisper", "decoder", True)],
)
def test_patterns_are_the_captured_ones(family: str, stack: str, cross: bool) -> None:
    model, batch = tiny(family)
    result = ATTENTION(model, Inputs(batch), AttentionPatternSpec.parse({"stack": stack, "cross": cross}))
    part = "cross_attn" if cross else "attn"
    prefix = f"{stack}." if stack else ""
    for layer in range(len(result.values.layer)):
        name = f"{prefix}blocks.{layer}.{part}.hook_pattern"
        expected = model.run(batch, capture=name)[name].transpose(0, 1).numpy()
        found = result.values.pattern.values[layer]
        kept = ~np.isnan(found)
        assert kept.any()
        assert np.abs(found[kept] - expected[kept]).max() < 1e-12
    assert float(result.values.row_error.max()) < 1e-9
    assert result.plot() is not None


@pytest.mark.parametrize(("family", "stack"), [("vit", ""), ("seq2seq", "encoder"), ("whisper", "encoder")])
def test_a_gradient_is_what_a_small_change_does(family: str, stack: str) -> None:
    model, batch = tiny(family)
    count = len(next(iter(vars(batch).values())))
    targets = torch.arange(count) % 3
    inputs = Inputs(batch, targets=targets)
    result: Any = PRODUCT(model, inputs, PRODUCT.spec.parse({"stack": stack}))
    site = f"{stack}.hook_embed" if stack else "hook_embed"
    x = model.run(batch, capture=site)[site]

    def answer(embeddings: torch.Tensor) -> torch.Tensor:
        logits = model.run(batch, edit=[Replace(site, value=embeddings)]).logits
        logits = logits if logits.ndim == 2 else logits[:, -1]
        return logits.gather(1, targets[:, None])[:, 0]

    step = 1e-6
    for place in range(x.shape[1]):
        up, down = x.clone(), x.clone()
        up[:, place] *= 1 + step
        down[:, place] *= 1 - step
        slope = (answer(up) - answer(down)) / (2 * step)
        real = ~np.isnan(result.values.attribution.values[:, place])
        assert np.allclose(result.values.attribution.values[real, place], slope.numpy()[real], rtol=1e-4, atol=1e-7)


def sloped(answer: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> np.ndarray:
    """What each item's answer gains by one embedding being longer ``[batch, pos]``, by differences; an item's own embedding alone."""
    step, out = 1e-6, np.zeros(x.shape[:2])
    for row in range(x.shape[0]):
        for place in range(x.shape[1]):
            up, down = x.clone(), x.clone()
            up[row, place] *= 1 + step
            down[row, place] *= 1 - step
            out[row, place] = float((answer(up) - answer(down))[row] / (2 * step))
    return out


@pytest.mark.parametrize("quantity", ["logit", "logprob", "logit-difference"])
@pytest.mark.parametrize("stack", ["text", "image"])
def test_of_pairs_the_answers_to_an_item_are_the_others(stack: str, quantity: str) -> None:
    """A text is asked among the images, and an image among the texts."""
    model, batch = tiny("clip")
    targets, foils = torch.tensor([1, 1, 0]), torch.tensor([2, 0, 1])
    inputs = Inputs(batch, targets=targets, foils=foils if quantity == "logit-difference" else None)
    result: Any = PRODUCT(model, inputs, PRODUCT.spec.parse({"stack": stack, "quantity": quantity}))
    site = f"{stack}.hook_embed"
    rows = torch.arange(3)

    def answer(embeddings: torch.Tensor) -> torch.Tensor:
        logits = model.run(batch, edit=[Replace(site, value=embeddings)]).logits
        logits = logits.T if stack == "text" else logits
        own = logits[rows, targets]
        return own - {"logit": 0, "logprob": logits.logsumexp(1), "logit-difference": logits[rows, foils]}[quantity]

    x = model.run(batch, capture=site)[site]
    real = result.values.is_token.values
    assert np.allclose(result.values.value.values, answer(x).numpy())
    assert np.allclose(result.values.attribution.values[real], sloped(answer, x)[real], rtol=1e-4, atol=1e-7)
    with pytest.raises(BadValue, match="as many of each part"):
        PRODUCT(model, Inputs(replace(batch, pixels=batch.pixels[:2]), targets=targets), PRODUCT.spec.parse({"stack": stack}))


@pytest.mark.parametrize("stack", ["text", "denoiser"])
def test_of_a_denoiser_a_pixel_is_asked_about(stack: str) -> None:
    model, batch = tiny("imagen")
    with torch.no_grad():  # at first its gates are closed, and nothing is read
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1), dtype=parameter.dtype))
    pixel = torch.tensor([0, 7, 25, 47])  # of 2 channels of 4 x 6
    result: Any = PRODUCT(model, Inputs(batch, targets=pixel), PRODUCT.spec.parse({"stack": stack}))
    site = f"{stack}.hook_embed"

    def answer(embeddings: torch.Tensor) -> torch.Tensor:
        painted = model.run(batch, edit=[Replace(site, value=embeddings)]).logits
        places = [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 3, 5)]
        return torch.stack([painted[row, channel, y, x] for row, (channel, y, x) in enumerate(places)])

    x = model.run(batch, capture=site)[site]
    assert np.allclose(result.values.value.values, answer(x).numpy())
    kept = result.values.is_token.values & (result.values.token.values != "null text")
    assert np.allclose(result.values.attribution.values[kept], sloped(answer, x)[kept], rtol=1e-4, atol=1e-7)
    assert np.abs(result.values.attribution.values[kept]).max() > 1e-4
    with pytest.raises(BadValue, match="predicted pixels are not answers"):
        PRODUCT(model, Inputs(batch, targets=pixel), PRODUCT.spec.parse({"stack": stack, "quantity": "logprob"}))


def test_an_answer_is_read_at_the_last_real_place_wherever_padding_lies() -> None:
    model, batch = tiny("dalle")
    result: Any = PRODUCT(model, Inputs(batch, targets=torch.tensor([11, 12, 13])), PRODUCT.spec.parse({}))
    assert result.values.position.values.tolist() == [9, 9, 9]  # the second text is padded, before the image


def test_an_encoder_does_not_read_padding() -> None:
    model, batch = tiny("bert")
    ids, lengths = batch.tokens, torch.tensor([8, 5])
    together: Any = ATTENTION(model, Inputs(ids, lengths), AttentionPatternSpec.parse({}))
    alone: Any = ATTENTION(model, Inputs(ids[1:, :5]), AttentionPatternSpec.parse({}))
    assert np.abs(together.values.pattern.values[:, :, 1, :5, :5] - alone.values.pattern.values[:, :, 0]).max() < 1e-12
    assert float(together.values.row_error.max()) < 1e-9
    both = SALIENCY(model, Inputs(ids, lengths, targets=torch.tensor([3, 4])), SaliencySpec.parse({}))
    one = SALIENCY(model, Inputs(ids[1:, :5], targets=torch.tensor([4])), SaliencySpec.parse({}))
    assert np.allclose(both.values.attribution.values[1, :5], one.values.attribution.values[0], atol=1e-12)
    fields: Any = {"steps": 4, "max_steps": 8}
    both = INTEGRATED(model, Inputs(ids, lengths, targets=torch.tensor([3, 4])), IntegratedGradientsSpec.parse(fields))
    one = INTEGRATED(model, Inputs(ids[1:, :5], targets=torch.tensor([4])), IntegratedGradientsSpec.parse(fields))
    assert np.allclose(both.values.attribution.values[1, :5], one.values.attribution.values[0], atol=1e-12)


@pytest.mark.parametrize("name", [n if n == "vit" else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES])
def test_integrated_gradients_add_up_on_every_stack(name: str) -> None:
    """The sum over positions is the answer less the baseline's, whatever is read: patches, frames, words, pairs or noise."""
    model, batch = tiny(name)
    rows = len(next(iter(vars(batch).values())))
    inputs = Inputs(batch.tokens if name == "gpt" else batch, targets=torch.arange(rows))
    for stack in dict.fromkeys(site.stack for site in model.sites().values() if site.layer is not None):
        fields = {"steps": 64, "max_steps": 1024, **({"stack": stack} if stack and name != "gpt" else {})}
        result = INTEGRATED(model, inputs, IntegratedGradientsSpec.parse(fields))
        v: Any = result.values
        change = (v.value - v.baseline_value).values
        assert np.allclose(v.attribution.sum("pos").values, change, atol=2e-3 * np.abs(change).max())
        assert name == "imagen" or np.abs(change).max() > 0  # of a fresh denoiser every gate is zero
        assert result.plot().to_dict()
    if name != "gpt":
        with pytest.raises(BadValue, match="baseline is 'template-mean', but it must be 'zero' or 'unknown-token'"):
            INTEGRATED(model, inputs, IntegratedGradientsSpec.parse({"baseline": "template-mean"}))


def test_what_does_not_fit_is_said() -> None:
    model, batch = tiny("vit")
    with pytest.raises(UnknownName, match="stack 'encoder'"):
        ATTENTION(model, Inputs(batch), AttentionPatternSpec.parse({"stack": "encoder"}))
    with pytest.raises(BadValue, match="which reads no other"):
        ATTENTION(model, Inputs(batch), AttentionPatternSpec.parse({"cross": True}))
    with pytest.raises(BadValue, match="different numbers from 0"):
        ATTENTION(model, Inputs(batch), AttentionPatternSpec.parse({"layers": [9]}))
    with pytest.raises(BadValue, match=r"inputs\.targets"):
        SALIENCY(model, Inputs(batch, targets=torch.full((len(batch.pixels),), 999)), SaliencySpec.parse({}))
    with pytest.raises(BadValue, match="no positions"):
        SALIENCY(model, Inputs(batch, targets=torch.zeros(len(batch.pixels))), SaliencySpec.parse({"position": 1}))
    gpt, _ = tiny("gpt")
    with pytest.raises(BadValue, match="left out for token ids"):
        ATTENTION(gpt, Inputs(torch.arange(5)[None]), AttentionPatternSpec.parse({"cross": True}))
