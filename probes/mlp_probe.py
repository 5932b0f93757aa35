"""Small MLP probes, one for each label set, trained beside each other: what a probe can do that may bend.

    scores = W2 relu(W1 z + b1) + b2,    z the features with mean 0 and variance 1 on the training tokens

Adam (Kingma and Ba, ICLR 2015, arXiv:1412.6980) on shuffled batches, every label set with the same batches and its own weights. With no
penalty such a probe can learn words by heart, which its control tasks show (Hewitt and Liang, EMNLP 2019, arXiv:1909.03368).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

RATE, BATCH, BETAS, EPSILON = 3e-3, 128, (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class MLPProbe:
    """Weights of every set: ``[set, feature, hidden]``, ``[set, 1, hidden]``, ``[set, hidden, class]``, ``[set, 1, class]``."""

    mean: Float[Tensor, " feature"]
    spread: Float[Tensor, " feature"]
    weights: tuple[Tensor, Tensor, Tensor, Tensor]

    def scores(self, x: Float[Tensor, "token feature"]) -> Float[Tensor, "token set class"]:
        """Scores of each class, in nats up to a constant."""
        first, one, second, two = self.weights
        z = (x.float() - self.mean) / self.spread
        return (torch.relu(z @ first + one) @ second + two).transpose(0, 1)


def fit(
    x: Float[Tensor, "token feature"], y: Int[Tensor, "token set"], classes: int, *, hidden: int, epochs: int, seed: int
) -> MLPProbe:  # fmt: skip
    """Train in float32. Features that never vary are left at zero."""
    generator = torch.Generator().manual_seed(seed)
    x = x.float()
    mean, spread = x.mean(0), x.std(0, correction=0)
    spread = torch.where(spread > 0, spread, torch.inf)
    z, sets, features = (x - mean) / spread, y.shape[1], x.shape[1]
    draw = lambda *shape: torch.randn(*shape, generator=generator).to(x.device)  # noqa: E731
    weights = [
        draw(sets, features, hidden) * (2 / features) ** 0.5, torch.zeros(sets, 1, hidden, device=x.device),
        draw(sets, hidden, classes) * (1 / hidden) ** 0.5, torch.zeros(sets, 1, classes, device=x.device),
    ]  # fmt: skip
    moments = [(torch.zeros_like(w), torch.zeros_like(w)) for w in weights]
    step = 0
    for _ in range(epochs):
        for rows in torch.randperm(len(z), generator=generator).split(BATCH):
            step += 1
            for w, (m, v), slope in zip(weights, moments, _slopes(z[rows], y[rows], weights), strict=True):
                m.lerp_(slope, 1 - BETAS[0])
                v.lerp_(slope.square(), 1 - BETAS[1])
                w.addcdiv_(m, (v / (1 - BETAS[1] ** step)).sqrt_().add_(EPSILON), value=-RATE / (1 - BETAS[0] ** step))
    return MLPProbe(mean, spread, (weights[0], weights[1], weights[2], weights[3]))


def _slopes(z: Tensor, y: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradient of the mean cross-entropy of every set, written out."""
    first, one, second, two = weights
    h = torch.relu(z @ first + one)
    p = torch.softmax(h @ second + two, -1)
    p.scatter_add_(-1, y.T[..., None], torch.full((y.shape[1], len(y), 1), -1.0, device=p.device))
    p /= len(z)
    back = (p @ second.mT) * (h > 0)
    return z.T @ back, back.sum(1, keepdim=True), h.mT @ p, p.sum(1, keepdim=True)
