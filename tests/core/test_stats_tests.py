"""Tests on counts, ranks and arrangements: published examples, enumeration, and error rates by simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests

from tests.core.test_stats_intervals import SLEEP, covered
from workbench.core.errors import BadValue
from workbench.core.stats.counts import mcnemar_exact, rank_auc, reaches
from workbench.core.stats.multiplicity import benjamini_hochberg, holm
from workbench.core.stats.permutation import paired_permutation, permutation_test

# Benjamini and Hochberg 1995, JRSS B 57:289, section 3.2: fifteen p-values of a thrombolysis trial.
BH_1995 = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
# Darwin's maize, crossed minus self-fertilised heights in eighths of an inch: Fisher 1935, The Design of Experiments, section 21.
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@pytest.mark.parametrize(("b", "c", "p"), [(1, 7, 0.0703), (6, 16, 0.0525), (0, 0, 1.0), (5, 5, 1.0), (0, 1, 1.0), (0, 6, 2 / 64)])
def test_mcnemar(b: int, c: int, p: float) -> None:
    # (1, 7) is Bentur's data in Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology 13:91: exact conditional p 0.070
    assert mcnemar_exact(b, c) == pytest.approx(p, abs=6e-5)
    assert mcnemar_exact(c, b) == mcnemar_exact(b, c)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_sum_of_binomial_terms(b: int, c: int) -> None:
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    assert mcnemar_exact(b, c) == pytest.approx(min(1.0, 2 * tail), rel=1e-10)


def test_reaches() -> None:
    found = reaches(9, 10, 0.5)
    assert found.p == pytest.approx(11 / 1024)  # ten ways to err once, one way not to
    assert found.reached
    assert found.rate == 0.9
    assert not reaches(8, 10, 0.5).reached  # 56 / 1024
    assert not reaches(9, 10, 0.5, level=0.99).reached
    assert not reaches(0, 10, 0.2).reached


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.02, 0.98))
def test_reaches_is_the_sum_of_binomial_terms(kn: tuple[int, int], chance: float) -> None:
    k, n = kn
    tail = math.fsum(math.comb(n, i) * chance**i * (1 - chance) ** (n - i) for i in range(k, n + 1))
    assert reaches(k, n, chance).p == pytest.approx(tail, rel=1e-9)


def test_rank_auc_of_hanley_and_mcneil() -> None:
    # Hanley and McNeil 1982, Radiology 143:29, table I: 58 normal and 51 abnormal CT images rated 1 to 5; area 0.893
    normal, abnormal = np.repeat(np.arange(1, 6), [33, 6, 6, 11, 2]), np.repeat(np.arange(1, 6), [3, 2, 2, 11, 33])
    found = rank_auc(abnormal, normal)
    assert found.value == pytest.approx(0.893, abs=5e-4)
    assert (found.positives, found.negatives) == (51, 58)
    assert found.interval.low == pytest.approx(found.value - 1.96 * 0.032, abs=0.02)  # their standard error
    assert found.interval.high == pytest.approx(found.value + 1.96 * 0.032, abs=0.02)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=15), st.lists(st.integers(0, 6), min_size=1, max_size=15))
def test_rank_auc_is_the_share_of_pairs(pos: list[int], neg: list[int]) -> None:
    wins = sum((p > q) + (p == q) / 2 for p in pos for q in neg)
    found, mirrored = rank_auc(pos, neg), rank_auc(neg, pos)
    assert found.value == pytest.approx(wins / (len(pos) * len(neg)))
    assert 0 <= found.interval.low <= found.value <= found.interval.high <= 1
    assert found.interval.low < found.interval.high  # never a width of zero, not even at 0 and 1
    assert (1 - mirrored.interval.high, 1 - mirrored.interval.low) == pytest.approx((found.interval.low, found.interval.high), abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "m", "n"), [(0.0, 30, 30), (1.0, 40, 20), (2.0, 25, 25)])
def test_rank_auc_covers(shift: float, m: int, n: int) -> None:
    repetitions, rng = 2000, np.random.default_rng(int(10 * shift) + 1)
    truth = float(scipy_stats.norm.cdf(shift / math.sqrt(2)))
    pos, neg = rng.normal(shift, 1, (repetitions, m)), rng.normal(0, 1, (repetitions, n))
    hits = sum(not rank_auc(p, q).interval.excludes(truth) for p, q in zip(pos, neg, strict=True))
    assert 0.935 <= hits / repetitions <= 0.985  # its variance is that of exponential scores: a little wide for normal ones far apart


def test_the_benjamini_hochberg_example() -> None:
    assert (benjamini_hochberg(BH_1995) <= 0.05).sum() == 4  # as the paper finds
    assert (holm(BH_1995) <= 0.05).sum() == 3
    # the paper's step: the largest i with p(i) <= 0.05 i / 15 is 4
    assert benjamini_hochberg(BH_1995)[:4] == pytest.approx([0.0015, 0.0030, 0.0095, 0.035625])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # 4·.005, 3·.01, 2·.03, then not below


def test_both_agree_with_statsmodels() -> None:
    p = np.random.default_rng(1).random(300) ** 3
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1], rel=1e-12)
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1], rel=1e-12)


def slow_holm(p: list[float]) -> list[float]:
    """By its definition: the smallest alpha at which the step-down procedure rejects the hypothesis."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    out, worst = [0.0] * len(p), 0.0
    for place, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - place) * p[i]))
        out[i] = worst
    return out


def slow_bh(p: list[float]) -> list[float]:
    return [min([1.0] + [len(p) * q / sum(r <= q for r in p) for q in p if q >= value]) for value in p]


@given(P_VALUES)
def test_adjusted_values_equal_the_definitions(p: list[float]) -> None:
    assert holm(p) == pytest.approx(slow_holm(p), rel=1e-9, abs=1e-300)
    assert benjamini_hochberg(p) == pytest.approx(slow_bh(p), rel=1e-9, abs=1e-300)
    assert (holm(p) >= benjamini_hochberg(p) - 1e-12).all()
    assert (benjamini_hochberg(p) >= np.array(p) - 1e-12).all()


def test_darwins_maize() -> None:
    found = paired_permutation(DARWIN, [0] * 15, draws=2**15)
    assert found.exact
    assert found.arrangements == 2**15
    assert found.p == pytest.approx(2 * 863 / 2**15)  # Fisher counts 863 of 32,768 at or above the sum of 314
    assert found.effect == pytest.approx(314 / 15)


def slow_flips(differences: list[float]) -> float:
    seen = sum(differences)
    totals = [sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in itertools.product((1, -1), repeat=len(differences))]
    return sum(abs(t) >= abs(seen) - 1e-9 for t in totals) / len(totals)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9), st.integers(0, 5)), min_size=2, max_size=9))
def test_paired_permutation_counts_all_flips(rows: list[tuple[int, int, int]]) -> None:
    a, b, clusters = (list(column) for column in zip(*rows, strict=True))
    found, swapped = paired_permutation(a, b), paired_permutation(b, a)
    assert found.exact
    assert found.p == pytest.approx(slow_flips([x - y for x, y in zip(a, b, strict=True)]))
    assert (swapped.effect, swapped.p) == pytest.approx((-found.effect, found.p))
    sums = [sum(x - y for x, y, z in rows if z == c) for c in sorted(set(clusters))]
    assert paired_permutation(a, b, clusters=clusters).p == pytest.approx(slow_flips([float(s) for s in sums]))
    assert paired_permutation(a, b, clusters=[f"doc{c}" for c in clusters]).p == paired_permutation(a, b, clusters=clusters).p


def test_drawn_flips_agree_with_counted_ones_and_are_never_zero() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(0.4, 1, 18), rng.normal(0, 1, 18)
    exact, drawn = paired_permutation(a, b, draws=2**18), paired_permutation(a, b, draws=9999, seed=3)
    assert exact.exact
    assert not drawn.exact
    assert drawn.p == pytest.approx(exact.p, abs=4 * math.sqrt(exact.p / 9999))
    assert paired_permutation(a, b, seed=3) == drawn
    assert paired_permutation(np.arange(40) + 1.0, np.zeros(40)).p == pytest.approx(2 / 10_000)
    same = paired_permutation(a, a)
    assert (same.effect, same.p) == (0.0, 1.0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=2, max_size=6), st.lists(st.integers(-9, 9), min_size=2, max_size=6))
def test_permutation_test_counts_all_deals(x: list[int], y: list[int]) -> None:
    pool, seen = x + y, np.mean(x) - np.mean(y)
    deals = []
    for chosen in itertools.combinations(range(len(pool)), len(x)):
        rest = [v for i, v in enumerate(pool) if i not in chosen]
        deals.append(np.mean([pool[i] for i in chosen]) - np.mean(rest))
    above, below = np.mean([d >= seen - 1e-9 for d in deals]), np.mean([d <= seen + 1e-9 for d in deals])
    found = permutation_test(x, y)
    assert found.exact
    assert found.arrangements == len(deals)
    assert found.p == pytest.approx(min(1.0, 2 * min(above, below)))


@pytest.mark.slow
def test_permutation_errs_as_often_as_it_says_and_clusters_matter() -> None:
    repetitions, groups, each = 400, 10, 8
    rng = np.random.default_rng(6)
    labels = np.repeat(np.arange(groups), each)
    shared = rng.normal(0, 1, (repetitions, groups))[:, labels]
    a, b = shared + rng.normal(0, 0.5, (repetitions, groups * each)), np.zeros(groups * each)
    wrong = sum(paired_permutation(row, b, clusters=labels).p <= 0.05 for row in a)
    assert covered(repetitions - wrong, repetitions)
    blind = sum(paired_permutation(row, b, draws=499).p <= 0.05 for row in a[:100])
    assert not covered(100 - blind, 100)  # forgetting the clusters is caught


def test_sleep_data_by_all_three_ways() -> None:
    zeros = [0.0] * 10
    assert paired_permutation(SLEEP, zeros).p == pytest.approx(slow_flips(SLEEP))
    assert paired_permutation(SLEEP, zeros).p == pytest.approx(4 / 1024)  # the zero flips freely: 2 of 2^9


def test_one_unit_says_nothing() -> None:
    assert paired_permutation([3.0], [1.0]).p == 1.0
    assert paired_permutation([3.0, 2.0], [1.0, 0.0], clusters=["a", "a"]).p == 1.0
    with pytest.raises(BadValue, match="length of x is 1"):
        permutation_test([1.0], [2.0, 3.0])
