"""Directions from contrast pairs, each centred on its own side's mean, so that what tells the two sides' wording apart is gone:

    difference   d = (a - mean a) - (b - mean b)            a, b the vectors of a pair's two sides
    top          first principal axis of the differences    no labels
    consistent   w of p(x) = sigmoid(w . x + c) with the least  (p(a) - 1 + p(b))^2 + min(p(a), p(b))^2    no labels
    labelled     mean of the differences, each turned to its pair's true side

Which end of an axis is the true one no unlabelled method knows: ``turned`` takes that one bit from labels.

Source: Burns, Ye, Klein and Steinhardt, Discovering Latent Knowledge in Language Models Without Supervision, ICLR 2023 (arXiv:2212.03827):
contrast-consistent search and its principal-component twin (CRC-TPC).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.concept_fit import unit

WAYS = ("top", "consistent", "labelled")
RATE = 1e-2


def axes(
    a: Float[Tensor, "pair feature"], b: Float[Tensor, "pair feature"], first: Bool[Tensor, " pair"], *, starts: int, steps: int, seed: int
) -> tuple[Float[Tensor, "way feature"], float]:
    """One direction of length 1 a way, turned to the true side (zeros where the pairs do not differ), and the share of the differences'
    squares along the top axis. ``a`` and ``b`` are centred."""
    d = a - b
    if not bool(d.any()):
        return torch.zeros(len(WAYS), a.shape[1], dtype=a.dtype), float("nan")
    sizes, vectors = torch.linalg.eigh(d.T @ d)
    sign = torch.where(first, 1.0, -1.0).to(d.dtype)
    found = torch.stack([vectors[:, -1], consistent(a, b, starts=starts, steps=steps, seed=seed), unit((d * sign[:, None]).mean(0))])
    return turned(found, d, first), float(sizes[-1] / sizes.clamp_min(0).sum())


def consistent(
    a: Float[Tensor, "pair feature"], b: Float[Tensor, "pair feature"], *, starts: int, steps: int, seed: int
) -> Float[Tensor, " feature"]:
    """Contrast-consistent search by Adam on all pairs, the best of ``starts`` starts by its loss; of length 1."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.cat([a, b]).square().mean().sqrt().clamp_min(1e-300)
    a, b = a / scale, b / scale
    drawn = torch.randn(a.shape[1], starts, generator=generator, dtype=torch.float64).to(a.dtype) / a.shape[1] ** 0.5
    parts = [drawn.requires_grad_(), torch.zeros(starts, dtype=a.dtype).requires_grad_()]
    optimizer = torch.optim.Adam(parts, lr=RATE)

    def losses() -> Float[Tensor, " start"]:
        one, two = (torch.sigmoid(x @ parts[0] + parts[1]) for x in (a, b))
        return ((one - 1 + two).square() + torch.minimum(one, two).square()).mean(0)

    for _ in range(steps):
        with torch.enable_grad():
            slopes = torch.autograd.grad(losses().sum(), parts)
        for part, slope in zip(parts, slopes, strict=True):
            part.grad = slope
        optimizer.step()
    best = int(losses().detach().argmin())
    return unit(parts[0].detach()[:, best])


def turned(
    ways: Float[Tensor, "way feature"], d: Float[Tensor, "pair feature"], first: Bool[Tensor, " pair"]
) -> Float[Tensor, "way feature"]:
    """The directions, each with the sign under which more pairs are right."""
    right = (((d @ ways.T) > 0) == first[:, None]).double().mean(0)
    return torch.where(right < 0.5, -1.0, 1.0).to(ways.dtype)[:, None] * ways
