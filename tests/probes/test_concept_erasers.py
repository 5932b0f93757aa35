"""Erasers against slow obvious twins, and what holds of them whatever they are fitted to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from probes.concept_erasers import ByPosition, Eraser, inlp, leace, random_like
from probes.ridge import Moments, one_hot

SEEDS = st.integers(0, 10_000)


def labelled(seed: int, n: int = 120, d: int = 5, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Vectors that lean with their class, of unequal variances, far from the origin."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=draw)
    y[:classes] = torch.arange(classes)
    mix = torch.randn(d, d, generator=draw, dtype=torch.float64)
    means = torch.randn(classes, d, generator=draw, dtype=torch.float64)
    return torch.randn(n, d, generator=draw, dtype=torch.float64) @ mix + means[y] + 7.0, y


def fitted(x: Tensor, y: Tensor, classes: int = 3, chunks: int = 3) -> Eraser:
    sums = Moments()
    for rows, codes in zip(x.chunk(chunks), y.chunk(chunks), strict=True):
        sums.add(rows, one_hot(codes[:, None], classes))
    return leace(sums)


def covariances(x: Tensor, y: Tensor, classes: int = 3) -> tuple[Tensor, Tensor]:
    z = torch.nn.functional.one_hot(y, classes).double()
    centred = x - x.mean(0)
    return centred.T @ centred / len(x), centred.T @ (z - z.mean(0)) / len(x)


def twin(x: Tensor, y: Tensor, classes: int = 3) -> Tensor:
    """The map of least change under the constraint, by Lagrange's multipliers: I - C (C^T S^+ C)^+ C^T S^+."""
    s, c = covariances(x, y, classes)
    inverse = torch.linalg.pinv(s, rtol=1e-11, hermitian=True)
    inner = torch.linalg.pinv(c.T @ inverse @ c, rtol=1e-9, hermitian=True)
    return torch.eye(len(s), dtype=s.dtype) - c @ inner @ c.T @ inverse


def matrix(eraser: Eraser) -> Tensor:
    return torch.eye(eraser.width, dtype=torch.float64) - eraser.left @ eraser.right.T


@given(SEEDS, st.integers(2, 4))
def test_leace_is_the_constrained_least_squares_map_and_leaves_no_covariance(seed: int, classes: int) -> None:
    x, y = labelled(seed, classes=classes)
    eraser = fitted(x, y, classes)
    assert eraser.rank == classes - 1
    assert torch.allclose(matrix(eraser), twin(x, y, classes), atol=1e-8)
    erased = eraser(x)
    assert float(covariances(erased, y, classes)[1].abs().max()) < 1e-10
    assert torch.allclose(erased.mean(0), x.mean(0), atol=1e-10)
    assert torch.allclose(eraser(erased), erased, atol=1e-9), "twice is once"


@given(SEEDS)
def test_no_other_affine_map_without_covariance_changes_less(seed: int) -> None:
    x, y = labelled(seed)
    eraser, (_, c) = fitted(x, y), covariances(x, y)
    least = (eraser(x) - x).square().sum()
    draw = torch.Generator().manual_seed(seed + 1)
    free = torch.eye(5, dtype=torch.float64) - c @ torch.linalg.pinv(c)  # maps that take C to zero
    for size in (1e-3, 0.1, 1.0):
        other = matrix(eraser) + size * torch.randn(5, 5, generator=draw, dtype=torch.float64) @ free
        moved = (x - x.mean(0)) @ other.T + x.mean(0)
        assert float(covariances(moved, y)[1].abs().max()) < 1e-8
        assert float((moved - x).square().sum()) >= float(least) - 1e-9


@given(SEEDS)
def test_leace_follows_any_invertible_map_of_the_vectors(seed: int) -> None:
    x, y = labelled(seed)
    draw = torch.Generator().manual_seed(seed + 2)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=draw, dtype=torch.float64)).Q
    shear = turn @ torch.diag(torch.tensor([0.3, 0.7, 1.0, 2.0, 3.0], dtype=torch.float64)) @ turn.roll(1, 0)
    assert torch.allclose(fitted(x @ shear.T, y)(x @ shear.T), fitted(x, y)(x) @ shear.T, atol=1e-6)


def test_what_cannot_be_told_and_what_does_not_vary_is_left_alone() -> None:
    x, y = labelled(0)
    assert fitted(torch.ones(120, 4, dtype=torch.float64) * 3, y).rank == 0
    balanced = torch.arange(120) % 2
    same = torch.randn(60, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).repeat_interleave(2, 0)
    assert fitted(same, balanced, 2).rank == 0, "each vector occurs in both classes"
    doubled = torch.cat([x, x, torch.zeros(120, 2, dtype=torch.float64)], 1)  # a covariance that has no inverse
    eraser = fitted(doubled, y)
    assert eraser.rank == 2
    assert float(covariances(eraser(doubled), y)[1].abs().max()) < 1e-10
    assert torch.allclose(eraser(doubled)[:, :5], fitted(x, y)(x), atol=1e-8)
    assert torch.allclose(matrix(eraser), twin(doubled, y), atol=1e-8)


def test_single_precision_far_from_the_origin_is_erased_to_its_own_rounding() -> None:
    x, y = labelled(1, n=400)
    x = x + 300.0
    erased = fitted(x.float(), y)(x.float())
    assert erased.dtype == torch.float32
    assert float(covariances(erased.double(), y)[1].abs().max()) < 1e-4


def test_agrees_with_the_authors_package() -> None:
    peer = pytest.importorskip("concept_erasure", reason="concept-erasure, a peer, is not among the packages of this project")
    x, y = labelled(3, n=300)
    z = torch.nn.functional.one_hot(y, 3).double()
    theirs = peer.LeaceEraser.fit(x, z, shrinkage=False, constrain_cov_trace=False, svd_tol=1e-7)
    assert torch.allclose(theirs(x), fitted(x, y)(x), atol=1e-8)


# --- null-space projection ---------------------------------------------------------------------------------------


def two_ways(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two classes of which axis 0 and, once that is gone, axis 1 tell."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=draw, dtype=torch.float64)
    y = torch.randint(2, (n,), generator=draw)
    x[:, 0] += (2 * y - 1) * 3.0
    x[:, 1] += (2 * y - 1) * 0.8
    return x + 2.0, y


def test_null_space_projection_goes_on_until_nothing_is_told() -> None:
    x, y = two_ways(2000, 0)
    check = torch.arange(2000) % 4 == 0
    eraser = inlp(x, y, 2, check, strength=1e-3, rounds=20)
    assert 1 <= eraser.rank <= 4
    basis = eraser.left
    assert torch.equal(eraser.left, eraser.right)
    assert torch.allclose(basis.T @ basis, torch.eye(eraser.rank, dtype=torch.float64), atol=1e-10)
    taken = basis @ basis.T
    assert float(taken[0, 0]) > 0.9, "the axis that tells most"
    fresh, labels = two_ways(4000, 1)
    left = eraser(fresh)
    means = left[labels == 1].mean(0) - left[labels == 0].mean(0)
    assert float(means.norm()) < 0.25 < 6.0, "six apart before"
    assert inlp(x, y, 2, check, strength=1e-3, rounds=1).rank == 1


def test_null_space_projection_equals_the_product_of_its_projections() -> None:
    """Round by round with whole matrices: the projection onto the null space of all weights so far."""
    from probes import logistic

    x, y = two_ways(600, 2)
    check = torch.arange(600) % 4 == 0
    mean, projection = x[~check].mean(0), torch.eye(6, dtype=torch.float64)
    rounds = 3
    for _ in range(rounds):
        left = (x - mean) @ projection + mean
        weight = logistic.fit(left[~check][None], y[~check, None], 2, strength=1e-3).weight[0, :, 0]
        way = weight[:, 1] - weight[:, 0]
        way = projection @ way / (projection @ way).norm()
        projection = projection - torch.outer(way, way)
    eraser = inlp(x, y, 2, check, strength=1e-3, rounds=rounds)
    if eraser.rank == rounds:  # it may have been done before
        assert torch.allclose(matrix(eraser), projection, atol=1e-8)
    assert eraser.rank >= 1


def test_labels_that_mean_nothing_take_nothing() -> None:
    x = torch.randn(2000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    y = torch.from_numpy(np.random.default_rng(4).integers(0, 2, 2000))
    assert inlp(x, y, 2, torch.arange(2000) % 4 == 0, strength=1e-3, rounds=10).rank <= 1


# --- random projections and positions ----------------------------------------------------------------------------


def test_random_projections_are_orthogonal_of_the_same_rank_and_of_the_generator_alone() -> None:
    eraser = fitted(*labelled(0))
    first, again, other = (random_like(eraser, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert isinstance(first, Eraser)
    assert isinstance(again, Eraser)
    assert isinstance(other, Eraser)
    assert first.rank == eraser.rank
    assert torch.equal(first.left, again.left)
    assert not torch.allclose(first.left, other.left)
    assert torch.allclose(matrix(first) @ matrix(first), matrix(first), atol=1e-12)
    assert torch.allclose(matrix(first), matrix(first).T, atol=1e-12)


def test_each_position_has_its_own_eraser_and_a_position_too_many_is_an_error() -> None:
    erasers = tuple(fitted(*labelled(seed)) for seed in range(3))
    whole = ByPosition(erasers)
    x = torch.randn(4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    erased = whole(x)
    for pos in range(3):
        assert torch.equal(erased[:, pos], erasers[pos](x[:, pos]))
    with pytest.raises(ValueError, match="zip"):
        whole(torch.zeros(4, 4, 5, dtype=torch.float64))
