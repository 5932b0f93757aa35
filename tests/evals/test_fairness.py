"""Rates by group against fairlearn's, areas against pairs counted by hand, differences that are known."""

from __future__ import annotations

from typing import Any

import fairlearn.metrics as theirs
import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from evals.fairness import RATES, Decided, areas, calibration_error, difference, largest_gap, rate_of
from workbench.core.errors import BadValue

N = 300


def drawn(seed: int, gap: float = 0.3) -> tuple[Decided, Any, Any, Any]:
    draw = np.random.default_rng(seed)
    group = draw.choice(["a", "b", "c"], N)
    label = draw.integers(0, 2, N)
    score = np.clip(0.5 + 0.25 * (label - 0.5) + draw.normal(0, 0.2, N) - gap * (group == "b") / 2, 0, 1)
    return Decided.of(score, label, 0.5), group, label, score


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rates_are_fairlearns(seed: int) -> None:
    rows, group, label, score = drawn(seed)
    said = (score >= 0.5).astype(int)
    given = {"y_true": label, "y_pred": said, "sensitive_features": group}
    metrics: dict[str, Any] = {"selection rate": theirs.selection_rate, "true positive rate": recall_score,
                               "false positive rate": theirs.false_positive_rate, "precision": precision_score}  # fmt: skip
    frame = theirs.MetricFrame(metrics=metrics, **given)
    for rate in RATES:
        for name in "abc" if rate in metrics else "":
            assert rate_of(rows, rate, group == name) == pytest.approx(frame.by_group[rate][name], abs=1e-12)
    assert largest_gap(rows, "selection rate", group) == pytest.approx(theirs.demographic_parity_difference(**given), abs=1e-12)
    gaps = [largest_gap(rows, "true positive rate", group), largest_gap(rows, "false positive rate", group)]
    assert max(gap or 0 for gap in gaps) == pytest.approx(theirs.equalized_odds_difference(**given), abs=1e-12)


def test_areas_are_those_of_the_pairs() -> None:
    rows, group, label, score = drawn(3)
    inside = group == "b"
    found = areas(rows, inside)
    positive, negative = label == 1, label == 0
    both = {"subgroup": inside, "BPSN": np.where(inside, negative, positive), "BNSP": np.where(inside, positive, negative)}
    for name, chosen in both.items():
        one = found[name]
        assert one is not None
        assert one["value"] == pytest.approx(roc_auc_score(label[chosen], score[chosen]), abs=1e-12)
        assert one["low"] < one["value"] < one["high"]
    assert found["BNSP"] != found["BPSN"]
    assert areas(Decided.of([0.1, 0.9], [1, 1], 0.5), np.array([True, False]))["subgroup"] is None


def test_a_difference_covers_what_is_planted_and_the_null() -> None:
    rows, group, _, _ = drawn(4)
    names = [str(i) for i in range(N)]
    found = difference(rows, "mean score", group == "b", names)
    assert found.value == pytest.approx(rows.score[group == "b"].mean() - rows.score[group != "b"].mean())
    assert found.interval is not None
    assert found.interval.low <= -0.15 <= found.interval.high
    rows, group, _, _ = drawn(4, gap=0.0)
    found = difference(rows, "mean score", group == "b", names)
    assert found.interval is not None
    assert found.interval.low < 0 < found.interval.high


def test_rows_that_belong_together_are_drawn_together() -> None:
    rows, group, _, _ = drawn(5)
    apart, together = (difference(rows, "mean score", group == "b", [str(i % size) for i in range(N)]) for size in (N, 10))
    assert apart.value == pytest.approx(together.value, abs=1e-12)
    assert (apart.units, together.units) == (N, 10)


def test_calibration_is_told_from_its_absence() -> None:
    draw = np.random.default_rng(6)
    score = draw.uniform(size=4000)
    label = (draw.uniform(size=4000) < score).astype(int)
    everyone = np.ones(4000, dtype=bool)
    assert (calibration_error(Decided.of(score, label, 0.5), everyone) or 1) < 0.03
    found = calibration_error(Decided.of(score**2, label, 0.5), everyone)
    assert found == pytest.approx(1 / 6, abs=0.02), "the mean of p - p^2"
    assert calibration_error(Decided.of(score[:5], label[:5], 0.5), everyone[:5]) is None


def test_what_is_of_nothing_has_no_value() -> None:
    rows = Decided.of([0.2, 0.3], [0, 0], 0.5)
    assert rate_of(rows, "true positive rate", np.array([True, True])) is None
    assert difference(rows, "true positive rate", np.array([True, False]), ["0", "1"]).value is None
    assert largest_gap(rows, "precision", ["a", "b"]) is None


@pytest.mark.parametrize(
    ("score", "label", "said"),
    [
        ([0.5], [0, 1], "as many"),
        ([1.5], [1], "a probability"),
        ([np.nan], [1], "a probability"),
        ([0.5], [2], "0 or 1"),
        ([], [], "as many"),
    ],
)
def test_other_numbers_are_refused(score: list[float], label: list[float], said: str) -> None:
    with pytest.raises(BadValue, match=said):
        Decided.of(score, label, 0.5)
