"""Logistic probes beside scikit-learn: the same optimum, alone or many at once, whatever the features' scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from probes.logistic import fit


def cloud(n: int = 400, d: int = 10, classes: int = 4, seed: int = 0, noise: float = 1.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of unlike scale and large mean, and labels that are mostly a linear function of them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    y = (x @ rng.normal(size=(d, classes)) * 2 + rng.normal(size=(n, classes)) * noise).argmax(1)
    return torch.from_numpy(x * rng.uniform(0.05, 9, d) + 20), torch.from_numpy(y)


def theirs(x: torch.Tensor, y: torch.Tensor, penalty: float) -> LogisticRegression:
    return LogisticRegression(C=1 / (len(x) * penalty), tol=1e-12, solver="newton-cholesky", max_iter=500).fit(x.numpy(), y.numpy())


def objective(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, penalty: float) -> float:
    return float(torch.nn.functional.cross_entropy(x @ weight + bias, y) + penalty / 2 * weight.square().sum())


@pytest.mark.parametrize("strength", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_optimum_is_scikit_learns(strength: float, classes: int) -> None:
    x, y = cloud(classes=classes)
    ours = fit(x[None], y[:, None], classes, strength=strength, gap=1e-9, steps=2000)
    lam = strength * float(x.var(0, correction=0).mean())
    assert float(ours.penalty[0]) == pytest.approx(lam * (2 if classes == 2 else 1), rel=1e-10)
    other = theirs(x, y, lam)
    weight, bias = ours.weight[0, :, 0], ours.bias[0, 0]
    if classes == 2:  # they have one vector, which is the difference of two
        weight, bias = (weight[:, 1] - weight[:, 0])[:, None], (bias[1] - bias[0])[None]
    np.testing.assert_allclose(weight.numpy(), other.coef_.T, rtol=1e-5, atol=1e-6)
    gauge = np.mean(other.intercept_) - float(bias.mean()) if classes > 2 else 0.0  # a common shift of the biases changes nothing
    np.testing.assert_allclose(bias.numpy() + gauge, other.intercept_, rtol=1e-5, atol=2e-5)


def test_float32_and_the_usual_gap_lose_little() -> None:
    x, y = cloud(1500, 30, 6, noise=2.0)
    train, test = slice(0, 1000), slice(1000, None)
    usual = fit(x[None, train].float(), y[train, None], 6, strength=1e-3)
    other = theirs(x[train], y[train], float(usual.penalty[0]))
    their_loss = objective(x[train], y[train], torch.from_numpy(other.coef_.T), torch.from_numpy(other.intercept_), float(usual.penalty[0]))
    assert float(usual.loss) == pytest.approx(their_loss, abs=5e-5)
    accuracy = float((usual.scores(x[None, test].float())[0, :, 0].argmax(-1) == y[test]).double().mean())
    assert accuracy == pytest.approx(other.score(x[test].numpy(), y[test].numpy()), abs=0.0021)  # one of 500
    tight = fit(x[None, train], y[train, None], 6, strength=1e-3, gap=1e-7, steps=1000)
    assert torch.equal(tight.scores(x[None, test])[0, :, 0].argmax(-1), torch.from_numpy(other.predict(x[test].numpy())))


def test_many_at_once_are_each_alone() -> None:
    """Sites beside each other, label sets of different difficulty (one of noise): leaving early changes nothing for the others."""
    (a, y), (b, _) = cloud(), cloud(seed=5)
    sets = torch.stack([y, y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))], (y > 1).long(), torch.zeros_like(y)], 1)
    many = fit(torch.stack([a, b]), sets, 4, strength=1e-3, gap=1e-8, steps=1000)
    for at, x in enumerate((a, b)):
        for number in range(4):
            one = fit(x[None], sets[:, [number]], 4, strength=1e-3, gap=1e-8, steps=1000)
            assert float(many.loss[at, number]) == pytest.approx(float(one.loss[0, 0]), abs=1e-12)
            torch.testing.assert_close(many.weight[at, :, number], one.weight[0, :, 0], rtol=1e-5, atol=1e-6)


def test_a_class_that_is_not_there_gets_no_probability() -> None:
    x, y = cloud(classes=3)
    apart = torch.where(y == 2, 4, y)  # classes 0, 1, 4 of 5
    found, plain = (fit(x[None], one[:, None], n, strength=1e-3, gap=1e-9, steps=1000) for one, n in ((apart, 5), (y, 3)))
    assert found.bias[0, 0, [2, 3]].tolist() == [-np.inf, -np.inf]
    torch.testing.assert_close(found.weight[0, :, 0, [0, 1, 4]], plain.weight[0, :, 0], rtol=1e-6, atol=1e-8)
    assert set(found.scores(x[None])[0, :, 0].argmax(-1).tolist()) <= {0, 1, 4}


def test_features_that_never_vary_give_the_frequencies() -> None:
    y = torch.tensor([0, 1, 1, 1, 2])
    found = fit(torch.full((1, 5, 3), 2.0, dtype=torch.float64), y[:, None], 3, strength=1e-3)
    p = found.scores(torch.full((1, 2, 3), 2.0, dtype=torch.float64))[0, :, 0].softmax(-1)
    torch.testing.assert_close(p, torch.tensor([[0.2, 0.6, 0.2]] * 2, dtype=torch.float64))
    assert bool((found.weight == 0).all())


def test_fewer_tokens_than_features_and_separable_classes() -> None:
    x, y = cloud(12, 30, 3, noise=0.0)
    found = fit(x[None], y[:, None], 3, strength=1e-3, gap=1e-8, steps=2000)
    assert torch.equal(found.scores(x[None])[0, :, 0].argmax(-1), y)
    other = theirs(x, y, float(found.penalty[0]))
    their_loss = objective(x, y, torch.from_numpy(other.coef_.T), torch.from_numpy(other.intercept_), float(found.penalty[0]))
    assert float(found.loss) == pytest.approx(their_loss, abs=1e-9)
