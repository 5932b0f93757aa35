"""Text-conditioned diffusion: branches, padding, upsampling, painting beside a slow twin, parts of a run, learning, bad input."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.families.models import logits
from workbench.blocks.diffusion import starts
from workbench.blocks.listen import Listener
from workbench.core.batch import DiffusionBatch, PairBatch
from workbench.core.errors import BadValue, UsageError
from workbench.core.protocol import HookedModel, Replace, Resume, Zero
from workbench.core.tolerance import gap
from workbench.core.types import AXES
from workbench.data.text import CharTokenizer
from workbench.families.imagen import Imagen, ImagenConfig
from workbench.training.loop import evaluate, train
from workbench.training.spec import TrainSpec

SMALL: dict[str, Any] = {
    "n_layers": 2, "n_layers_text": 1, "d_model": 16, "n_heads": 4, "d_vocab": 11, "n_ctx": 5, "height": 4, "width": 6, "channels": 2,
    "patch": 2, "n_steps": 10,
}  # fmt: skip
TEXT = torch.tensor([[1, 2, 3, 4], [5, 6, 9, 9], [7, 8, 0, 10]])
MASK = torch.tensor([[True] * 4, [True, True, False, False], [False] * 4])


def build(dtype: torch.dtype = torch.float64, **changes: Any) -> Imagen:
    """A model with weights large enough that every part of it matters."""
    model = Imagen(ImagenConfig.parse({**SMALL, **changes}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return model.to(dtype).eval()


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def noisy(dtype: torch.dtype = torch.float64, mask: Tensor | None = MASK) -> DiffusionBatch:
    return DiffusionBatch(random(3, 2, 4, 6, dtype=dtype), torch.tensor([0, 4, 9]), TEXT, mask)


def test_it_is_a_hooked_model_that_predicts_whole_images() -> None:
    model = build()
    assert isinstance(model, HookedModel)
    assert logits(model.run(noisy())).shape == (3, 2, 4, 6)
    assert model.run(noisy(), logits=None).logits is None
    assert {tuple(model.weight(name).shape) for name in ("text.W_null", "denoiser.b_E")} == {(16,)}
    assert tuple(model.weight("W_U").shape) == (16, 8)
    assert tuple(model.weight("denoiser.blocks.1.cross_attn.W_K").shape) == (4, 16, 4)


@pytest.mark.parametrize("upsamples", [1, 2])
def test_every_site_has_its_declared_axes_in_the_order_of_a_run(upsamples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    plain = Listener.hear

    def noting(self: Listener, site: str, tensor: Tensor) -> Tensor:
        order.append(self._prefix + site)
        return plain(self, site, tensor)

    monkeypatch.setattr(Listener, "hear", noting)
    model, batch = build(upsamples=upsamples), noisy()
    trace = model.run(replace(batch, low=random(3, 2, 2, 3)) if upsamples == 2 else batch, capture="*")
    assert order == list(trace.at) == list(model.sites())
    shared = {
        "batch": 3, "head": 4, "kv_head": 4, "d_model": 16, "d_head": 4, "d_mlp": 64, "one": 1, "channel": 2, "height": 4, "width": 6,
    }  # fmt: skip
    for site in model.sites().values():
        pos = 4 if site.stack == "text" else 6
        length = {**shared, "pos": pos, "query": pos, "key": 4 if "cross_attn" in site.name else pos}
        assert set(site.axes) <= set(AXES)
        assert tuple(trace[site].shape) == tuple(length[word] for word in site.axes), site.name


# --- what a run is told -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
def test_padding_is_as_if_it_were_not_there(dtype: torch.dtype, bound: float) -> None:
    model, batch = build(dtype), noisy(dtype)
    together = logits(model.run(batch))[1]
    alone = logits(model.run(replace(batch.rows([1]), tokens=TEXT[1:2, :2], mask=None)))[0]
    assert gap(together, alone) < bound
    assert gap(logits(model.run(replace(batch, mask=None)))[1], together) > 1e-3  # unmasked, it is text


def test_the_null_text_is_one_whatever_its_tokens_and_is_learned() -> None:
    model, batch = build(), noisy()
    plain = logits(model.run(batch))
    other = TEXT.clone()
    other[2] = 0
    assert torch.equal(logits(model.run(replace(batch, tokens=other))), plain)
    assert gap(logits(model.run(replace(batch, mask=None)))[2], plain[2]) > 1e-3
    pattern = model.run(batch, capture="denoiser.blocks.0.cross_attn.hook_pattern")["denoiser.blocks.0.cross_attn.hook_pattern"]
    assert torch.equal(pattern[2, ..., 0], torch.ones(4, 6, dtype=torch.float64))
    model.loss(replace(batch, targets=batch.pixels))[0].backward()
    assert all(parameter.grad is not None and bool(parameter.grad.isfinite().all()) for parameter in model.parameters())
    assert float(model.text.null.weight.grad.abs().max()) > 0  # type: ignore[union-attr]  # it has one, as was just seen


def test_text_reaches_the_image_through_cross_attention_alone_and_the_step_through_the_condition() -> None:
    model, batch = build(), noisy()
    told = replace(batch, tokens=TEXT.roll(1, 0), mask=None)
    deaf = [Zero("denoiser.blocks.*.hook_cross_attn_out")]
    assert gap(logits(model.run(told)), logits(model.run(batch))) > 1e-3
    assert torch.equal(logits(model.run(told, edit=deaf)), logits(model.run(batch, edit=deaf)))
    later = replace(batch, step=torch.tensor([5, 5, 5]))
    one = Replace("denoiser.hook_condition", value=random(1, 16))
    assert gap(logits(model.run(later)), logits(model.run(batch))) > 1e-3
    assert torch.equal(logits(model.run(later, edit=[one])), logits(model.run(batch, edit=[one])))


def test_an_upsampling_stage_reads_its_low_image() -> None:
    model, low = build(upsamples=2), random(3, 2, 2, 3, seed=4)
    batch = replace(noisy(), low=low)
    assert gap(logits(model.run(replace(batch, low=low.roll(1, 0)))), logits(model.run(batch))) > 1e-3
    pixels = random(3, 2, 4, 6, seed=5).sigmoid()
    made = model.noised(PairBatch(pixels, TEXT))
    assert made.low is not None
    assert made.low.shape == (3, 2, 2, 3)
    assert gap(made.low, model.canvas.lowered(2 * pixels - 1)) > 1e-3  # it is noised a little
    clean = build(upsamples=2, low_noise=0.0).noised(PairBatch(pixels, TEXT)).low
    assert clean is not None
    assert gap(clean, model.canvas.lowered(2 * pixels - 1)) < 1e-12


def test_a_run_from_a_place_hears_nothing_before_it() -> None:
    model, batch = build(), noisy()
    full = model.run(batch, capture="*")
    for place in ("text.blocks.0.hook_resid_mid", "denoiser.blocks.1.hook_resid_mid_cross"):
        resume = Resume(start=place, residual=full[place])
        later = "denoiser.blocks.1.hook_resid_post"
        trace = model.run(batch, capture=[place, later], resume=resume)
        assert gap(logits(trace), logits(full)) < 1e-12
        assert gap(trace[later], full[later]) < 1e-12
        with pytest.raises(BadValue, match=r"text\.hook_embed.*before its start"):
            model.run(batch, capture="text.hook_embed", resume=resume)
    with pytest.raises(BadValue, match=r"the shape of resume.residual is \(3, 4, 16\), but it must be that of the batch, \(3, 6\)"):
        model.run(batch, resume=Resume(start="denoiser.blocks.0.hook_resid_pre", residual=random(3, 4, 16)))


# --- learning and painting ----------------------------------------------------------------------------------------


def test_the_loss_is_the_squared_error_of_the_velocities() -> None:
    model, batch = build(), replace(noisy(), targets=random(3, 2, 4, 6, seed=2))
    assert batch.targets is not None
    total, count = model.loss(batch)
    out = logits(model.run(batch))
    slow = sum((float(a) - float(b)) ** 2 for a, b in zip(out.flatten(), batch.targets.flatten()))
    assert total.item() == pytest.approx(slow, rel=1e-12)
    assert count == 3 * 2 * 4 * 6
    with pytest.raises(BadValue, match="the batch's targets is None"):
        model.loss(noisy())


def test_pairs_are_noised_by_chance_in_training_and_always_alike_otherwise() -> None:
    model, batch = build(), PairBatch(random(3, 2, 4, 6).sigmoid(), TEXT)
    state = torch.random.get_rng_state()
    first, again = model.noised(batch), model.noised(batch)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(model.loss(batch)[0], model.loss(first)[0])
    clean = model.noise.clean(first.pixels, first.targets, first.step)  # type: ignore[arg-type]  # it has targets
    assert gap(clean, 2 * batch.pixels - 1) < 1e-12
    model.train()
    torch.manual_seed(0)
    one, two = model.noised(batch), model.noised(batch)
    torch.manual_seed(0)
    assert torch.equal(model.noised(batch).pixels, one.pixels)
    assert not torch.equal(one.pixels, two.pixels)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_painting_is_the_way_back_with_runs_of_both_branches(guidance: float) -> None:
    model = build()
    asked: list[DiffusionBatch] = []
    painted = model.paint(TEXT, mask=MASK, seed=3, steps=4, guidance=guidance, each=asked.append)
    x = starts(3, (2, 4, 6), 3, model.canvas.map.weight)
    visited = [9, 6, 3, 0]
    for i, step in enumerate(visited):
        at = torch.full((3,), step)
        batch = DiffusionBatch(x, at, TEXT, MASK)
        assert gap(asked[i].pixels, x) < 1e-12
        assert torch.equal(logits(model.run(asked[i])), model.predict(asked[i]))
        null = logits(model.run(replace(batch, mask=torch.zeros_like(MASK))))
        v = null + guidance * (logits(model.run(batch)) - null)
        alpha, sigma = model.noise.levels(at, x)
        clean = alpha * x - sigma * v
        size = clean.abs().flatten(1).quantile(0.995, dim=1).clamp(min=1).view(-1, 1, 1, 1)
        clean = clean.clamp(-size, size) / size
        if i < 3:
            a, s = model.noise.levels(torch.full((3,), visited[i + 1]), x)
            x = a * clean + s * (x - alpha * clean) / sigma
        else:
            x = clean
    assert len(asked) == 4
    assert gap(painted, (x + 1) / 2) < 1e-12


def test_a_row_is_painted_alike_alone_and_without_guidance_toward_it_a_text_is_nothing() -> None:
    model = build()
    whole = model.paint(TEXT, seed=1, steps=3)
    assert gap(model.paint(TEXT[:1], seed=1, steps=3), whole[:1]) < 1e-12
    assert gap(model.paint(TEXT, seed=2, steps=3), whole) > 1e-3
    null = model.paint(TEXT, seed=1, steps=3, guidance=0.0)
    assert gap(model.paint(TEXT.roll(1, 0), seed=1, steps=3, guidance=0.0), null) < 1e-12
    assert gap(null, whole) > 1e-3
    stage = build(upsamples=2)
    low = random(3, 2, 2, 3, seed=4).sigmoid()
    seen: list[DiffusionBatch] = []
    stage.paint(TEXT, low=low, steps=2, each=seen.append)
    assert seen[0].low is not None
    assert gap(seen[0].low, 2 * low - 1) < 1e-12


class Flats:
    """Images of one colour, and a word for each colour (a RowData)."""

    COLOURS = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.8, 0.8]])

    def __len__(self) -> int:
        return 24

    def batch(self, indices: Sequence[int]) -> PairBatch:
        word = torch.tensor([int(i) % 3 for i in indices])
        return PairBatch(self.COLOURS[word].view(-1, 2, 1, 1).expand(-1, 2, 4, 6).contiguous(), word.unsqueeze(1))

    def digest(self) -> str:
        return hashlib.sha256(b"flats").hexdigest()


def test_it_learns_to_paint_what_it_is_told() -> None:
    spec = TrainSpec.parse({"steps": 120, "batch_rows": 24, "lr": 1e-2, "min_lr": 1e-3, "warmup": 5, "weight_decay": 0.0, "threads": 1})
    model = Imagen(ImagenConfig.parse({**SMALL, "d_vocab": 3, "n_ctx": 1, "init_std": 0.2, "drop_text": 0.2, "n_steps": 100}))
    before = evaluate(model, Flats())
    train(model, Flats(), spec)
    model.eval()
    assert evaluate(model, Flats())[0] < 0.2 * before[0]
    painted = model.paint(torch.arange(3).unsqueeze(1), steps=10, guidance=1.5)
    apart = (painted.mean((2, 3)).unsqueeze(1) - Flats.COLOURS).abs().sum(2)
    assert apart.argmin(1).tolist() == [0, 1, 2]
    assert float(apart.min(1).values.max()) < 0.4


# --- bad input ----------------------------------------------------------------------------------------------------


def test_bad_input_is_refused_with_the_rule_it_breaks() -> None:
    model, good = build(), noisy()
    cases: list[tuple[Any, str]] = [
        (good.pixels, "the batch is 'Tensor', but it must be a DiffusionBatch. `noised` makes one of a PairBatch"),
        (replace(good, pixels=good.pixels[..., :4]), r"must be \[batch, 2, 4, 6\]"),
        (replace(good, step=torch.tensor([0, 1, 10])), "a step is 10, but it must be within 0 to 9"),
        (replace(good, step=torch.tensor([0, 1])), r"the rows of images, steps and texts is \(3, 2, 3\), but it must be equally many"),
        (replace(good, tokens=TEXT + 1), "a token id is 11, but it must be within 0 to 10"),
        (replace(good, mask=MASK[:, :2]), r"the mask is .* but it must be bool \(3, 4\), one a token"),
        (replace(good, tokens=torch.zeros(3, 6, dtype=torch.long), mask=None), "the number of tokens is 6, but it must be at most 5"),
        (replace(good, low=random(3, 2, 2, 3)), "the low image is 'given', but it must be left out"),
    ]
    for batch, words in cases:
        with pytest.raises(BadValue, match=words):
            model.run(batch)
    with pytest.raises(BadValue, match="logits is 'last', but it must be 'all' or None"):
        model.run(good, logits="last")
    with pytest.raises(BadValue, match="cache is True, but it must be false for a imagen model"):
        model.run(good, cache=True)
    with pytest.raises(BadValue, match="steps is 11, but it must be within 1 to 10"):
        model.paint(TEXT, steps=11)


def test_a_config_or_tokenizer_that_does_not_fit_is_refused() -> None:
    cases = {"n_heads": 3, "patch": 4, "upsamples": 4, "d_model": 15}
    words = ("n_heads must divide d_model", "patch must divide height", "upsamples must divide height", "multiple of 2")
    for (field, value), said in zip(cases.items(), words, strict=True):
        with pytest.raises(UsageError, match=said):
            ImagenConfig.parse({**SMALL, field: value})
    with pytest.raises(BadValue, match="d_vocab is 11, but it must be the tokenizer's"):
        Imagen(ImagenConfig.parse(SMALL), CharTokenizer("abc"))
