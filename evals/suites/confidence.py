"""Confidence: is a model right as often as it is sure, and does it know where it is wrong? Over any suite of labelled questions.

A question's *confidence* is the probability of the likeliest answer among those offered; it is right where that is one of the right ones.
A tie at the top chooses nothing and is not right. Reported, with definitions in ``core.stats.forecasts``:

- the *gap*, mean confidence less the share right: above 0 the model is too sure. Its interval draws clusters;
- *knowing*, the chance that a right answer is surer than a wrong one (area under the ROC curve);
- ECE by width and by mass beside what a calibrated model of the same confidences would show, its debiased form, Brier's score with its
  parts, accuracy where only the surest are answered, and all of it again after a scaling fitted on other questions (cross-fitted).

The questions are those of another suite (``of``, with its ``settings``). Texts are not stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from evals.clustered import mean_of
from evals.labelled import probabilities, reader_of
from evals.metrics import best
from evals.runner import denominators
from evals.wrapped import inner_of
from workbench.core.charts.lines import forest
from workbench.core.finding import Denominators, Finding, Null, decide
from workbench.core.measure import Needs, Request, Sample, Score, needs_of
from workbench.core.result import Result
from workbench.core.spec import Spec
from workbench.core.stats.counts import rank_auc
from workbench.core.stats.forecasts import (
    area_under_risk,
    brier,
    calibrated_error,
    calibration_error,
    debiased_error,
    recalibrated,
    selective_accuracy,
)  # fmt: skip
from workbench.core.stats.resampling import fewest

NAME = "confidence"
FOLDS, COVERAGES = 5, (0.5, 0.8, 1.0)
NO_QUESTION = "no question with a right answer"
Floats = NDArray[np.float64]


class ConfidenceSpec(Spec):
    """``of``: a suite of labelled questions, asked with its own ``settings``. ``bins`` of the calibration errors. ``margin``: a gap that
    does not matter."""

    of: str = "group-fairness"
    settings: Mapping[str, Any] = Field(default_factory=dict)
    bins: int = Field(default=15, ge=1, le=100)
    margin: float = Field(default=0.02, gt=0, lt=1)
    seed: int = 0


@dataclass(frozen=True)
class ConfidenceResult(Result):
    """``confidence``, ``right`` [item] (NaN where unscored), ``cluster``, ``unscored`` [item]."""

    def summary(self) -> str:
        if floor := self.values.attrs["floor"]:
            return f"confidence on {self.values.attrs['of']}: not applicable, {floor}"
        p, y, _ = scored(self)
        return (
            f"confidence on {self.values.attrs['of']}: sure {p.mean():.1%}, right {y.mean():.1%} of {len(p)}; "
            f"calibration error {calibration_error(p, y, bins=self.values.attrs['bins']):.3f}, Brier {((p - y) ** 2).mean():.3f}"
        )

    def plot(self) -> Any:
        p, y, clusters = scored(self)
        rows = []
        cuts = np.linspace(0, 1, 11)
        for low, high in pairwise(cuts):
            own = (p > low) & (p <= high) if low else p <= high
            if own.any():
                found = mean_of(p[own] - y[own], clusters[own], bounds=(-1.0, 1.0))
                ends = (np.nan, np.nan) if found.interval is None else (found.interval.low, found.interval.high)
                rows.append(
                    {"confidence": f"{low:.1f} to {high:.1f} ({int(own.sum())})", "gap": found.value, "low": ends[0], "high": ends[1]}
                )
        titles = {"title": "Confidence less the share right, by confidence", "gap": "confidence less share right", "null": "calibrated"}
        frame = pd.DataFrame(rows, columns=["confidence", "gap", "low", "high"])
        return forest(frame, "confidence", "gap", "low", "high", null=0.0, titles=titles)


class _Confidence:
    name = NAME
    spec = ConfidenceSpec
    needs = Needs(abilities=frozenset({"logprobs"}), inputs=(), tokenizer=True)

    def needs_for(self, spec: ConfidenceSpec) -> Needs:
        """What the suite inside needs."""
        return needs_of(*inner_of(spec.of, spec.settings))

    def samples(self, spec: ConfidenceSpec) -> Iterator[Sample]:
        reader_of(spec.of)
        suite, own = inner_of(spec.of, spec.settings)
        yield from suite.samples(own)

    def request(self, sample: Sample, spec: ConfidenceSpec) -> Request | tuple[Request, ...]:
        suite, own = inner_of(spec.of, spec.settings)
        return suite.request(sample, own)

    def score(self, sample: Sample, response: Any, spec: ConfidenceSpec) -> Score:
        _, own = inner_of(spec.of, spec.settings)
        found = reader_of(spec.of)(sample, response, own)
        if found is None or not found[1]:
            return Score(sample.id, unscored=NO_QUESTION)
        nats, right = found
        p = probabilities(nats)
        chosen = best(nats)
        return Score(
            sample.id, {"confidence": float(p.max()), "right": chosen in right, "given_right": float(p[right].sum()), "tie": chosen is None}
        )

    def aggregate(self, scores: Sequence[Score], spec: ConfidenceSpec) -> ConfidenceResult:
        return aggregate(scores, spec)

    def findings(self, result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
        return findings(result, subject=subject, reference=reference, level=level)


SUITE = _Confidence()


def aggregate(scores: Sequence[Score], spec: ConfidenceSpec) -> ConfidenceResult:
    """Confidence and right by item."""
    column = lambda name: ("item", np.array([np.nan if s.unscored else float(s.values[name]) for s in scores]))  # noqa: E731
    text = lambda values: ("item", np.array(list(values), dtype=object))  # noqa: E731
    kept = [s for s in scores if not s.unscored]
    values = xr.Dataset(
        {"confidence": column("confidence"), "right": column("right")},
        coords={
            "item": np.array([s.sample for s in scores], dtype=object), "cluster": text(s.cluster or s.sample for s in scores),
            "unscored": text(s.unscored for s in scores),
        },
        attrs={
            "of": spec.of, "bins": spec.bins, "margin": spec.margin, "seed": spec.seed, "ties": sum(bool(s.values["tie"]) for s in kept),
            "asked": denominators(scores).model_dump(mode="json"), "floor": "" if kept else "nothing was scored",
        },
    )  # fmt: skip
    return ConfidenceResult(NAME, values)


def scored(result: Result) -> tuple[Floats, Floats, NDArray[Any]]:
    """Confidence, right and cluster of the scored items."""
    v = result.values
    kept = np.isfinite(v.confidence.values)
    return v.confidence.values[kept], v.right.values[kept], v.cluster.values[kept].astype(str)


# --- findings -----------------------------------------------------------------------------------------------


def findings(result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
    """The gap against none, knowing against chance, and the difference in squared error from the reference on the same questions."""
    out = [_gap(result, subject, level), _knowing(result, subject, level)]
    return out if reference is None else [*out, _against(result, reference, subject, level)]


def _base(result: Result, subject: str) -> dict[str, Any]:
    asked = Denominators.parse(result.values.attrs["asked"])
    return {"subject": subject, "source": NAME, "denominators": asked}


def _gap(result: Result, subject: str, level: float) -> Finding:
    (p, y, clusters), floor = scored(result), result.values.attrs["floor"]
    found = mean_of(p - y, clusters, level, bounds=(-1.0, 1.0))
    verdict, because = decide(
        found.value, found.interval, null=0.0, margin=result.values.attrs["margin"], detectable=found.detectable, applicable=not floor
    )
    return Finding(
        **_base(result, subject),
        claim=f"answers to {result.values.attrs['of']} are not as sure as right",
        measure="confidence less share right",
        effect=found.value,
        unit="share of questions",
        interval=found.interval,
        verdict=verdict,
        because=floor or because,
        null=Null(name="calibrated", value=0.0, words="right as often as sure"),
        detectable=found.detectable,
        details={} if not len(p) else {**found.plain(), "ties": result.values.attrs["ties"], **_errors(result)},
    )


def _errors(result: Result) -> dict[str, Any]:
    """Every other measure of calibration, as it is and after a scaling fitted on other clusters."""
    p, y, clusters = scored(result)
    bins, seed = result.values.attrs["bins"], result.values.attrs["seed"]
    out: dict[str, Any] = {"as_stated": _measures(p, y, bins, seed)}
    if len(set(clusters.tolist())) >= FOLDS:
        out["recalibrated"] = _measures(recalibrated(p, y, clusters=clusters, folds=FOLDS, seed=seed), y, bins, seed)
    return out


def _measures(p: Floats, y: Floats, bins: int, seed: int) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for by in ("width", "mass"):
        seen, calm = calibration_error(p, y, bins=bins, by=by), calibrated_error(p, bins=bins, by=by, seed=seed)
        out[f"error_by_{by}"] = {
            "value": seen,
            "if_calibrated": float(calm.mean()),
            "p": float((1 + (calm >= seen).sum()) / (1 + len(calm))),
        }
    if len(p) >= 2:
        few = min(bins, max(1, len(p) // 2))
        out["debiased_squared_error"] = debiased_error(p, y, bins=few)
    parts = brier(p, y, bins=bins)
    out["brier"] = {name: getattr(parts, name) for name in ("score", "reliability", "resolution", "uncertainty", "within")}
    out["accuracy_at"] = {f"{coverage:g}": selective_accuracy(p, y, coverage) for coverage in COVERAGES}
    out["area_under_risk"] = area_under_risk(p, y)
    return out


def _knowing(result: Result, subject: str, level: float) -> Finding:
    (p, y, _), floor = scored(result), result.values.attrs["floor"]
    both = 0 < y.sum() < len(y) and len(y) >= fewest(level)
    found = rank_auc(p[y == 1], p[y == 0], level=level) if both else None
    effect, interval = (None, None) if found is None else (found.value, found.interval)
    verdict, because = decide(effect, interval, null=0.5, applicable=not floor)
    return Finding(
        **_base(result, subject), claim=f"right and wrong answers to {result.values.attrs['of']} differ in confidence",
        measure="area under the ROC curve of confidence for being right", effect=effect, unit="share of pairs", interval=interval,
        verdict=verdict, because=floor or (because if both else "all are right, or none is"),
        null=Null(name="chance", value=0.5, words="a wrong answer is as often the surer"),
        details={"right": int(y.sum()), "wrong": int(len(y) - y.sum())},
    )  # fmt: skip


def _against(result: Result, reference: Result, subject: str, level: float) -> Finding:
    """The difference in (confidence − right)² on questions that both were scored on."""
    v, r = result.values, reference.values
    square = lambda d: (d.confidence.values - d.right.values) ** 2  # noqa: E731
    other = dict(zip(r.item.values.tolist(), square(r), strict=True))
    gap = square(v) - np.array([other.get(item, np.nan) for item in v.item.values.tolist()])
    kept = np.isfinite(gap)
    found = mean_of(gap, v.cluster.values.astype(str), level, bounds=(-1.0, 1.0))
    floor = v.attrs["floor"] or r.attrs["floor"]
    verdict, because = decide(
        found.value, found.interval, null=0.0, detectable=found.detectable, paired="higher is worse", applicable=not floor
    )
    whole = Denominators.parse(v.attrs["asked"])
    lost = whole.scored - int(kept.sum())
    return Finding(
        claim="confidence is further from what is right than the reference's", subject=subject, source=NAME,
        measure="difference in the squared error of confidence", effect=found.value, unit="squared share", interval=found.interval,
        verdict=verdict, because=floor or because, detectable=found.detectable,
        null=Null(name="reference", value=0.0, words="the reference model on the same questions"),
        denominators=Denominators(
            run=whole.run, scored=whole.scored - lost, unscored={**whole.unscored, **({"not in the reference": lost} if lost else {})}
        ),
        details=found.plain(),
    )  # fmt: skip
