"""CKA, its debiased form and Procrustes distance: against Gram matrices and whole rotations, what leaves them, and what bias does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from torch import Tensor

from probes.alignment import DIFFERENCES, MEASURES, differences, jackknife, measures, own, sums, unvarying

SEEDS = st.integers(0, 10_000)
F64 = torch.float64


def pair(seed: int, n: int = 40, left: int = 6, right: int = 4, shared: float = 1.0) -> tuple[Tensor, Tensor]:
    """Two sets of vectors that have something in common, far from the origin."""
    draw = torch.Generator().manual_seed(seed)
    common = torch.randn(n, 3, generator=draw, dtype=F64)
    x = shared * common @ torch.randn(3, left, generator=draw, dtype=F64) + torch.randn(n, left, generator=draw, dtype=F64)
    y = shared * common @ torch.randn(3, right, generator=draw, dtype=F64) + torch.randn(n, right, generator=draw, dtype=F64)
    return x + 20.0, 3 * y - 5.0


def found(x: Tensor, y: Tensor, block: Tensor | None = None) -> np.ndarray:
    block = torch.zeros(len(x), dtype=torch.long) if block is None else block
    return measures(sums(x, y, block), own(x, block), own(y, block))


def gram(x: Tensor, y: Tensor) -> list[float]:
    """The slow obvious way: n x n Gram matrices, and the best rotation as a matrix."""
    k, m, n = (x @ x.T).numpy(), (y @ y.T).numpy(), len(x)
    centre = np.eye(n) - 1 / n
    kc, mc = centre @ k @ centre, centre @ m @ centre
    plain = (kc * mc).sum() / np.linalg.norm(kc) / np.linalg.norm(mc)

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        a, b = a - np.diag(np.diag(a)), b - np.diag(np.diag(b))
        one = np.ones(n)
        return float(
            (np.trace(a @ b) + (one @ a @ one) * (one @ b @ one) / (n - 1) / (n - 2) - 2 / (n - 2) * one @ a @ b @ one) / n / (n - 3)
        )

    debiased = hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))
    width = max(x.shape[1], y.shape[1])
    a, b = (np.pad((z - z.mean(0)).numpy(), ((0, 0), (0, width - z.shape[1]))) for z in (x, y))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    turn = orthogonal_procrustes(b, a)[0]
    return [plain, debiased, float(np.linalg.norm(a - b @ turn))]


@settings(max_examples=15)
@given(SEEDS, st.integers(5, 60))
def test_equal_to_gram_matrices_and_to_the_best_rotation(seed: int, n: int) -> None:
    x, y = pair(seed, n)
    assert found(x, y)[:, 0] == pytest.approx(gram(x, y), abs=1e-9)
    assert found(y, x)[:, 0] == pytest.approx(gram(x, y), abs=1e-9), "the same either way round"


@settings(max_examples=15)
@given(SEEDS)
def test_rotation_scaling_and_shift_of_either_side_leave_all_three(seed: int) -> None:
    x, y = pair(seed)
    draw = torch.Generator().manual_seed(seed + 1)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=draw, dtype=F64)).Q
    moved = 0.3 * x @ turn + torch.randn(6, generator=draw, dtype=F64)
    assert np.allclose(found(moved, y), found(x, y), atol=1e-9)
    # a distance of zero is the root of a difference of ones
    assert found(moved, x)[:, 0] == pytest.approx([1.0, 1.0, 0.0], abs=1e-7)


@settings(max_examples=15)
@given(SEEDS)
def test_another_invertible_map_does_not_leave_them(seed: int) -> None:
    x, _ = pair(seed)
    stretched = x * torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 30.0], dtype=F64)
    plain, debiased, distance = found(x, stretched)[:, 0]
    assert plain < 0.99
    assert debiased < 0.99
    assert distance > 0.03


def test_of_few_tokens_cka_is_high_for_nothing_and_the_debiased_one_is_not() -> None:
    """Independent vectors of more features than tokens: the bias of CKA, and none of the correction (a mean over draws)."""
    draws = np.array([found(*pair(seed, n=30, left=100, right=100, shared=0.0))[:2, 0] for seed in range(60)])
    assert draws[:, 0].min() > 0.7
    assert abs(draws[:, 1].mean()) < 3 * draws[:, 1].std() / 60**0.5 + 1e-3
    many = found(*pair(0, n=20_000, left=10, right=10, shared=0.0))[:2, 0]
    assert many == pytest.approx([0.0, 0.0], abs=2e-3)


@settings(max_examples=8)
@given(SEEDS)
def test_all_but_a_block_is_what_is_computed_without_it(seed: int) -> None:
    x, y = pair(seed, n=50)
    block = torch.arange(50) % 5
    versions = found(x, y, block)
    assert versions.shape == (len(MEASURES), 6)
    assert np.allclose(versions[:, 0], found(x, y)[:, 0])
    apart = differences(x[:, :4], y, block)
    for b in range(5):
        kept = block != b
        assert np.allclose(versions[:, 1 + b], found(x[kept], y[kept])[:, 0], atol=1e-9)
        one = torch.zeros(int(kept.sum()), dtype=torch.long)
        assert np.allclose(apart[:, 1 + b], differences(x[kept][:, :4], y[kept], one)[:, 0], atol=1e-9)


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Debiased CKA and Procrustes distance of samples of 200 tokens against those of 200,000."""
    draw = torch.Generator().manual_seed(0)
    maps = [torch.randn(3, width, generator=draw, dtype=F64) for width in (6, 4)]

    def sample(n: int) -> tuple[Tensor, Tensor]:
        common = torch.randn(n, 3, generator=draw, dtype=F64)
        x, y = (common @ way + torch.randn(n, way.shape[1], generator=draw, dtype=F64) for way in maps)
        return x, y

    truth = found(*sample(200_000))[:, 0]
    hits = np.zeros(3)
    runs, block = 200, torch.arange(200) % 10
    for _ in range(runs):
        _, low, high = jackknife(found(*sample(200), block), 0.95)
        hits += (low <= truth) & (truth <= high)
    assert (hits[1:] / runs > 0.9).all(), hits / runs
    assert (hits / runs <= 0.995).all()


def test_differences_are_what_they_say() -> None:
    x, y = pair(3, n=60, left=4, right=4)
    one = torch.zeros(60, dtype=torch.long)
    spread = lambda z: float((z - z.mean(0)).square().sum())  # noqa: E731
    relative, explained, shift = differences(x, y, one)[:, 0]
    size = float((y - x).square().sum())
    assert relative == pytest.approx((size / spread(x)) ** 0.5)
    assert explained == pytest.approx(1 - size / spread(y))
    assert shift == pytest.approx(60 * float((y - x).mean(0).square().sum()) / size)
    moved = differences(x, x + torch.tensor([1.0, 0.0, -2.0, 0.0], dtype=F64), one)[:, 0]
    assert dict(zip(DIFFERENCES, moved, strict=True))["shift"] == pytest.approx(1.0)
    same = differences(x, x, one)[:, 0]
    assert same[:2].tolist() == [0.0, 1.0]
    assert np.isnan(same[2])


def test_what_does_not_vary_is_seen_as_such() -> None:
    x, _ = pair(0)
    assert not unvarying(x)
    assert not unvarying(x.float())
    assert unvarying(torch.full((10, 3), 0.1) + torch.rand(1, 3))
    assert unvarying(torch.zeros(10, 3))
    assert np.isnan(jackknife(np.ones((2, 1)), 0.95)[1]).all()
