"""Group fairness of a classifier's decisions: rates by group and their differences, areas under the curve, calibration by group.

Definitions over rows with ``score`` (the probability of yes), ``decision`` (score >= threshold), ``label`` (1 or 0) and a group:

- selection rate P(decision), and the mean score; true positive rate P(decision | label 1) (equal opportunity; with the false positive
  rate P(decision | label 0), equalised odds: Hardt, Price and Srebro 2016); precision P(label | decision) (predictive parity,
  Chouldechova 2017);
- areas under the ROC curve within a subgroup, of its positives over the background's negatives (BNSP) and of the background's positives
  over its negatives (BPSN): Borkan et al. 2019;
- expected calibration error within a group, over bins of equal mass.

Differences are of one group from all others. They cannot all be 0 where groups differ in their labels and the classifier is not perfect
(Kleinberg, Mullainathan and Raghavan 2017): which of them counts is a decision, and no statistic makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evals.clustered import Clustered, statistic_of, sums_by
from workbench.core.errors import BadValue
from workbench.core.stats.counts import rank_auc

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Rate = Literal["selection rate", "mean score", "true positive rate", "false positive rate", "precision"]
RATES: tuple[Rate, ...] = ("selection rate", "mean score", "true positive rate", "false positive rate", "precision")
BINS = 10
FEWEST = 20
"""Rows that a slice must have."""


@dataclass(frozen=True)
class Decided:
    """Rows that were decided on: the probability of yes, whether that is a yes, the label; finite all."""

    score: Floats
    decision: Bools
    label: Bools

    @classmethod
    def of(cls, score: Any, label: Any, threshold: float) -> Decided:
        """From scores in [0, 1] and labels of 0 and 1. Raises BadValue for others."""
        p, y = np.asarray(score, dtype=np.float64), np.asarray(label, dtype=np.float64)
        if p.shape != y.shape or p.ndim != 1 or not len(p):
            raise BadValue("scores and labels", f"of shapes {p.shape} and {y.shape}", "as many of the one as of the other, in one row")
        if not np.isfinite(p).all() or p.min() < 0 or p.max() > 1:
            raise BadValue("a score", "outside", "a probability")
        if not np.isin(y, (0.0, 1.0)).all():
            raise BadValue("a label", "another number", "0 or 1")
        return cls(p, p >= threshold, y == 1)

    def parts(self, rate: Rate) -> tuple[Floats, Floats]:
        """What a rate is the sum of, over the sum of what, row by row."""
        decision, label, every = self.decision.astype(float), self.label.astype(float), np.ones(len(self.score))
        return {
            "selection rate": (decision, every), "mean score": (self.score, every), "true positive rate": (decision * label, label),
            "false positive rate": (decision * (1 - label), 1 - label), "precision": (decision * label, decision),
        }[rate]  # fmt: skip


def rate_of(rows: Decided, rate: Rate, chosen: Bools) -> float | None:
    """A rate over the chosen rows; None where it is of nothing."""
    above, below = rows.parts(rate)
    return float(above[chosen].sum() / below[chosen].sum()) if below[chosen].sum() > 0 else None


def difference(rows: Decided, rate: Rate, chosen: Bools, clusters: Sequence[str], level: float = 0.95) -> Clustered:
    """A rate over the chosen rows less that over all others, whole clusters drawn. No value where one of them is of nothing."""
    above, below = rows.parts(rate)
    columns = np.stack([above * chosen, below * chosen, above * ~chosen, below * ~chosen], axis=1)
    used = columns[:, 1] + columns[:, 3] > 0
    names = np.asarray(clusters, dtype=str)
    if not used.any():
        return Clustered(None)
    return statistic_of(sums_by(columns[used], names[used]), _gap, level, bounds=(-1.0, 1.0), n=int(used.sum()))


def _gap(sample: Floats, /, axis: int) -> Floats:
    sums = sample.sum(axis)
    return sums[..., 0] / sums[..., 1] - sums[..., 2] / sums[..., 3]


def largest_gap(rows: Decided, rate: Rate, groups: Sequence[str]) -> float | None:
    """The highest rate of a group less the lowest (demographic parity difference, for the selection rate); None without two groups."""
    names = np.asarray(groups, dtype=str)
    found = [value for name in np.unique(names) if (value := rate_of(rows, rate, names == name)) is not None]
    return max(found) - min(found) if len(found) > 1 else None


def areas(rows: Decided, chosen: Bools, level: float = 0.95) -> dict[str, dict[str, float] | None]:
    """Areas under the curve within the chosen rows, BPSN and BNSP, each with Newcombe's interval; None where a side has no rows."""
    yes, no = rows.score[rows.label & chosen], rows.score[~rows.label & chosen]
    other_yes, other_no = rows.score[rows.label & ~chosen], rows.score[~rows.label & ~chosen]
    sides = {"subgroup": (yes, no), "BPSN": (other_yes, no), "BNSP": (yes, other_no)}
    out: dict[str, dict[str, float] | None] = {}
    for name, (positive, negative) in sides.items():
        out[name] = None
        if len(positive) and len(negative):
            found = rank_auc(positive, negative, level=level)
            out[name] = {"value": found.value, "low": found.interval.low, "high": found.interval.high}
    return out


def calibration_error(rows: Decided, chosen: Bools, bins: int = BINS) -> float | None:
    """Mean absolute difference of mean score and share of positives over bins of equal mass, weighted by rows; None under ``FEWEST`` rows.

    It is not negative, so it is above 0 for a calibrated classifier too, by about ``sqrt(2 bins p (1 - p) / (pi n))``.
    """
    score, label = rows.score[chosen], rows.label[chosen].astype(float)
    if len(score) < FEWEST:
        return None
    order = np.argsort(score, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return float(sum(len(part) * abs(score[part].mean() - label[part].mean()) for part in parts) / len(order))
