"""Samples that another program asked and scored: the statistics of this one over them.

An imported run has a value for each metric and sample, and the digest of what each sample was asked, so that two runs can be paired. The
mean of a metric stands beside its interval, by clusters where the file names what samples share; epochs of one sample are one cluster. Two
imported runs are compared on the samples that both scored and were asked the same. Nothing is asked again: there is no model here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from evals.clustered import Clustered, mean_of
from evals.runner import denominators, score_of
from workbench.core.charts.lines import forest
from workbench.core.errors import BadValue, Incompatible
from workbench.core.finding import Denominators, Finding, Null, decide
from workbench.core.measure import Needs, Request, Sample, Score
from workbench.core.result import Result
from workbench.core.spec import Spec, digest_of

NAME = "imported"
Direction = Literal["", "higher is worse", "higher is better"]
Floats = NDArray[np.float64]


class ImportedSpec(Spec):
    """Where samples came from: the ``form`` of the file, its sha256 (``file``), and the ``task`` that it calls them. ``cluster`` and
    ``group`` are the fields by which they were grouped."""

    form: str = ""
    task: str = ""
    file: str = ""
    cluster: str = ""
    group: str = ""


@dataclass(frozen=True)
class ImportedResult(Result):
    """``value`` [metric, item] (NaN where there is none); ``sample``, ``epoch``, ``cluster``, ``group``, ``unscored``, ``asked`` (a digest)
    [item]; ``binary`` and ``direction`` [metric]."""

    def summary(self) -> str:
        found = [(name, overall(self, name)) for name in metrics_of(self)]
        parts = ", ".join(f"{name} {'undefined' if one.value is None else f'{one.value:.4g}'}" for name, one in found)
        counts = Denominators.parse(self.values.attrs["asked"])
        return f"{self.values.attrs['task']}: {parts}; {counts.scored} of {counts.run} samples scored by {self.values.attrs['form']}"

    def plot(self) -> Any:
        rows = []
        for name in metrics_of(self):
            found = overall(self, name)
            if found.value is None:
                continue
            inside = found.interval is not None and not found.interval.excludes(found.value)  # a corrected interval may miss its estimate
            low, high = (found.interval.low, found.interval.high) if found.interval is not None and inside else (np.nan, np.nan)
            rows.append({"metric": f"{name} ({found.n})", "mean": found.value, "low": low, "high": high})
        return forest(pd.DataFrame(rows), "metric", "mean", "low", "high", null=None, titles={"title": str(self.values.attrs["task"])})

    def asked(self) -> dict[str, str]:
        """The digest of what each sample was asked."""
        v = self.values
        return {str(sample): str(asked) for sample, asked in zip(v.sample.values, v.asked.values, strict=True)}


class _Imported:
    """A suite that cannot be run: its samples were asked elsewhere."""

    name = NAME
    spec = ImportedSpec
    needs = Needs(inputs=())

    def samples(self, spec: ImportedSpec) -> Iterable[Sample]:
        raise Incompatible(spec.task or NAME, "any model here", ["its samples were asked by another program, and their texts are not kept"])

    def request(self, sample: Sample, spec: ImportedSpec) -> Request:
        raise Incompatible(spec.task or NAME, "any model here", ["its samples were asked by another program"])

    def score(self, sample: Sample, response: Any, spec: ImportedSpec) -> Score:
        raise Incompatible(spec.task or NAME, "any model here", ["its samples were scored by another program"])

    def aggregate(self, scores: Sequence[Score], spec: ImportedSpec) -> Result:
        raise Incompatible(spec.task or NAME, "any model here", ["its samples were scored by another program"])

    def findings(self, result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
        return findings(result, subject=subject, reference=reference, level=level)


SUITE = _Imported()


# --- the result -------------------------------------------------------------------------------------------------


def result_of(
    records: Sequence[Mapping[str, Any]], asked: Sequence[str], spec: ImportedSpec, directions: Mapping[str, Direction]
) -> ImportedResult:
    """The result of a task's records (as a sink holds them, in order); ``asked`` are the digests of what each was asked."""
    scores = [score_of(record) for record in records]
    names = sorted({name for score in scores for name, value in score.values.items() if isinstance(value, bool | int | float)})
    value = np.array([[float(s.values[name]) if name in s.values else np.nan for s in scores] for name in names]).reshape(len(names), -1)
    text = lambda values: ("item", np.array(list(values), dtype=object))  # noqa: E731
    binary = [all(isinstance(s.values[name], bool) for s in scores if name in s.values) for name in names]
    values = xr.Dataset(
        {
            "value": (("metric", "item"), value), "binary": ("metric", np.array(binary, dtype=bool)),
            "direction": ("metric", np.array([directions.get(name, "") for name in names], dtype=object)),
        },
        coords={
            "metric": np.array(names, dtype=object), "sample": text(s.sample for s in scores),
            "epoch": ("item", np.array([int(record["epoch"]) for record in records], dtype=np.int64)),
            "cluster": text(s.cluster for s in scores), "group": text(s.group for s in scores),
            "unscored": text(s.unscored for s in scores), "asked": text(asked),
        },
        attrs={"task": spec.task, "form": spec.form, "asked": denominators(scores).model_dump(mode="json")},
    )  # fmt: skip
    return ImportedResult(NAME, values, spec=spec.model_dump(mode="json"))


def metrics_of(result: Result) -> list[str]:
    return [str(name) for name in result.values.metric.values]


def _clusters(result: Result) -> NDArray[Any]:
    """What samples share, or the sample itself: its epochs belong together."""
    own, shared = result.values.sample.values.astype(str), result.values.cluster.values.astype(str)
    return np.where(shared == "", own, shared)


def _mean(values: Floats, clusters: NDArray[Any], level: float, bounds: tuple[float, float] | None) -> Clustered:
    """The mean of the finite values. Where nothing bounds them, equal values leave no interval: they do not say how far others may lie."""
    if bounds is not None:
        return mean_of(values, clusters, level, bounds=bounds)
    try:
        return mean_of(values, clusters, level, bounds=(-math.inf, math.inf))
    except BadValue:
        kept = np.isfinite(values)
        return Clustered(float(values[kept].mean()), None, int(kept.sum()), len(set(clusters[kept].tolist())))


def overall(result: Result, metric: str, level: float = 0.95) -> Clustered:
    """The mean of a metric over the samples it has a value for."""
    v = result.values.sel(metric=metric)
    return _mean(v.value.values, _clusters(result), level, (0.0, 1.0) if bool(v.binary) else None)


def findings(result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
    """The mean of each metric; with a reference, the paired difference of each that both have."""
    theirs = set(metrics_of(reference)) if reference is not None else set()
    out = []
    for metric in metrics_of(result):
        out.append(_own(result, metric, subject, level))
        if reference is not None and metric in theirs:
            out.append(_against(result, reference, metric, subject, level))
    return out


def _own(result: Result, metric: str, subject: str, level: float) -> Finding:
    found, task = overall(result, metric, level), str(result.values.attrs["task"])
    verdict, because = decide(found.value, found.interval, null=None)
    return Finding(
        claim=f"{task}, as {result.values.attrs['form']} scored it", subject=subject, source=task, measure=metric, effect=found.value,
        unit="share of samples" if bool(result.values.sel(metric=metric).binary) else metric, interval=found.interval, verdict=verdict,
        because=because if found.value is not None else "nothing was scored", detectable=found.detectable, details=found.plain(),
        denominators=_counts(result, metric),
    )  # fmt: skip


def _counts(result: Result, metric: str, kept: int | None = None, why: str = "") -> Denominators:
    """How many samples a metric has a value for, and of those left out why; ``kept`` of them, the rest for ``why``."""
    v = result.values.sel(metric=metric)
    reasons: dict[str, int] = {}
    for reason, value in zip(v.unscored.values.tolist(), v.value.values.tolist(), strict=True):
        if not math.isfinite(value):
            reasons[str(reason) or "no value of this metric"] = reasons.get(str(reason) or "no value of this metric", 0) + 1
    scored = len(v.value) - sum(reasons.values())
    if kept is not None and kept < scored:
        reasons[why] = scored - kept
        scored = kept
    return Denominators(run=len(v.value), scored=scored, unscored=reasons)


def _against(result: Result, reference: Result, metric: str, subject: str, level: float) -> Finding:
    """Own less reference, over the samples that both scored and were asked the same."""
    v, w, task = result.values.sel(metric=metric), reference.values.sel(metric=metric), str(result.values.attrs["task"])
    keys = lambda x: zip(x.sample.values.tolist(), x.epoch.values.tolist(), x.asked.values.tolist(), strict=True)  # noqa: E731
    theirs = dict(zip(keys(w), w.value.values.tolist(), strict=True))
    gap = v.value.values - np.array([theirs.get(key, np.nan) for key in keys(v)], dtype=np.float64)
    binary, direction = bool(v.binary) and bool(w.binary), v.direction.values.item()
    found = _mean(gap, _clusters(result), level, (-1.0, 1.0) if binary else None)
    verdict, because = decide(found.value, found.interval, null=0.0, detectable=found.detectable, paired=direction)
    return Finding(
        claim=f"{task}: other than the reference", subject=subject, source=task, measure=f"difference in {metric}", effect=found.value,
        unit="share of samples" if binary else metric, interval=found.interval, verdict=verdict, because=because,
        null=Null(name="reference", value=0.0, words="the reference's run on the same samples"), detectable=found.detectable,
        denominators=_counts(result, metric, found.n, "not scored in the reference, or asked differently there"), details=found.plain(),
    )  # fmt: skip


def asked_digest(*parts: Any) -> str:
    """The digest of what a sample was asked, from JSON values."""
    return digest_of(list(parts))[:32]
