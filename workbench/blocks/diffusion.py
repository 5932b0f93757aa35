"""Images out of noise (Ho et al. 2020): the noise, its steps, what is predicted, and the way back.

Step s = 0 .. n_steps - 1 is the time t = (s + 1) / n_steps. An image x of values in [-1, 1] and noise e of deviation 1 are mixed as

    noisy    = alpha x + sigma e,    alpha = cos((t + o) / (1 + o) * pi / 2) / cos(o / (1 + o) * pi / 2),    o = 0.008
                                     sigma = sqrt(1 - alpha²)                          (cosine schedule, Nichol and Dhariwal 2021)
    velocity = alpha e - sigma x                                                       (the target, Salimans and Ho 2022)

so that ``x = alpha noisy - sigma velocity`` and ``e = sigma noisy + alpha velocity``, also at the last step, where alpha is 0 and the
noisy image is noise alone. The way back is DDIM's (Song et al. 2021): without noise of its own, so a start decides its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from workbench.blocks.embed import RESIDUAL, Axes
from workbench.blocks.frontends import Grid, check_pixels, patches
from workbench.blocks.init import generator_of, linear, table
from workbench.blocks.listen import Listener, hear
from workbench.blocks.quantize import unpatched
from workbench.core.batch import DiffusionBatch, PairBatch
from workbench.core.errors import BadValue

OFFSET = 0.008
SHARE = 0.995
"""Quantile of an image's values at which sampling cuts it (see ``thresholded``)."""
Image = Float[Tensor, "batch channel height width"]


# --- noise and the way back -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Noise:
    """The schedule at ``n_steps`` steps."""

    n_steps: int

    def levels(self, step: Int[Tensor, " batch"], like: Tensor) -> tuple[Float[Tensor, "batch 1 1 1"], Float[Tensor, "batch 1 1 1"]]:
        """``alpha`` and ``sigma`` of each image, computed in float64 and rounded once to the dtype of ``like``."""
        time = (step.to("cpu", torch.float64) + 1) / self.n_steps
        turn = math.pi / 2 / (1 + OFFSET)
        alpha = ((time + OFFSET) * turn).cos() / math.cos(OFFSET * turn)
        sigma = (1 - alpha.square()).sqrt()
        return tuple(level.view(-1, 1, 1, 1).to(like.device, like.dtype) for level in (alpha, sigma))  # type: ignore[return-value]  # two

    def noisy(self, clean: Image, noise: Image, step: Int[Tensor, " batch"]) -> Image:
        """The mixture at ``step``."""
        alpha, sigma = self.levels(step, clean)
        return alpha * clean + sigma * noise

    def velocity(self, clean: Image, noise: Image, step: Int[Tensor, " batch"]) -> Image:
        """What is to be predicted of the mixture."""
        alpha, sigma = self.levels(step, clean)
        return alpha * noise - sigma * clean

    def clean(self, noisy: Image, velocity: Image, step: Int[Tensor, " batch"]) -> Image:
        """The image that a velocity says is in the mixture."""
        alpha, sigma = self.levels(step, noisy)
        return alpha * noisy - sigma * velocity

    def last(self, rows: int) -> Int[Tensor, " batch"]:
        """The step of pure noise, ``rows`` times."""
        return torch.full((rows,), self.n_steps - 1)

    def visited(self, steps: int) -> list[int]:
        """``steps`` steps from the last to the first, evenly spaced (one: the last). Raises BadValue."""
        if not 1 <= steps <= self.n_steps:
            raise BadValue("steps", steps, f"within 1 to {self.n_steps}, the model's steps of noise")
        return [round((self.n_steps - 1) * (1 - i / max(1, steps - 1))) for i in range(steps)]


def ddim(
    predict: Callable[[Image, Int[Tensor, " batch"]], Image], start: Image, noise: Noise, visited: Sequence[int], share: float | None = None
) -> Image:
    """The image that noise ``start`` leads to. ``predict`` gives the velocity of noisy images at their steps; from each of ``visited``
    (falling) the next is reached with the predicted noise, and the last one's clean image is the end. ``share``: see ``thresholded``."""
    if not visited:
        raise BadValue("the steps visited", "none", "at least one")
    x, clean = start, start
    for i, step in enumerate(visited):
        at = torch.full((len(x),), step, device=x.device)
        clean = noise.clean(x, predict(x, at), at)
        if share is not None:
            clean = thresholded(clean, share)
        if i + 1 < len(visited):
            alpha, sigma = noise.levels(at, x)
            x = noise.noisy(clean, (x - alpha * clean) / sigma, torch.full_like(at, visited[i + 1]))
    return clean


def thresholded(clean: Image, share: float) -> Image:
    """Dynamic thresholding (Saharia et al. 2022): values beyond ``s``, each image's quantile ``share`` of the sizes of its values, are cut
    and all divided by s, where s is above 1; then all lie in [-1, 1]. Guidance would otherwise drive colours out of range."""
    size = clean.abs().flatten(1).quantile(share, dim=1).clamp(min=1.0).view(-1, 1, 1, 1)
    return clean.clamp(-size, size) / size


def guided(text: Image, null: Image, scale: float) -> Image:
    """Classifier-free guidance (Ho and Salimans 2022): from the prediction for the null text through that for the text; 1 is the text's
    own, 0 the null's."""
    return null + scale * (text - null)


def mixed(
    clean: Image, text: PairBatch, noise: Noise, *, low: Tensor | None, low_noise: float, drop_text: float, by: torch.Generator | None
) -> DiffusionBatch:
    """What a model learns from: each image (-1 to 1) at a random step, with its velocity; a share ``drop_text`` of the texts is the null
    text, and low images have noise of deviation ``low_noise`` (Saharia et al. 2022). ``by`` draws (None: torch's own generator)."""
    rows, device = len(clean), clean.device
    if len(text.tokens) != rows or (text.mask is not None and text.mask.shape != text.tokens.shape):
        found = (tuple(text.tokens.shape), None if text.mask is None else tuple(text.mask.shape))
        raise BadValue("the shapes of text and mask", found, f"[{rows}, pos] both, a text an image")
    step = torch.randint(noise.n_steps, (rows,), generator=by).to(device)
    e = torch.randn(clean.shape, generator=by, dtype=clean.dtype).to(device)
    kept = (torch.rand(rows, 1, generator=by) >= drop_text).to(device).expand(text.tokens.shape)
    mask = kept if text.mask is None else kept & text.mask.to(device)
    if low is not None:
        low = low + low_noise * torch.randn(low.shape, generator=by, dtype=low.dtype).to(device)
    return DiffusionBatch(noise.noisy(clean, e, step), step, text.tokens.to(device), mask, low, noise.velocity(clean, e, step))


def velocity_error(predicted: Image, targets: Tensor | None) -> tuple[Float[Tensor, ""], int]:
    """The summed squared error of velocities, and the number of values: that of the images they imply, each weighted by one plus its
    signal-to-noise ratio (Salimans and Ho 2022). Raises BadValue where there are no targets, or others than images like these."""
    if targets is None or targets.shape != predicted.shape or not targets.is_floating_point():
        found = None if targets is None else f"{tuple(targets.shape)} {targets.dtype}"
        raise BadValue("the batch's targets", found, f"velocities {tuple(predicted.shape)}")
    wide = predicted.to(torch.promote_types(predicted.dtype, torch.float32))
    return (wide - targets.to(wide)).square().sum(), predicted.numel()


def sampled(
    predict: Callable[[DiffusionBatch], Image],
    start: DiffusionBatch,
    noise: Noise,
    *,
    steps: int,
    guidance: float,
    each: Callable[[DiffusionBatch], None] | None = None,
) -> Image:
    """The images (-1 to 1) that ``start``'s noise leads to by ``ddim`` with guidance (1: the text's prediction alone, made once)."""

    def velocity(x: Image, step: Int[Tensor, " batch"]) -> Image:
        batch = replace(start, pixels=x, step=step)
        if each is not None:
            each(batch)
        text = predict(batch)
        return text if guidance == 1 else guided(text, predict(null_text(batch)), guidance)

    return ddim(velocity, start.pixels, noise, noise.visited(steps), SHARE)


def null_text(batch: DiffusionBatch) -> DiffusionBatch:
    """The batch of the null branch: the same images at the same steps, told nothing."""
    return replace(batch, mask=torch.zeros_like(batch.tokens, dtype=torch.bool))


def starts(rows: int, shape: Sequence[int], seed: int, like: Tensor) -> Image:
    """Noise to start from, ``[rows, *shape]``: row i depends on (seed, i) alone."""
    drawn = [torch.randn(*shape, generator=generator_of("start", seed, row), dtype=torch.float64) for row in range(rows)]
    return torch.stack(drawn).to(like.device, like.dtype)


# --- parts of a denoiser --------------------------------------------------------------------------------------


class StepEmbed(nn.Module):
    """The condition that a step of noise is: sinusoids of 1000 t (Vaswani et al. 2017), then an MLP of one hidden layer."""

    def __init__(self, n_steps: int, d_model: int) -> None:
        super().__init__()
        self.n_steps, self.d_model = n_steps, d_model
        self.inner, self.outer = linear(d_model, d_model, True), linear(d_model, d_model, True)

    def forward(self, step: Tensor, listener: Listener | None = None) -> Float[Tensor, "batch d_model"]:
        """One vector an image. Raises BadValue for steps that are none of this model's."""
        if step.ndim != 1 or step.numel() == 0 or step.is_floating_point() or step.dtype == torch.bool:
            raise BadValue("the steps", f"{tuple(step.shape)} {step.dtype}", "integers [batch], one an image")
        low, high = (int(v) for v in torch.aminmax(step))
        if low < 0 or high >= self.n_steps:
            raise BadValue("a step", low if low < 0 else high, f"within 0 to {self.n_steps - 1}, the model's steps of noise")
        rates = 10_000.0 ** (-torch.arange(0, self.d_model, 2, dtype=torch.float64) / self.d_model)
        angles = 1000.0 * (step.to("cpu", torch.float64).unsqueeze(1) + 1) / self.n_steps * rates
        waves = torch.cat((angles.sin(), angles.cos()), 1)[:, : self.d_model].to(self.inner.weight)
        return hear(listener, "hook_condition", self.outer(functional.silu(self.inner(waves))))

    def weights(self) -> dict[str, Tensor]:
        """``W_in``, ``W_out`` [d_model, d_model], ``b_in``, ``b_out`` [d_model]."""
        return {"W_in": self.inner.weight.T, "b_in": self.inner.bias, "W_out": self.outer.weight.T, "b_out": self.outer.bias}

    def sites(self) -> dict[str, Axes]:
        """Site names and axes in the order of a run."""
        return {"hook_condition": ("batch", "d_model")}


class Canvas(nn.Module):
    """Patches of noisy images as positions: a linear map of each and a learned vector a position, no class token.

    ``upsamples`` above 1: the patches are of the noisy image and, as channels behind its own, of a low image that is as many times
    smaller, enlarged by repeating its pixels.
    """

    def __init__(self, grid: Grid, channels: int, d_model: int, *, upsamples: int) -> None:
        super().__init__()
        self.grid, self.channels, self.upsamples = grid, channels, upsamples
        self.map = linear(channels * (2 if upsamples > 1 else 1) * grid.patch**2, d_model, True)
        self.position = table(grid.rows * grid.columns, d_model)

    def read(self, pixels: Tensor, low: Tensor | None) -> Float[Tensor, "batch channels height width"]:
        """What is cut into patches, checked. Raises BadValue."""
        pixels = check_pixels(pixels, self.channels, self.grid, self.map.weight)
        if (low is None) == (self.upsamples > 1):
            found, allowed = ("left out", "given: this model enlarges it") if low is None else ("given", "left out: this is a base model")
            raise BadValue("the low image", found, allowed)
        if low is None:
            return pixels
        low = check_pixels(low, self.channels, self.low_grid, self.map.weight)
        if len(low) != len(pixels):
            raise BadValue("the number of low images", len(low), f"{len(pixels)}, one an image")
        return torch.cat((pixels, low.repeat_interleave(self.upsamples, 2).repeat_interleave(self.upsamples, 3)), 1)

    @property
    def positions(self) -> int:
        """Patches of an image."""
        return len(self.position.weight)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.channels, self.grid.height, self.grid.width

    @property
    def low_grid(self) -> Grid:
        """The pixels of a low image."""
        return Grid(self.grid.height // self.upsamples, self.grid.width // self.upsamples, 1)

    def lowered(self, pixels: Image) -> Float[Tensor, "batch channel low_height low_width"]:
        """The low image of one: each of its pixels is the mean of those it is enlarged to."""
        return functional.avg_pool2d(pixels, self.upsamples)

    def forward(
        self, read: Float[Tensor, "batch channels height width"], listener: Listener | None = None
    ) -> Float[Tensor, "batch pos d_model"]:
        """The stream before the first layer."""
        out = hear(listener, "hook_embed", self.map(patches(read, self.grid.patch)))
        return out + hear(listener, "hook_pos_embed", self.position.weight.expand_as(out))

    def weights(self) -> dict[str, Tensor]:
        """``W_E`` [channels * patch * patch, d_model], ``b_E`` [d_model] and ``W_pos`` [pos, d_model]."""
        return {"W_E": self.map.weight.T, "b_E": self.map.bias, "W_pos": self.position.weight}

    def sites(self) -> dict[str, Axes]:
        """Site names and axes in the order of a run."""
        return dict.fromkeys(("hook_embed", "hook_pos_embed"), RESIDUAL)


class PixelHead(nn.Module):
    """The prediction: a linear map of each position to its patch, put together as an image (``hook_logits``)."""

    def __init__(self, grid: Grid, channels: int, d_model: int) -> None:
        super().__init__()
        self.grid, self.map = grid, linear(d_model, channels * grid.patch**2, True)

    def forward(self, x: Float[Tensor, "batch pos d_model"], listener: Listener | None = None) -> Image:
        """One number a pixel and channel."""
        return hear(listener, "hook_logits", unpatched(self.map(hear(listener, "hook_in", x)), self.grid))

    def weights(self) -> dict[str, Tensor]:
        """``W_U`` [d_model, channel * patch * patch] and ``b_U``."""
        return {"W_U": self.map.weight.T, "b_U": self.map.bias}

    def sites(self) -> dict[str, Axes]:
        """Site names and axes in the order of a run."""
        return {"hook_in": RESIDUAL, "hook_logits": ("batch", "channel", "height", "width")}
