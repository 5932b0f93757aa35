"""Association of word sets: d and p by hand and by a slow count, silence where labels are dealt at random, words as they are refused."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from workbench.core.errors import BadValue
from workbench.core.stats.association import association, effect_size, leanings


def cosines(lean: float, n: int = 8, k: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of words whose cosines with the first attribute are higher by ``lean`` in the first and lower in the second."""
    by = np.random.default_rng(seed)
    sides = []
    for sign in (1, -1):
        word = by.normal(0, 0.1, (n, 1, 1))
        found = 0.2 + word + by.normal(0, 0.1, (n, 2, k))
        found[:, 0] += sign * lean / 2
        sides.append(found)
    return sides[0], sides[1]


def slow_p(a: np.ndarray, b: np.ndarray) -> float:
    both, n = [*a.tolist(), *b.tolist()], len(a)
    seen = np.mean(a) - np.mean(b)
    gaps = []
    for chosen in itertools.combinations(range(len(both)), n):
        inside = [both[i] for i in chosen]
        outside = [both[i] for i in range(len(both)) if i not in chosen]
        gaps.append(np.mean(inside) - np.mean(outside))
    above, below = np.mean(np.array(gaps) >= seen - 1e-12), np.mean(np.array(gaps) <= seen + 1e-12)
    return min(1.0, 2 * float(min(above, below)))


def test_d_and_the_exact_p_are_those_of_a_slow_count() -> None:
    x, y = cosines(0.05, n=5, seed=4)
    a, b = leanings(x), leanings(y)
    assert a[0] == pytest.approx(x[0, 0].mean() - x[0, 1].mean())
    found = association(x, y)
    both = [*a, *b]
    spread = math.sqrt(sum((one - np.mean(both)) ** 2 for one in both) / (len(both) - 1))
    assert found.d == pytest.approx((np.mean(a) - np.mean(b)) / spread)
    assert found.exact
    assert found.arrangements == math.comb(10, 5)
    assert found.p == pytest.approx(slow_p(a, b))


def test_an_association_is_found_and_turned_round_with_its_sets() -> None:
    x, y = cosines(0.3)
    found, turned = association(x, y), association(y, x)
    assert found.d > 1.5
    assert found.p == pytest.approx(2 / math.comb(16, 8))
    assert found.interval.low > 1
    assert turned.d == pytest.approx(-found.d)
    assert found.d <= 2


@pytest.mark.full
def test_labels_dealt_at_random_are_seldom_called_associated() -> None:
    hits = covered = 0
    for seed in range(200):
        found = association(*cosines(0.0, seed=seed), draws=400, ways=999, seed=seed)
        hits += found.p < 0.05
        covered += not found.interval.excludes(0)
    assert hits <= 20  # 10 expected
    assert covered >= 180


def test_more_words_than_can_be_counted_are_drawn() -> None:
    found = association(*cosines(0.02, n=20), ways=999)
    assert not found.exact
    assert found.arrangements == 1000


def test_attributes_of_unequal_length() -> None:
    x, y = cosines(0.2)
    x[:, 1, 4:], y[:, 1, 4:] = np.nan, np.nan
    found = association(x, y)
    assert leanings(x)[0] == pytest.approx(x[0, 0].mean() - x[0, 1, :4].mean())
    assert found.interval.low <= found.d <= found.interval.high


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x, y: (x[:3], y), "at least 4"),
        (lambda x, y: (x[:, :1], y), "2, attribute words"),
        (lambda x, y: (x[:, :, :3], y), "at least 4"),
        (lambda x, y: (x * 9, y), "at most 1"),
        (lambda x, y: (x, y[:, :, :5]), "the attributes of x"),
        (lambda x, y: (np.full_like(x, 0.5), np.full_like(y, 0.5)), "same words"),
    ],
)
def test_what_is_no_test_is_refused(change: Any, says: str) -> None:
    with pytest.raises(BadValue, match=says):
        association(*change(*cosines(0.1)))


def test_a_gap_too_small_to_matter_has_a_large_d() -> None:
    """Vectors that are nearly alike: cosines that differ in the fourth digit, and d is 1.9."""
    x, y = cosines(0.3)
    near = association(0.9 + x / 1000, 0.9 + y / 1000)
    assert near.d == pytest.approx(association(x, y).d)
    assert abs(near.gap) < 1e-3


def test_equal_leanings_have_no_effect() -> None:
    with pytest.raises(BadValue, match="all equal"):
        effect_size([1.0, 1.0], [1.0, 1.0])
