"""How good stated confidences are: calibration errors, Brier's score and its parts, answers given and withheld.

``confidence [n]`` is what was stated (0 to 1), ``right [n]`` whether it came true (0 or 1). A calibration error over bins is above zero
for a perfect forecaster too, the more so the fewer items a bin has: ``calibrated_error`` says by how much, ``debiased_error`` takes it
off. A recalibration is fitted on other items than those it is judged on (``recalibrated``): on its own it looks better than it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from workbench.core.errors import BadValue
from workbench.core.stats.checks import Floats, grouped, inside, numbers, same_length, whole

Binning = Literal["width", "mass"]
Index = NDArray[np.intp]


# --- calibration errors -----------------------------------------------------------------------------------------


def calibration_error(confidence: ArrayLike, right: ArrayLike, *, bins: int = 15, by: Binning = "width") -> float:
    """The mean over items of |mean confidence − share right| of the item's bin (ECE: Naeini, Cooper and Hauskrecht, AAAI 2015).

    ``by``: bins of equal width (b / bins, (b + 1) / bins], or of equal mass, whose sizes differ by one at most; equal confidences are
    kept together in both. Raises BadValue for what is no confidence, and for a binning that there is not.
    """
    p, y = _forecasts(confidence, right)
    return sum(len(own) * abs(float(p[own].mean() - y[own].mean())) for own in _bins(p, bins, by)) / len(p)


def debiased_error(confidence: ArrayLike, right: ArrayLike, *, bins: int = 15) -> float:
    """The mean over items of (mean confidence − share right)² of the item's bin of equal mass, less what sampling alone adds to it:
    share · (1 − share) / (m − 1) in a bin of m (Kumar, Liang and Ma, NeurIPS 2019, section 4.1).

    Its expectation is that of the squared error itself, so it may be below 0; bins of one item are left out. Raises BadValue where no
    bin has two.
    """
    p, y = _forecasts(confidence, right)
    kept = [own for own in _bins(p, bins, "mass") if len(own) > 1]
    if not kept:
        raise BadValue("the items of a bin", 1, "at least 2 in some bin", do="Give more items, or fewer bins.")
    parts = [
        len(own) * (float(p[own].mean() - y[own].mean()) ** 2 - float(y[own].mean() * (1 - y[own].mean())) / (len(own) - 1)) for own in kept
    ]
    return sum(parts) / sum(len(own) for own in kept)


def calibrated_error(confidence: ArrayLike, *, bins: int = 15, by: Binning = "width", draws: int = 500, seed: int = 0) -> Floats:
    """The calibration errors ``[draws]`` that a perfectly calibrated forecaster of these confidences would show: outcomes are drawn."""
    p = _confidences(confidence)
    whole("draws", draws, least=20)
    rng = np.random.Generator(np.random.PCG64(whole("seed", seed)))
    out = np.zeros(draws)
    for own in _bins(p, bins, by):
        came = (rng.random((draws, len(own))) < p[own]).mean(axis=1)
        out += len(own) / len(p) * np.abs(p[own].mean() - came)
    return out


# --- Brier ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Brier:
    """``score`` = ``reliability`` − ``resolution`` + ``uncertainty`` + ``within`` (what confidences of one bin differ by)."""

    score: float
    reliability: float
    resolution: float
    uncertainty: float
    within: float


def brier(confidence: ArrayLike, right: ArrayLike, *, bins: int = 15, by: Binning = "mass") -> Brier:
    """The mean squared difference of confidence and outcome, and its parts (Murphy, J. Appl. Meteor. 12, 1973).

    Murphy's three parts add up for forecasts of few values; with bins there is a fourth, the variance of confidences within bins less
    twice their covariance with outcomes there (Stephenson, Coelho and Jolliffe, Weather and Forecasting 23, 2008).
    """
    p, y = _forecasts(confidence, right)
    reliability = resolution = within = 0.0
    for own in _bins(p, bins, by):
        a, b = p[own], y[own]
        reliability += len(own) * (a.mean() - b.mean()) ** 2
        resolution += len(own) * (b.mean() - y.mean()) ** 2
        within += float(((a - a.mean()) ** 2).sum() - 2 * ((a - a.mean()) * (b - b.mean())).sum())
    n = len(p)
    uncertainty = float(y.mean() * (1 - y.mean()))
    return Brier(float(((p - y) ** 2).mean()), float(reliability / n), float(resolution / n), uncertainty, within / n)


# --- answers withheld -------------------------------------------------------------------------------------------


def selective_accuracy(confidence: ArrayLike, right: ArrayLike, coverage: float) -> float:
    """The share right among the ``coverage`` (above 0, at most 1) most confident items: the mean over every order of equal ones.

    At least one item is answered.
    """
    p, y = _forecasts(confidence, right)
    if coverage != 1.0:
        inside("coverage", coverage)
    return float(_kept(p, y)[max(1, round(coverage * len(p))) - 1])


def area_under_risk(confidence: ArrayLike, right: ArrayLike) -> float:
    """The mean over all coverages of the share wrong among what is answered (AURC: Geifman and El-Yaniv, NIPS 2017); 0 is best."""
    return float((1 - _kept(*_forecasts(confidence, right))).mean())


def _kept(p: Floats, y: Floats) -> Floats:
    """The share right among the k most confident, for k from 1 to n; of equal confidences each counts as their mean."""
    order = np.argsort(-p, kind="stable")
    codes = np.unique(-p[order], return_inverse=True)[1]
    means = np.bincount(codes, y[order]) / np.bincount(codes)
    return np.cumsum(means[codes]) / np.arange(1, len(p) + 1)


# --- recalibration ----------------------------------------------------------------------------------------------


def recalibrated(
    confidence: ArrayLike, right: ArrayLike, *, clusters: ArrayLike | None = None, folds: int = 5, seed: int = 0
) -> Floats:  # fmt: skip
    """``confidence [n]`` after Platt's scaling (1 / (1 + exp(−a · log-odds − b)); Platt 1999), each item by a fit on other folds.

    Whole ``clusters`` are put in a fold. Raises BadValue for fewer clusters than folds.
    """
    p, y = _forecasts(confidence, right)
    codes = np.arange(len(p)) if clusters is None else grouped(clusters, len(p))
    units = int(codes.max()) + 1
    if units < whole("folds", folds, least=2):
        raise BadValue("folds", folds, f"at most the number of items or clusters, {units}")
    fold = np.random.Generator(np.random.PCG64(whole("seed", seed))).permutation(units)[codes] % folds
    out = np.empty_like(p)
    for number in range(folds):
        out[fold == number] = scaled(p[fold == number], platt(p[fold != number], y[fold != number]))
    return out


def platt(confidence: ArrayLike, right: ArrayLike) -> tuple[float, float]:
    """(slope, shift) of the log-odds that make the outcomes likeliest, with Platt's targets (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2), which
    keep them finite where a cut separates the outcomes."""
    p, y = _forecasts(confidence, right)
    x, n = _log_odds(p), float(y.sum())
    target = np.where(y == 1, (n + 1) / (n + 2), 1 / (len(y) - n + 2))

    def loss(at: Floats) -> tuple[float, Floats]:
        z = at[0] * x + at[1]
        gap = special.expit(z) - target
        return float((np.logaddexp(0, z) - target * z).sum()), np.array([(gap * x).sum(), gap.sum()])

    found = optimize.minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS")
    return float(found.x[0]), float(found.x[1])


def scaled(confidence: ArrayLike, by: tuple[float, float]) -> Floats:
    """Confidences moved by a slope and a shift of their log-odds."""
    return np.asarray(special.expit(by[0] * _log_odds(_confidences(confidence)) + by[1]), dtype=np.float64)


def _log_odds(p: Floats) -> Floats:
    near = np.clip(p, 1e-6, 1 - 1e-6)
    return np.asarray(special.logit(near), dtype=np.float64)


# --- input ------------------------------------------------------------------------------------------------------


def _confidences(confidence: ArrayLike) -> Floats:
    p = numbers("confidence", confidence)
    if bad := int(((p < 0) | (p > 1)).sum()):
        raise BadValue("the count of confidences outside 0 … 1", bad, "0")
    return p


def _forecasts(confidence: ArrayLike, right: ArrayLike) -> tuple[Floats, Floats]:
    p, y = _confidences(confidence), numbers("right", right)
    same_length("confidence", p, "right", y)
    if bad := int(((y != 0) & (y != 1)).sum()):
        raise BadValue("the count of outcomes that are neither 0 nor 1", bad, "0")
    return p, y


def _bins(p: Floats, bins: int, by: str) -> Iterator[Index]:
    """The items of each bin that has any."""
    whole("bins", bins, least=1)
    if by == "width":
        codes = np.clip(np.ceil(p * bins).astype(int) - 1, 0, bins - 1)
    elif by == "mass":
        # a bin by an item's middle rank, so that equal confidences fall into one
        order = np.sort(p)
        middle = (np.searchsorted(order, p, "left") + np.searchsorted(order, p, "right")) / 2
        codes = np.minimum((middle * bins / len(p)).astype(int), bins - 1)
    else:
        raise BadValue("by", by, "'width' or 'mass'")
    return (np.flatnonzero(codes == code) for code in np.unique(codes))
