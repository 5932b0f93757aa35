"""Noise and the way back beside slow twins and closed forms; and the parts of a denoiser."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from workbench.blocks.diffusion import (
    Canvas,
    Noise,
    StepEmbed,
    ddim,
    guided,
    mixed,
    null_text,
    sampled,
    starts,
    thresholded,
    velocity_error,
)  # fmt: skip
from workbench.blocks.frontends import Grid
from workbench.blocks.init import initialise
from workbench.core.batch import DiffusionBatch, PairBatch
from workbench.core.errors import BadValue
from workbench.core.tolerance import gap

NOISE = Noise(12)
SHAPE = (3, 2, 4, 6)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def alpha_of(step: int, n_steps: int) -> float:
    time = (step + 1) / n_steps
    return math.cos((time + 0.008) / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)


def test_the_levels_are_the_schedules_and_the_last_step_is_noise_alone() -> None:
    step = torch.arange(12)
    alpha, sigma = NOISE.levels(step, torch.zeros(1, dtype=torch.float64))
    slow = torch.tensor([alpha_of(s, 12) for s in range(12)], dtype=torch.float64)
    assert gap(alpha.flatten(), slow) < 1e-12
    assert gap(alpha.square() + sigma.square(), torch.ones_like(alpha)) < 1e-12
    assert bool((alpha.diff(dim=0) < 0).all())
    clean, noise = random(1, 2, 4, 6), random(1, 2, 4, 6, seed=1)
    assert gap(NOISE.noisy(clean, noise, torch.tensor([11])), noise) < 1e-12
    assert NOISE.levels(step, torch.zeros(1))[0].dtype == torch.float32


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
def test_mixture_and_velocity_value_by_value_and_back(dtype: torch.dtype, bound: float) -> None:
    clean, noise, step = random(*SHAPE).to(dtype), random(*SHAPE, seed=1).to(dtype), torch.tensor([0, 5, 11])
    noisy, velocity = NOISE.noisy(clean, noise, step), NOISE.velocity(clean, noise, step)
    for row in range(3):
        a = alpha_of(int(step[row]), 12)
        s = math.sqrt(max(0.0, 1 - a * a))
        for x, e, n, v in zip(clean[row].flatten(), noise[row].flatten(), noisy[row].flatten(), velocity[row].flatten()):
            assert float(n) == pytest.approx(a * float(x) + s * float(e), abs=2 * bound)
            assert float(v) == pytest.approx(a * float(e) - s * float(x), abs=2 * bound)
    assert gap(NOISE.clean(noisy, velocity, step), clean) < bound
    assert gap(NOISE.clean(noisy, velocity.neg(), step), clean) > 0.1  # the sign matters


def slow_ddim(start: Tensor, visited: list[int], predict) -> Tensor:  # type: ignore[no-untyped-def]  # a stand-in of two numbers
    """One number at a time, in Python's floats."""
    out = torch.empty_like(start)
    for place, value in enumerate(start.flatten().tolist()):
        x = value
        for i, step in enumerate(visited):
            a = alpha_of(step, 12)
            s = math.sqrt(1 - a * a)
            v = predict(x, step)
            clean, e = a * x - s * v, s * x + a * v
            if i + 1 == len(visited):
                x = clean
            else:
                b = alpha_of(visited[i + 1], 12)
                x = b * clean + math.sqrt(1 - b * b) * e
        out.view(-1)[place] = x
    return out


@pytest.mark.parametrize("steps", [1, 2, 5, 12])
def test_the_way_back_is_that_of_a_slow_twin(steps: int) -> None:
    start, visited = random(2, 1, 2, 2), NOISE.visited(steps)
    fast = ddim(lambda x, at: 0.3 * x + 0.1 * at.view(-1, 1, 1, 1).double() - 0.2, start, NOISE, visited)
    assert gap(fast, slow_ddim(start, visited, lambda x, step: 0.3 * x + 0.1 * step - 0.2)) < 1e-12
    assert gap(fast, slow_ddim(start, visited, lambda x, step: 0.3 * x + 0.1 * step - 0.1)) > 1e-3


@pytest.mark.parametrize("steps", [1, 3, 12])
def test_who_knows_the_image_finds_it_whatever_the_start(steps: int) -> None:
    clean, start = random(*SHAPE), random(*SHAPE, seed=1)

    def knows(x: Tensor, step: Tensor) -> Tensor:
        alpha, sigma = NOISE.levels(step, x)
        return NOISE.velocity(clean, (x - alpha * clean) / sigma, step)

    assert gap(ddim(knows, start, NOISE, NOISE.visited(steps)), clean) < 1e-12


def test_for_gaussian_images_the_best_prediction_leads_to_the_closed_form() -> None:
    """Images of deviation d: the best guess of the image is alpha d² / (alpha² d² + sigma²) times the noisy one, and the way back from a
    start z ends at d z (the flow keeps every quantile)."""
    d, z = 0.4, random(1, 1, 8, 8)

    def error(steps: int) -> float:
        noise = Noise(1000)

        def best(x: Tensor, step: Tensor) -> Tensor:
            alpha, sigma = noise.levels(step, x)
            clean = alpha * d * d / (alpha.square() * d * d + sigma.square()) * x
            return noise.velocity(clean, (x - alpha * clean) / sigma, step)

        return gap(ddim(best, z, noise, noise.visited(steps)), d * z)

    errors = [error(steps) for steps in (10, 100, 1000)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 2e-3


def test_visited_steps_fall_from_the_last_to_the_first() -> None:
    assert NOISE.visited(1) == [11]
    assert NOISE.visited(12) == list(range(11, -1, -1))
    assert Noise(1000).visited(3) == [999, 500, 0]
    assert all(a > b for a, b in zip(Noise(100).visited(70), Noise(100).visited(70)[1:]))
    for steps in (0, 13):
        with pytest.raises(BadValue, match=f"steps is {steps}, but it must be within 1 to 12"):
            NOISE.visited(steps)
    with pytest.raises(BadValue, match="the steps visited is 'none'"):
        ddim(lambda x, at: x, random(*SHAPE), NOISE, [])


def test_thresholding_cuts_each_image_at_its_own_quantile() -> None:
    images = random(*SHAPE) * torch.tensor([0.2, 1.0, 3.0]).view(-1, 1, 1, 1)
    out = thresholded(images, 0.9)
    for before, after in zip(images, out):
        sizes = sorted(abs(float(v)) for v in before.flatten())
        place = 0.9 * (len(sizes) - 1)
        low = int(place)
        size = max(1.0, sizes[low] + (place - low) * (sizes[low + 1] - sizes[low]))
        slow = torch.tensor([min(max(float(v), -size), size) / size for v in before.flatten()], dtype=torch.float64)
        assert gap(after.flatten(), slow) < 1e-12
    assert torch.equal(out[0], images[0])  # in range already: nothing is changed
    assert float(out.abs().max()) <= 1
    clean = ddim(lambda x, at: -5 * x, random(*SHAPE), NOISE, NOISE.visited(4), 0.9)
    assert float(clean.abs().max()) <= 1


def test_guidance_goes_from_the_null_branch_through_the_texts() -> None:
    text, null = random(*SHAPE), random(*SHAPE, seed=1)
    assert gap(guided(text, null, 1.0), text) < 1e-12
    assert torch.equal(guided(text, null, 0.0), null)
    assert gap(guided(text, null, 3.0), 3 * text - 2 * null) < 1e-12
    asked: list[tuple[int, bool]] = []

    def predict(batch: DiffusionBatch) -> Tensor:
        told = batch.mask is None
        asked.append((int(batch.step[0]), told))
        return text if told else null

    start = DiffusionBatch(random(*SHAPE, seed=2), torch.full((3,), 11), torch.zeros(3, 4, dtype=torch.long))
    out = sampled(predict, start, NOISE, steps=2, guidance=2.5)
    assert asked == [(11, True), (11, False), (0, True), (0, False)]
    assert torch.equal(out, ddim(lambda x, at: guided(text, null, 2.5), start.pixels, NOISE, [11, 0], 0.995))
    asked.clear()
    sampled(predict, start, NOISE, steps=2, guidance=1.0)
    assert asked == [(11, True), (0, True)]
    assert not bool(null_text(start).mask.any())  # type: ignore[union-attr]  # it was just put there


def test_a_start_depends_on_its_seed_and_row_alone() -> None:
    whole = starts(4, (2, 3, 5), 7, torch.zeros(1, dtype=torch.float64))
    assert torch.equal(starts(2, (2, 3, 5), 7, torch.zeros(1, dtype=torch.float64)), whole[:2])
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(starts(4, (2, 3, 5), 8, whole)[0], whole[0])


# --- parts ------------------------------------------------------------------------------------------------------


def test_the_steps_sinusoids_are_those_of_a_slow_twin() -> None:
    made = StepEmbed(10, 6)
    initialise(made, 0, writes=1, std=0.5)
    made = made.double()
    out = made(torch.tensor([0, 9]))
    for row, step in enumerate((0, 9)):
        angles = [1000 * (step + 1) / 10 / 10_000 ** (2 * i / 6) for i in range(3)]
        waves = torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles], dtype=torch.float64)
        hidden = made.inner.weight @ waves + made.inner.bias
        slow = made.outer.weight @ (hidden * hidden.sigmoid()) + made.outer.bias
        assert gap(out[row], slow) < 1e-12
    assert gap(out[0], out[1]) > 1e-3
    for bad, words in ((torch.tensor([10]), "a step is 10, but it must be within 0 to 9"), (torch.tensor([0.5]), "integers \\[batch\\]")):
        with pytest.raises(BadValue, match=words):
            made(bad)


def test_a_low_image_is_the_mean_of_its_pixels_and_is_enlarged_by_repeating_them() -> None:
    canvas = Canvas(Grid(4, 6, 2), 2, 8, upsamples=2)
    initialise(canvas, 0, writes=1)
    canvas = canvas.double()
    pixels = random(*SHAPE)
    low = canvas.lowered(pixels)
    read = canvas.read(pixels, low)
    assert low.shape == (3, 2, 2, 3)
    assert read.shape == (3, 4, 4, 6)
    assert torch.equal(read[:, :2], pixels)
    for y in range(4):
        for x in range(6):
            block = pixels[:, :, y // 2 * 2 : y // 2 * 2 + 2, x // 2 * 2 : x // 2 * 2 + 2]
            assert gap(read[:, 2:, y, x], block.mean((2, 3))) < 1e-12
    with pytest.raises(BadValue, match="the low image is 'left out', but it must be given"):
        canvas.read(pixels, None)
    with pytest.raises(BadValue, match=r"must be \[batch, 2, 2, 3\]"):
        canvas.read(pixels, pixels)
    with pytest.raises(BadValue, match="the number of low images is 2, but it must be 3"):
        canvas.read(pixels, low[:2])
    base = Canvas(Grid(4, 6, 2), 2, 8, upsamples=1)
    initialise(base, 0, writes=1)
    assert torch.equal(base.double().read(pixels, None), pixels)
    with pytest.raises(BadValue, match="the low image is 'given', but it must be left out"):
        base.read(pixels, low)


def test_what_is_learned_from_is_the_mixture_and_its_velocity() -> None:
    clean, tokens = random(400, 1, 2, 2), torch.zeros(400, 3, dtype=torch.long)
    real = torch.ones(400, 3, dtype=torch.bool)
    real[:, 2] = False
    by = torch.Generator().manual_seed(5)
    low = random(400, 1, 1, 1, seed=3)
    out = mixed(clean, PairBatch(clean, tokens, real), NOISE, low=low, low_noise=0.1, drop_text=0.25, by=by)
    assert out.targets is not None
    assert out.mask is not None
    assert out.low is not None
    assert gap(NOISE.clean(out.pixels, out.targets, out.step), clean) < 1e-12
    assert sorted(set(out.step.tolist())) == list(range(12))
    alpha, sigma = NOISE.levels(out.step, clean)
    e = (sigma * out.pixels + alpha * out.targets).flatten()
    assert abs(float(e.mean())) < 0.1
    assert abs(float(e.std()) - 1) < 0.1
    assert abs(float((out.low - low).std()) - 0.1) < 0.02
    assert 0.15 < 1 - float(out.mask.any(1).float().mean()) < 0.35
    assert not bool(out.mask[:, 2].any())
    assert bool((out.mask[:, 0] == out.mask[:, 1]).all())
    plain = mixed(clean, PairBatch(clean, tokens), NOISE, low=None, low_noise=0.0, drop_text=0.0, by=None)
    assert plain.low is None
    assert plain.mask is not None
    assert bool(plain.mask.all())
    with pytest.raises(BadValue, match=r"the shapes of text and mask .* must be \[400, pos\] both"):
        mixed(clean, PairBatch(clean, tokens[:5]), NOISE, low=None, low_noise=0.0, drop_text=0.0, by=None)


def test_the_error_is_that_of_the_images_weighted_by_one_plus_signal_to_noise() -> None:
    step, noisy, predicted, targets = torch.tensor([0, 5, 11]), *(random(*SHAPE, seed=seed) for seed in range(3))
    total, count = velocity_error(predicted, targets)
    ours, truth = (NOISE.clean(noisy, velocity, step) for velocity in (predicted, targets))
    alphas = [alpha_of(int(one), 12) for one in step]
    weights = [1 + alpha**2 / (1 - alpha**2) for alpha in alphas]
    slow = sum(
        weight * sum((float(a) - float(b)) ** 2 for a, b in zip(left.flatten(), right.flatten()))
        for weight, left, right in zip(weights, ours, truth)
    )
    assert float(total) == pytest.approx(slow, rel=1e-9)
    assert count == 3 * 2 * 4 * 6
    for bad in (None, random(3, 2, 4, 4)):
        with pytest.raises(BadValue, match=r"the batch's targets .* must be velocities \(3, 2, 4, 6\)"):
            velocity_error(predicted, bad)
