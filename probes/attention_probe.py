"""An attention-pooled probe: what can be read of a sequence where the place that tells it has to be found.

    weight of token t for query q = softmax over real tokens of  q . z_t / sqrt(features)
    scores = W [sum_t weight_t z_t, one for each query] + b,       z the features with mean 0 and variance 1 over the training tokens

Trained by Adam on mean cross-entropy + strength / 2 * ||W||^2. With queries at zero it pools evenly: they begin close to it, and training
has to find where to look. A small version of the probes that attend over a sequence in Kantamneni, Engels, Rajamanoharan, Tegmark and
Nanda, Are Sparse Autoencoders Useful? A Case Study in Sparse Probing, ICML 2025 (arXiv:2502.16681).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

RATE, BATCH, NEAR_EVEN = 3e-2, 64, 0.1


@dataclass(frozen=True)
class AttentionProbe:
    """``mean``, ``spread`` of each feature; queries; a linear map of what they pooled."""

    mean: Float[Tensor, " feature"]
    spread: Float[Tensor, " feature"]
    queries: Float[Tensor, "feature query"]
    weight: Float[Tensor, "pooled class"]
    bias: Float[Tensor, " class"]

    def attention(self, x: Float[Tensor, "item pos feature"], real: Bool[Tensor, "item pos"]) -> Float[Tensor, "item pos query"]:
        """How much of each token each query takes; 0 at padding, adding up to 1 over positions."""
        return _attention((x - self.mean) / self.spread, real, self.queries)

    def scores(self, x: Float[Tensor, "item pos feature"], real: Bool[Tensor, "item pos"]) -> Float[Tensor, "item class"]:
        """Scores of each class, in nats up to a constant."""
        return _scores((x - self.mean) / self.spread, real, (self.queries, self.weight, self.bias))


def fit(
    x: Float[Tensor, "item pos feature"], real: Bool[Tensor, "item pos"], y: Int[Tensor, " item"], classes: int,
    *, queries: int, strength: float, epochs: int, seed: int,
) -> AttentionProbe:  # fmt: skip
    """Train in float32. Features that never vary are left at zero."""
    generator, features = torch.Generator().manual_seed(seed), x.shape[2]
    tokens = x[real]
    mean, spread = tokens.mean(0), tokens.std(0, correction=0)
    spread = torch.where(spread > 0, spread, torch.inf)
    z = (x - mean) / spread
    drawn = NEAR_EVEN * torch.randn(features, queries, generator=generator)
    parts = [p.requires_grad_() for p in (drawn, torch.zeros(queries * features, classes), torch.zeros(classes))]
    optimizer = torch.optim.Adam(parts, lr=RATE)
    for _ in range(epochs):
        for rows in torch.randperm(len(z), generator=generator).split(BATCH):
            with torch.enable_grad():
                loss = cross_entropy(_scores(z[rows], real[rows], parts), y[rows]) + strength / 2 * parts[1].square().sum()
                slopes = torch.autograd.grad(loss, parts)
            for part, slope in zip(parts, slopes, strict=True):
                part.grad = slope
            optimizer.step()
    found = [p.detach() for p in parts]
    return AttentionProbe(mean, spread, found[0], found[1], found[2])


def _attention(
    z: Float[Tensor, "item pos feature"], real: Bool[Tensor, "item pos"], queries: Float[Tensor, "feature query"]
) -> Float[Tensor, "item pos query"]:
    asked = z @ queries / z.shape[2] ** 0.5
    return asked.masked_fill(~real[..., None], -torch.inf).softmax(1)


def _scores(
    z: Float[Tensor, "item pos feature"], real: Bool[Tensor, "item pos"], parts: list[Tensor] | tuple[Tensor, ...]
) -> Float[Tensor, "item class"]:
    queries, weight, bias = parts
    pooled = _attention(z, real, queries).transpose(1, 2) @ z.masked_fill(~real[..., None], 0.0)
    return pooled.flatten(1) @ weight + bias
