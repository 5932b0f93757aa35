"""Every function refuses what it cannot answer from, and never gives NaN."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from workbench.core import stats
from workbench.core.errors import BadValue

NAN, INF = math.nan, math.inf
ONE_POINT_NOUGHT: Any = 1.0
GOOD = [0.1, 0.5, 0.2, 0.9, 0.4, 0.3, 0.8]
ONE: dict[str, Callable[[Any], object]] = {
    "mean_interval": stats.mean_interval,
    "bootstrap": stats.bootstrap,
    "holm": stats.holm,
    "benjamini_hochberg": stats.benjamini_hochberg,
    "tost": lambda v: stats.tost(v, 0.1),
    "rank_auc of positives": lambda v: stats.rank_auc(v, GOOD),
    "rank_auc of negatives": lambda v: stats.rank_auc(GOOD, v),
    "permutation_test of x": lambda v: stats.permutation_test(v, GOOD),
    "permutation_test of y": lambda v: stats.permutation_test(GOOD, v),
    "paired_bootstrap": lambda v: stats.paired_bootstrap(v, v),
    "paired_permutation": lambda v: stats.paired_permutation(v, v),
    "slope": lambda v: stats.slope(v, v),
    "unpaired_interval of a": lambda v: stats.unpaired_interval(v, GOOD),
    "unpaired_interval of b": lambda v: stats.unpaired_interval(GOOD, v),
}
TWO: dict[str, Callable[[Any, Any], object]] = {
    "slope": stats.slope,
    "paired_bootstrap": stats.paired_bootstrap,
    "paired_permutation": stats.paired_permutation,
    "clusters of bootstrap": lambda a, b: stats.bootstrap(a, clusters=b),
    "clusters of paired_permutation": lambda a, b: stats.paired_permutation(a, a, clusters=b),
}


@pytest.mark.parametrize("bad", [[], [0.1, NAN, 0.2], [0.1, INF], ["a", "b"], [None, 1.0], [[0.1, 0.2], [0.3]], 0.5, [0.1 + 1j]])
@pytest.mark.parametrize("name", ONE)
def test_a_column_must_be_numbers(name: str, bad: Any) -> None:
    with pytest.raises(BadValue):
        ONE[name](bad)


@pytest.mark.parametrize("name", TWO)
def test_columns_must_match(name: str) -> None:
    with pytest.raises(BadValue, match=r"length of (b|y|clusters) is 6, but it must be that of (a|x|the values), 7"):
        TWO[name](GOOD, GOOD[:6])


@pytest.mark.parametrize(
    "name", [n for n in ONE if n not in ("holm", "benjamini_hochberg") and "rank_auc" not in n and n != "paired_permutation"]
)
def test_one_number_is_too_few(name: str) -> None:
    with pytest.raises(BadValue, match=r"at least|units"):
        ONE[name]([0.5])


BAD_SCALARS: dict[str, tuple[Callable[[], object], str]] = {
    "k above n": (lambda: stats.wilson(3, 2), "k is 3, but it must be at most n = 2"),
    "n zero": (lambda: stats.wilson(0, 0), "n is 0"),
    "k negative": (lambda: stats.clopper_pearson(-1, 2), "k is -1"),
    "k a float": (lambda: stats.wilson(ONE_POINT_NOUGHT, 2), r"k is 1\.0"),
    "k a bool": (lambda: stats.reaches(True, 2, 0.5), "k is True"),
    "level as percent": (lambda: stats.wilson(1, 2, 95), "level is 95, but it must be a number strictly between 0 and 1"),
    "level NaN": (lambda: stats.mean_interval(GOOD, NAN), "level is nan"),
    "chance": (lambda: stats.reaches(1, 2, 1.0), r"chance is 1\.0"),
    "discordant": (lambda: stats.mcnemar_exact(-1, 2), "b is -1"),
    "p above one": (lambda: stats.holm([0.5, 1.2]), "p-values outside 0 … 1 is 1"),
    "p below zero": (lambda: stats.benjamini_hochberg([-0.5, 0.2]), "p-values outside"),
    "margin zero": (lambda: stats.tost(GOOD, 0.0), r"margin is 0\.0"),
    "margin NaN": (lambda: stats.tost(GOOD, NAN), "margin is nan"),
    "estimate NaN": (lambda: stats.tost_estimate(NAN, 1.0, 3, 1.0), "estimate is nan"),
    "null NaN": (lambda: stats.tost_estimate(0.0, 1.0, 3, 1.0, null=NAN), "null is nan"),
    "se zero": (lambda: stats.equivalence_interval(0.0, 0.0, 3), r"se is 0\.0"),
    "df zero": (lambda: stats.equivalence_interval(0.0, 1.0, 0), "df is 0"),
    "df NaN": (lambda: stats.equivalence_interval(0.0, 1.0, NAN), "df is nan"),
    "alpha": (lambda: stats.equivalence_interval(0.0, 1.0, 3, alpha=0.5), r"alpha is 0\.5"),
    "tost of equal values": (lambda: stats.tost([0.0] * 9, 0.1), "0 in all 9 items"),
    "sd zero": (lambda: stats.minimal_detectable_effect(10, 0.0), r"sd is 0\.0"),
    "sd NaN": (lambda: stats.minimal_detectable_effect(10, NAN), "sd is nan"),
    "power one": (lambda: stats.minimal_detectable_effect(10, 1.0, power=1.0), r"power is 1\.0"),
    "p0 zero": (lambda: stats.mde_proportion(10, 0.0), r"p0 is 0\.0"),
    "effect zero": (lambda: stats.sample_size(0.0, 1.0), r"effect is 0\.0"),
    "effect too large": (lambda: stats.sample_size_proportion(0.6, 0.5), r"effect is 0\.6"),
    "cluster NaN": (lambda: stats.bootstrap(GOOD, clusters=[1, 1, 2, 2, 3, 3, NAN]), "missing label"),
    "cluster None": (lambda: stats.bootstrap(GOOD, clusters=np.array(["a", "a", "b", "b", "c", "c", None])), "missing label"),
    "cluster matrix": (lambda: stats.bootstrap(GOOD, clusters=[[1, 2]] * 7), "shape of clusters"),
    "shapes of pairs": (lambda: stats.paired_bootstrap(np.ones((7, 2)), np.ones(7)), "shape of b"),
    "seed": (lambda: stats.bootstrap(GOOD, seed=-1), "seed is -1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SCALARS)
def test_a_setting_out_of_range_is_named(name: str) -> None:
    call, words = BAD_SCALARS[name]
    with pytest.raises(BadValue, match=words):
        call()


def test_the_front_lists_what_there_is() -> None:
    assert all(hasattr(stats, name) for name in stats.__all__)
    assert list(stats.__all__) == sorted(stats.__all__)


def test_numpy_scalars_and_torch_tensors_are_numbers() -> None:
    torch = pytest.importorskip("torch")
    three: Any = np.int64(3)
    assert stats.wilson(three, 3 * three) == stats.wilson(3, 9)
    assert stats.mean_interval(torch.tensor(GOOD, dtype=torch.float64)) == stats.mean_interval(GOOD)
    assert stats.mean_interval(np.array([True, False, True])) == stats.mean_interval([1, 0, 1])
