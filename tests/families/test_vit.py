"""The vision transformer: sites and their axes, edits, parts of a run, loss against by-hand figures, bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.families.models import logits
from workbench.blocks.listen import Listener
from workbench.core.batch import ImageBatch
from workbench.core.errors import BadValue, Incompatible, UnknownName
from workbench.core.protocol import Add, Apply, FromTrace, HookedModel, Replace, Resume, Zero
from workbench.core.tolerance import agree
from workbench.core.types import AXES
from workbench.data.text import CharTokenizer
from workbench.families import FAMILIES
from workbench.families.vit import ViT, ViTConfig

SMALL: dict[str, Any] = {"height": 4, "width": 6, "channels": 2, "patch": 2, "n_layers": 2, "d_model": 12, "n_heads": 3, "n_classes": 5}
CONFIGS: dict[str, dict[str, Any]] = {
    "class": {},
    "mean": {"pool": "mean", "qkv_bias": False, "act": "quick_gelu", "d_mlp": 7},
    "pooler": {"pooler": True, "act": "gelu_tanh"},
    "headless": {"n_classes": 0},
    "base": {"n_classes": 0, "pooler": True, "act": "relu", "patch": 1, "height": 2, "width": 2},
}
WITH_LOGITS = ("class", "mean", "pooler")


def build(name: str = "class", *, dtype: torch.dtype = torch.float32, **changes: Any) -> ViT:
    """A model with weights large enough that every part of it matters."""
    model = ViT(ViTConfig.parse({**SMALL, **CONFIGS[name], **changes}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return model.to(dtype).eval()


def images(model: ViT, count: int = 3, seed: int = 1) -> torch.Tensor:
    c = model.config
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(count, c.channels, c.height, c.width, generator=draw).to(model.embed.map.weight.dtype)


def test_it_is_a_hooked_model_and_in_the_catalogue() -> None:
    assert isinstance(build(), HookedModel)
    assert FAMILIES.load("vit") is ViT
    assert build().abilities == {"logits", "edit", "grad", "weights"}
    assert build("base").abilities == {"edit", "grad", "weights"}
    model, batch = ViT.tiny()
    assert logits(model.run(batch)).shape == (3, 5)
    assert torch.equal(logits(model.run(batch)), logits(model.run(batch.pixels)))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_site_has_its_declared_axes_in_the_order_of_a_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    plain = Listener.hear

    def noting(self: Listener, site: str, tensor: torch.Tensor) -> torch.Tensor:
        order.append(self._prefix + site)
        return plain(self, site, tensor)

    monkeypatch.setattr(Listener, "hear", noting)
    model = build(name)
    c = model.config
    trace = model.run(images(model), capture="*")
    length = {
        "batch": 3, "pos": model.grid.positions, "query": model.grid.positions, "key": model.grid.positions, "head": 3, "kv_head": 3,
        "d_model": 12, "d_head": 4, "d_mlp": c.d_mlp, "class": c.n_classes, "one": 1,
    }  # fmt: skip
    assert order == list(trace.at) == list(model.sites())
    for site in model.sites().values():
        assert set(site.axes) <= set(AXES)
        assert tuple(trace[site].shape) == tuple(length[word] for word in site.axes), site.name
    assert (trace.logits is None) == (c.n_classes == 0)


def test_the_equations() -> None:
    model = build("class", dtype=torch.float64)
    trace = model.run(images(model), capture="*")
    assert torch.equal(trace["blocks.0.hook_resid_pre"], trace["hook_embed"] + trace["hook_pos_embed"])
    assert agree(trace["hook_embed"][:, 0], model.weight("W_class").expand(3, -1), "activation")
    assert agree(trace["hook_pos_embed"][1], model.weight("W_pos"), "activation")
    for i in range(2):
        pre, mid, post = (trace[f"blocks.{i}.hook_resid_{word}"] for word in ("pre", "mid", "post"))
        assert torch.equal(mid, pre + trace[f"blocks.{i}.hook_attn_out"])
        assert torch.equal(post, mid + trace[f"blocks.{i}.hook_mlp_out"])
        assert agree(trace[f"blocks.{i}.attn.hook_pattern"].sum(-1), torch.ones(3, 3, 7).double(), "attention")
    normed = trace["ln_final.hook_normalized"] * model.weight("ln_final.w") + model.weight("ln_final.b")
    assert agree(trace["unembed.hook_in"], normed[:, 0], "activation")
    by_hand = trace["unembed.hook_in"] @ model.weight("W_U") + model.weight("b_U")
    assert agree(logits(trace), by_hand, "logits")
    mean = build("mean", dtype=torch.float64)
    trace = mean.run(images(mean), capture="*")
    normed = trace["ln_final.hook_normalized"] * mean.weight("ln_final.w") + mean.weight("ln_final.b")
    assert agree(trace["unembed.hook_in"], normed[:, 1:].mean(1), "activation")
    pooled = build("pooler", dtype=torch.float64)
    trace = pooled.run(images(pooled), capture="*")
    normed = trace["ln_final.hook_normalized"] * pooled.weight("ln_final.w") + pooled.weight("ln_final.b")
    assert agree(trace["unembed.hook_in"], (normed[:, 0] @ pooled.weight("pooler.W") + pooled.weight("pooler.b")).tanh(), "activation")


def test_every_patch_sees_every_other() -> None:
    model = build(dtype=torch.float64)
    pixels = images(model, 1)
    for pos in range(1, model.grid.positions):
        moved = pixels.clone()
        moved[(..., *model.grid.window(pos))] += 1.0
        site = "blocks.0.hook_attn_out"
        changed = (model.run(moved, capture=site)[site] - model.run(pixels, capture=site)[site]).abs().amax(-1)
        assert (changed > 1e-9).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", WITH_LOGITS)
def test_patching_every_site_with_itself_is_exactly_nothing(name: str, dtype: torch.dtype) -> None:
    model = build(name, dtype=dtype)
    pixels = images(model)
    clean = logits(model.run(pixels))
    for site in model.sites():
        trace = model.run(pixels, capture=site)
        again = model.run(pixels, edit=[FromTrace(site, trace=trace)])
        assert torch.equal(logits(again), logits(trace)), site
        assert agree(logits(trace), clean, "logits"), site


@pytest.mark.parametrize("name", CONFIGS)
def test_every_site_acts_and_its_gradient_says_how(name: str) -> None:
    model = build(name, dtype=torch.float64)
    pixels = images(model, 2)
    draw = torch.Generator().manual_seed(3)
    last = "unembed.hook_in" if not model.config.pooler or model.config.n_classes else "pooler.hook_post"
    last = "unembed.hook_logits" if model.config.n_classes else last
    weights = torch.randn(model.run(pixels, capture=last)[last].shape, dtype=torch.float64, generator=draw)
    trace = model.run(pixels, capture="*", grad=True)
    grads = torch.autograd.grad((trace[last] * weights).sum(), [trace[site] for site in trace.at], allow_unused=True)
    for site, grad in zip(trace.at, grads, strict=True):
        assert grad is not None, site
        move = torch.randn(trace[site].shape, dtype=torch.float64, generator=draw) * 1e-6
        up, down = ((model.run(pixels, capture=last, edit=[Add(site, value=sign * move)])[last] * weights).sum() for sign in (1, -1))
        assert float(up - down) / 2 == pytest.approx(float((grad * move).sum()), rel=2e-4, abs=1e-10), site
        assert float(up - down) != 0, site


@pytest.mark.parametrize("name", WITH_LOGITS)
def test_starting_and_stopping_anywhere_equals_the_whole(name: str) -> None:
    model = build(name, dtype=torch.float64)
    pixels = images(model)
    whole = model.run(pixels, capture="*")
    names = list(model.sites())
    for site in (name for name in names if "hook_resid_" in name):
        later, before = names[names.index(site) :], names[: names.index(site) + 1]
        part = model.run(None, capture=later, resume=Resume(start=site, residual=whole[site]))
        assert agree(logits(part), logits(whole), "logits"), site
        assert all(agree(part[s], whole[s], "activation") for s in later)
        part = model.run(pixels, capture=before, resume=Resume(stop=site))
        assert part.logits is None
        assert all(agree(part[s], whole[s], "activation") for s in before)
        with pytest.raises(BadValue, match="lies before its start or after its stop"):
            model.run(pixels, edit=[Zero("unembed.hook_in")], resume=Resume(stop=site))


def test_the_loss_is_the_summed_cross_entropy_and_dropout_acts_in_training_alone() -> None:
    model = build(dtype=torch.float64, dropout=0.2)
    targets = torch.tensor([1, 4, 0])
    batch = ImageBatch(images(model), targets)
    loss, count = model.loss(batch)
    assert count == 3
    assert agree(loss, functional.cross_entropy(logits(model.run(batch)), targets, reduction="sum"), "logits")
    one = torch.stack([model.loss(batch.rows([row]))[0] for row in range(3)]).sum()
    assert agree(loss, one, "logits")
    model.train()
    torch.manual_seed(0)
    noisy = model.loss(batch)[0]
    assert not agree(noisy, loss, "logits")
    assert torch.equal(logits(model.run(batch)), logits(model.eval().run(batch)))
    noisy.backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters())


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (None, "targets is None"),
        (torch.tensor([1, 2]), r"targets is '\(2,\) torch.int64', but it must be integers \[3\]"),
        (torch.tensor([1.0, 2.0, 0.0]), "torch.float32"),
        (torch.tensor([1, 2, 5]), "within 0 to 4"),
    ],
)
def test_targets_that_cannot_be(targets: torch.Tensor | None, words: str) -> None:
    model = build()
    with pytest.raises(BadValue, match=words):
        model.loss(ImageBatch(images(model), targets))


def test_a_model_without_classes_has_no_loss() -> None:
    model = build("headless")
    with pytest.raises(Incompatible, match="it has 0 classes"):
        model.loss(ImageBatch(images(model), torch.zeros(3, dtype=torch.long)))


def test_bad_input_says_so() -> None:
    model = build()
    pixels = images(model)
    nan = pixels.clone()
    nan[0, 0, 0, 0] = float("nan")
    at = "blocks.1.hook_resid_pre"
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (pixels[:, :, :2], {}, "shape of the pixels"),
        (pixels[:, :1], {}, "shape of the pixels"),
        (pixels.long(), {}, "dtype of the pixels"),
        (nan, {}, "infinite or no number"),
        ("an image", {}, "the batch is 'str'"),
        (None, {}, "the batch is 'NoneType'"),
        (pixels, {"logits": [0]}, "logits is 'positions'"),
        (pixels, {"logits": "last"}, "one set of logits an image"),
        (pixels, {"cache": True}, "it reads everything at once"),
        (pixels, {"resume": Resume(mask=torch.ones(1, 7, 7).bool())}, r"resume\.mask"),
        (None, {"resume": Resume(start=at, residual=torch.zeros(1, 6, 12))}, "7: the class token and the patches"),
        (None, {"resume": Resume(start=at)}, "start without residual"),
    ]
    for batch, asked, words in cases:
        with pytest.raises(BadValue, match=words):
            model.run(batch, **asked)
    assert model.run(pixels, logits=None).logits is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_heads": 5}, "n_heads must divide d_model"),
        ({"patch": 4}, "patch must divide height and width"),
        ({"class_names": ["a"]}, "class_names must be one a class"),
        ({"pooler": True, "pool": "mean"}, "pool must be class"),
        ({"d_model": "wide"}, "d_model"),
        ({"n_kinds": 2}, "no field 'n_kinds'"),
    ],
)
def test_configs_that_cannot_be(changes: dict[str, Any], words: str) -> None:
    with pytest.raises((BadValue, UnknownName), match=words):
        ViTConfig.parse({**SMALL, **changes})


def test_a_tokenizer_is_refused_and_weights_have_names() -> None:
    with pytest.raises(BadValue, match="reads no text"):
        ViT(ViTConfig.parse(SMALL), CharTokenizer.of("ab"))
    model = build()
    shapes = {"W_E": (8, 12), "b_E": (12,), "W_class": (12,), "W_pos": (7, 12), "W_U": (12, 5), "b_U": (5,), "ln_final.b": (12,)}
    for name, shape in shapes.items():
        assert tuple(model.weight(name).shape) == shape
    assert ViT.tiny()[0].digest() == ViT.tiny()[0].digest() != ViT.tiny(1)[0].digest()


def test_an_edit_of_one_patch_is_an_edit_of_its_position() -> None:
    """Replacing a patch's embedding by another image's gives the run in which its pixels were swapped."""
    model = build(dtype=torch.float64)
    here, there = images(model, 1), images(model, 1, seed=2)
    pos = 4
    swapped = here.clone()
    swapped[(..., *model.grid.window(pos))] = there[(..., *model.grid.window(pos))]
    other = model.run(there, capture="hook_embed")["hook_embed"]
    patched = model.run(here, edit=[Replace("hook_embed", value=other[:, pos : pos + 1], at={"pos": pos})])
    assert agree(logits(patched), logits(model.run(swapped)), "logits")
    wrong = model.run(here, edit=[Apply("hook_embed", fn=lambda old, _: other[:, 1:2], at={"pos": 1})])
    assert not agree(logits(wrong), logits(model.run(swapped)), "logits")
