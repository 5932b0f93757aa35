"""Images and texts: sites of both towers, edits, parts of a run, where a text is read, the loss against a loop, bad input."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.families.models import logits
from workbench.blocks.listen import Listener
from workbench.blocks.losses import contrastive_nll
from workbench.core.batch import PairBatch
from workbench.core.errors import BadValue, UnknownName
from workbench.core.protocol import Add, FromTrace, HookedModel, Resume, Zero
from workbench.core.tolerance import agree
from workbench.core.types import AXES
from workbench.data.text import CharTokenizer
from workbench.families import FAMILIES
from workbench.families.clip import CLIP, CLIPConfig

SMALL: dict[str, Any] = {
    "d_vocab": 11, "n_ctx": 7, "eos_id": 3, "n_layers_text": 2, "d_model_text": 8, "n_heads_text": 2, "height": 4, "width": 6,
    "channels": 2, "patch": 2, "n_layers_image": 1, "d_model_image": 12, "n_heads_image": 3, "d_mlp_image": 9, "d_joint": 5,
}  # fmt: skip


def build(dtype: torch.dtype = torch.float64, **changes: Any) -> CLIP:
    """A model with weights large enough that every part of it matters."""
    model = CLIP(CLIPConfig.parse({**SMALL, **changes}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return model.to(dtype).eval()


def pairs(dtype: torch.dtype = torch.float64, *, masked: bool = True) -> PairBatch:
    """Three pairs; the first text ends early and, with ``masked``, its last tokens are padding."""
    draw = torch.Generator().manual_seed(1)
    tokens = torch.tensor([[5, 9, 3, 3, 3], [10, 4, 5, 6, 3], [1, 1, 9, 2, 3]])
    mask = torch.tensor([[True, True, True, False, False], [True] * 5, [True] * 5]) if masked else None
    return PairBatch(torch.rand(3, 2, 4, 6, generator=draw, dtype=torch.float64).to(dtype), tokens, mask)


def test_it_is_a_hooked_model_and_in_the_catalogue() -> None:
    assert isinstance(build(), HookedModel)
    assert FAMILIES.load("clip") is CLIP
    assert [stack.prefix for stack in build().stacks()] == ["text.", "image."]
    model, batch = CLIP.tiny()
    assert logits(model.run(batch)).shape == (3, 3)
    assert float(model.weight("logit_scale")) == pytest.approx(math.log(1 / 0.07))


def test_every_site_has_its_declared_axes_in_the_order_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    plain = Listener.hear

    def noting(self: Listener, site: str, tensor: torch.Tensor) -> torch.Tensor:
        order.append(self._prefix + site)
        return plain(self, site, tensor)

    monkeypatch.setattr(Listener, "hear", noting)
    model = build()
    trace = model.run(pairs(), capture="*")
    shared = {"batch": 3, "d_joint": 5, "pair": 3, "one": 1}
    places = {"text": (5, 8, 2, 32), "image": (7, 12, 3, 9), "": (0, 0, 0, 0)}
    assert order == list(trace.at) == list(model.sites())
    for site in model.sites().values():
        pos, d_model, heads, d_mlp = places[site.stack]
        own = {"pos": pos, "query": pos, "key": pos, "d_model": d_model, "head": heads, "kv_head": heads, "d_head": 4, "d_mlp": d_mlp}
        assert set(site.axes) <= set(AXES)
        assert tuple(trace[site].shape) == tuple((shared | own)[word] for word in site.axes), site.name


def test_the_equations() -> None:
    model = build()
    trace = model.run(pairs(), capture="*")
    for tower, ends in (("text", [2, 4, 4]), ("image", [0, 0, 0])):
        last = trace[f"{tower}.ln_final.hook_normalized"] * model.weight(f"{tower}.ln_final.w") + model.weight(f"{tower}.ln_final.b")
        assert agree(trace[f"{tower}.hook_pooled"], last[[0, 1, 2], ends], "activation")
        projected = trace[f"{tower}.hook_pooled"] @ model.weight(f"{tower}.W_joint")
        assert agree(trace[f"{tower}.hook_projected"], projected, "activation")
        assert agree(trace[f"{tower}.hook_joint"], projected / projected.square().sum(1, keepdim=True).sqrt(), "activation")
    expected = torch.empty(3, 3, dtype=torch.float64)
    for image in range(3):
        for text in range(3):
            cosine = (trace["image.hook_joint"][image] * trace["text.hook_joint"][text]).sum()
            expected[image, text] = cosine * math.exp(float(model.weight("logit_scale")))
    assert agree(logits(trace), expected, "logits")
    assert torch.equal(logits(trace), trace["unembed.hook_logits"])
    embedded = trace["image.hook_embed"] + trace["image.hook_pos_embed"]
    normed = (embedded - embedded.mean(-1, keepdim=True)) / (embedded.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    before = normed * model.weight("image.ln_pre.w") + model.weight("image.ln_pre.b")
    assert agree(trace["image.blocks.0.hook_resid_pre"], before, "activation")
    above = torch.ones(5, 5, dtype=torch.bool).triu(1)
    assert (trace["text.blocks.0.attn.hook_pattern"][..., above] == 0).all()  # text is causal, images are not
    assert (trace["image.blocks.0.attn.hook_pattern"] > 0).all()


def test_where_a_text_is_read() -> None:
    batch = pairs(masked=False)
    at = lambda model, tokens: model._ends(tokens, None).tolist()  # noqa: E731
    assert at(build(), batch.tokens) == [2, 4, 4]  # the first end token, whatever follows
    assert at(build(eos_id=None), batch.tokens) == [1, 0, 2]  # the first of the largest ids
    model = build()
    after = batch.tokens.clone()
    after[0, 3:] = 7
    same = logits(model.run(PairBatch(batch.pixels, after)))
    assert agree(same, logits(model.run(batch)), "logits")  # what follows the end is never read
    assert agree(logits(model.run(pairs())), same, "logits")  # nor is padding
    moved = batch.tokens.clone()
    moved[0, 0] = 6
    assert not agree(logits(model.run(PairBatch(batch.pixels, moved))), same, "logits")


def test_images_and_texts_may_differ_in_number_but_not_for_the_loss() -> None:
    model, batch = build(), pairs()
    whole = logits(model.run(batch))
    few = PairBatch(batch.pixels, batch.tokens[:2], batch.mask[:2] if batch.mask is not None else None)
    assert agree(logits(model.run(few)), whole[:, :2], "logits")
    with pytest.raises(BadValue, match="the batch's texts is 2, but it must be 3, one an image"):
        model.loss(few)


def test_the_loss_equals_the_loop() -> None:
    model, batch = build(), pairs()
    out = logits(model.run(batch))
    by_hand = 0.0
    for i in range(3):
        along = math.log(sum(math.exp(float(out[i, j])) for j in range(3))) - float(out[i, i])
        down = math.log(sum(math.exp(float(out[j, i])) for j in range(3))) - float(out[i, i])
        by_hand += (along + down) / 2
    loss, count = model.loss(batch)
    assert count == 3
    assert float(loss.detach()) == pytest.approx(by_hand, rel=1e-12)
    along_alone = torch.nn.functional.cross_entropy(out, torch.arange(3), reduction="sum")
    assert not agree(loss, along_alone, "logits")
    assert agree(contrastive_nll(out.T)[0], loss, "logits")
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_patching_every_site_with_itself_is_exactly_nothing(dtype: torch.dtype) -> None:
    model, batch = build(dtype), pairs(dtype)
    for site in model.sites():
        trace = model.run(batch, capture=site)
        assert torch.equal(logits(model.run(batch, edit=[FromTrace(site, trace=trace)])), logits(trace)), site


def test_every_site_acts_and_its_gradient_says_how() -> None:
    model, batch = build(), pairs()
    draw = torch.Generator().manual_seed(3)
    weights = torch.randn(3, 3, dtype=torch.float64, generator=draw)
    trace = model.run(batch, capture="*", grad=True)
    grads = torch.autograd.grad((logits(trace) * weights).sum(), [trace[site] for site in trace.at], allow_unused=True)
    for site, grad in zip(trace.at, grads, strict=True):
        assert grad is not None, site
        value = trace[site]
        move = torch.where(value.isfinite(), torch.randn(value.shape, dtype=torch.float64, generator=draw), 0.0) * 1e-6
        up, down = ((logits(model.run(batch, edit=[Add(site, value=sign * move)])) * weights).sum() for sign in (1, -1))
        assert float(up - down) / 2 == pytest.approx(float((grad.nan_to_num() * move).sum()), rel=2e-4, abs=1e-10), site
        assert float(up - down) != 0, site


def test_starting_and_stopping_anywhere_equals_the_whole() -> None:
    model, batch = build(), pairs()
    whole = model.run(batch, capture="*")
    names = list(model.sites())
    for site in (name for name in names if "hook_resid_" in name):
        later, before = names[names.index(site) :], names[: names.index(site) + 1]
        part = model.run(batch, capture=later, resume=Resume(start=site, residual=whole[site]))
        assert agree(logits(part), logits(whole), "logits"), site
        assert all(agree(part[s], whole[s], "activation") for s in later)
        other = whole[site].roll(1, 0)  # the residual is what is read, not the batch in its place
        assert not agree(logits(model.run(batch, resume=Resume(start=site, residual=other))), logits(whole), "logits")
        part = model.run(batch, capture=before, resume=Resume(stop=site))
        assert part.logits is None
        assert all(agree(part[s], whole[s], "activation") for s in before)
        with pytest.raises(BadValue, match="lies before its start or after its stop"):
            model.run(batch, edit=[Zero("unembed.hook_logits")], resume=Resume(stop=site))
    start, stop = "image.blocks.0.hook_resid_pre", "text.blocks.0.hook_resid_pre"
    with pytest.raises(BadValue, match="at or after resume.start"):
        model.run(batch, resume=Resume(start=start, residual=whole[start], stop=stop))


def test_bad_input_says_so() -> None:
    model, batch = build(), pairs()
    change = lambda **fields: PairBatch(**{**vars(batch), **fields})  # noqa: E731
    hidden = torch.tensor([[True, True, False, False, False]] + [[True] * 5] * 2)
    at, image = "text.blocks.1.hook_resid_pre", "image.blocks.0.hook_resid_mid"
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (batch.pixels, {}, "the batch is 'Tensor', but it must be a PairBatch"),
        (change(pixels=batch.pixels[:, :1]), {}, "shape of the pixels"),
        (change(pixels=batch.pixels / 0), {}, "infinite or no number"),
        (change(tokens=batch.tokens + 8), {}, "a token id is 18, but it must be within 0 to 10"),
        (change(tokens=batch.tokens.double()), {}, "dtype of the token ids"),
        (change(tokens=torch.full((3, 8), 3), mask=None), {}, "at most 7, the model's context"),
        (change(tokens=batch.tokens.clamp(min=4), mask=None), {}, r"a text is 'without its end token'.*id 3"),
        (change(mask=hidden), {}, "false at a text's end"),
        (change(mask=hidden[:, :4]), {}, r"the batch's mask is '\(3, 4\) torch.bool'"),
        (change(mask=hidden.long()), {}, "the batch's mask"),
        (batch, {"logits": "last"}, "one logit an image and text"),
        (batch, {"logits": [0]}, "logits is 'positions'"),
        (batch, {"cache": True}, "it reads everything at once"),
        (batch, {"resume": Resume(positions=torch.zeros(1, 5, dtype=torch.long))}, r"resume\.positions"),
        (batch, {"resume": Resume(start=at, residual=torch.zeros(3, 4, 8).double())}, "positions of resume.residual is 4.*5, as the batch"),
        (batch, {"resume": Resume(start=at, residual=torch.zeros(2, 5, 8).double())}, "rows of resume.residual is 2"),
        (batch, {"resume": Resume(start=at, residual=torch.zeros(3, 5, 12).double())}, r"\[batch, pos, 8\]"),
        (batch, {"resume": Resume(start=image, residual=torch.zeros(3, 5, 12).double())}, "5, but it must be 7, as the batch"),
        (batch, {"resume": Resume(start=at)}, "start without residual"),
    ]
    for given, asked, words in cases:
        with pytest.raises(BadValue, match=words):
            model.run(given, **asked)
    with pytest.raises(UnknownName, match="residual site 'blocks.0.hook_resid_pre'"):
        model.run(batch, resume=Resume(stop="blocks.0.hook_resid_pre"))
    assert model.run(batch, logits=None).logits is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_heads_text": 3}, "n_heads_text must divide d_model_text"),
        ({"n_heads_image": 5}, "n_heads_image must divide d_model_image"),
        ({"patch": 4}, "patch must divide height and width"),
        ({"eos_id": 11}, "eos_id must be below d_vocab"),
        ({"d_model_text": "wide"}, "d_model_text"),
        ({"d_model": 8}, "no field 'd_model'"),
    ],
)
def test_configs_that_cannot_be(changes: dict[str, Any], words: str) -> None:
    with pytest.raises((BadValue, UnknownName), match=words):
        CLIPConfig.parse({**SMALL, **changes})


def test_weights_have_names_and_the_tokenizer_must_fit() -> None:
    model = build()
    shapes = {
        "text.W_E": (11, 8), "text.W_pos": (7, 8), "text.blocks.1.attn.W_Q": (2, 8, 4), "text.ln_final.w": (8,), "text.W_joint": (8, 5),
        "image.W_E": (8, 12), "image.b_E": (12,), "image.W_class": (12,), "image.W_pos": (7, 12), "image.ln_pre.b": (12,),
        "image.blocks.0.mlp.W_in": (12, 9), "image.W_joint": (12, 5), "logit_scale": (),
    }  # fmt: skip
    assert {name: tuple(model.weight(name).shape) for name in shapes} == shapes
    assert model.weight("image.b_E").abs().max() == 0  # there is no bias, and zeros say so
    with pytest.raises(BadValue, match="the tokenizer's 2"):
        CLIP(CLIPConfig.parse(SMALL), CharTokenizer.of("ab"))
