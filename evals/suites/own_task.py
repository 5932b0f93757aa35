"""A task of one's own: rows of a table become questions by a task file (``evals.own_task``), scored as lm-evaluation-harness scores them.

- ``multiple_choice``: ``acc`` is how often the choice of the highest log p is a right one, ``acc_norm`` the same of log p over the choice's
  characters (without the delimiter). A tie at the top is not right: where several choices get one number, nothing was chosen.
- ``loglikelihood``: ``perplexity`` = exp(-mean over items of the target's log p).
- ``loglikelihood_rolling``: exp(-sum of log p / sum of words), the same of UTF-8 bytes, and bits a byte, of whole texts.
- ``generate_until``: ``exact_match`` of the greedy answer with the target, as written, or without case or punctuation where told.

Every metric is a sum over items divided by another, so its interval draws items, or clusters where the task names the column that items
share. Accuracy stands beside chance (right choices over choices, mean over the items scored). Rows that cannot be questions are unscored
and counted. Texts are not stored with the result.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from evals.clustered import Clustered, mean_of, statistic_of, sums_by
from evals.metrics import LN2, best, total
from evals.own_task.file import TaskFile, read
from evals.own_task.questions import examples, others, question_of
from evals.own_task.rows import rows_of
from evals.runner import denominators
from workbench.core.charts.lines import forest
from workbench.core.errors import BadValue, EmptySelection
from workbench.core.finding import Denominators, Finding, Null, decide
from workbench.core.measure import Generate, Loglikelihood, Needs, Request, Rolling, Sample, Score
from workbench.core.result import Result
from workbench.core.spec import Spec

NAME, ALL = "own-task", "all"
SHARES = ("acc", "acc_norm", "exact_match")
"""Metrics that are a share of items; the others are the exponent, or the bits, of nats over a weight."""
Floats = NDArray[np.float64]


class OwnTaskSpec(Spec):
    """``file``: the task file. ``most``: its first so many rows (0: all)."""

    file: str = ""
    most: int = Field(default=0, ge=0)
    seed: int = 0


@dataclass(frozen=True)
class OwnTaskResult(Result):
    """``above``, ``below`` [metric, item]: a metric is made of the sum of the one over the sum of the other (NaN where unscored);
    ``chance``, ``cluster``, ``subgroup``, ``unscored`` [item]."""

    def summary(self) -> str:
        if floor := self.values.attrs["floor"]:
            return f"{self.values.attrs['task']}: not applicable, {floor}"
        found = [(str(name), overall(self, str(name))) for name in self.values.metric.values]
        parts = [f"{name} {_said(name, one.value)}" for name, one in found]
        return f"{self.values.attrs['task']}: {', '.join(parts)}, of {found[0][1].n} items in {found[0][1].units} clusters"

    def plot(self) -> Any:
        metric = str(self.values.metric.values[0])
        rows = []
        for name in [ALL, *subgroups_of(self)]:
            found = overall(self, metric, name)
            low, high = (np.nan, np.nan) if found.interval is None else (found.interval.low, found.interval.high)
            rows.append({"items": f"{name} ({found.n})", metric: found.value, "low": low, "high": high})
        titles = {"title": f"{self.values.attrs['task']}: {metric}", metric: metric, "null": "chance"}
        return forest(pd.DataFrame(rows), "items", metric, "low", "high", null=chance(self) if metric in SHARES else None, titles=titles)


class _OwnTask:
    name = NAME
    spec = OwnTaskSpec
    needs = Needs(abilities=frozenset({"logprobs"}), inputs=(), tokenizer=True)

    def needs_for(self, spec: OwnTaskSpec) -> Needs:
        """A task that only has texts written asks for no log-probabilities."""
        writes = task_of(spec).output_type == "generate_until"
        return Needs(abilities=frozenset({"generate" if writes else "logprobs"}), inputs=(), tokenizer=True)

    def samples(self, spec: OwnTaskSpec) -> Iterator[Sample]:
        task = task_of(spec)
        rows = rows_of([Path(place) for place in task.data])
        pool = rows_of([Path(place) for place in task.fewshot_data]) if task.shots else []
        among = bool(task.shots) and task.fewshot_data == task.data
        before = task.description if among else examples(pool, task)
        how = {"task": task.model_dump(mode="json", include={"output_type", "until", "most", "ignore_case", "ignore_punctuation",
                                                             "target_delimiter"})}  # fmt: skip
        for number, row in enumerate(rows[: spec.most or None]):
            for name in (task.cluster, task.subgroup):
                if name and name not in row.columns:
                    raise EmptySelection("column", name, list(row.columns), where=row.where)
            cluster, group = (str(row.columns[name]) if name else "" for name in (task.cluster, task.subgroup))
            shown = examples(others(pool, row, task.shots), task) if among else before
            facts = {**question_of(row, task, shown).facts(), **how}
            yield Sample(f"{number:06d}", facts, cluster=cluster or f"{number:06d}", group=group)

    def request(self, sample: Sample, spec: OwnTaskSpec) -> Request:
        f, how = sample.facts, sample.facts["task"]
        match how["output_type"]:
            case "multiple_choice":
                return Loglikelihood(f["context"], tuple(how["target_delimiter"] + choice for choice in f["choices"]))
            case "loglikelihood":
                return Loglikelihood(f["context"], (how["target_delimiter"] + f["target"],))
            case "loglikelihood_rolling":
                return Rolling(f["target"])
            case _:
                return Generate(f["context"], most=how["most"], until=tuple(how["until"]))

    def score(self, sample: Sample, response: Any, spec: OwnTaskSpec) -> Score:
        return score(sample, response)

    def aggregate(self, scores: Sequence[Score], spec: OwnTaskSpec) -> OwnTaskResult:
        return aggregate(scores, task_of(spec))

    def told(self, spec: OwnTaskSpec) -> dict[str, Any]:
        """The task file, which alone says what its answers are worth together; its tables by name, for they stay where they are."""
        task = task_of(spec).model_dump(mode="json")
        return {**task, **{name: [Path(place).name for place in task[name]] for name in ("data", "fewshot_data")}}

    def aggregate_told(self, scores: Sequence[Score], spec: OwnTaskSpec, told: Mapping[str, Any]) -> OwnTaskResult:
        """The same as ``aggregate`` by what was ``told``, without the file."""
        return aggregate(scores, TaskFile.parse(told, what="the task file that was kept"))

    def findings(self, result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
        return findings(result, subject=subject, reference=reference, level=level)


SUITE = _OwnTask()


def task_of(spec: OwnTaskSpec) -> TaskFile:
    """The task that the spec names. Raises BadValue where it names none, and what reading it raises."""
    if not spec.file:
        raise BadValue("file", spec.file, "the path of a task file", do="Give one: `--set file=my-task.yaml`.")
    return read(Path(spec.file))


# --- one item -----------------------------------------------------------------------------------------------


def score(sample: Sample, response: Any) -> Score:
    """What an answer is worth; unscored where the row was no question."""
    f, how = sample.facts, sample.facts["task"]
    if f["unscored"]:
        return Score(sample.id, unscored=f["unscored"])
    match how["output_type"]:
        case "multiple_choice":
            nats = [total(one) for one in response]
            sizes = [len(choice) for choice in f["choices"]]
            chosen = {"acc": best(nats), "acc_norm": best([one / size for one, size in zip(nats, sizes, strict=True)])}
            values: dict[str, Any] = {name: float(one in f["right"]) for name, one in chosen.items()}
            return Score(sample.id, {**values, "chance": len(f["right"]) / len(f["choices"])})
        case "loglikelihood":
            return Score(sample.id, {"nats": -total(response[0])})
        case "loglikelihood_rolling":
            text = f["target"]
            return Score(sample.id, {"nats": -total(response[0]), "words": len(re.split(r"\s+", text)), "bytes": len(text.encode())})
        case _:
            mine, right = (_plain(text, how) for text in (response, f["target"]))
            return Score(sample.id, {"exact_match": float(mine == right), "chance": 0.0})


def _plain(text: str, how: dict[str, Any]) -> str:
    text = text.lower() if how["ignore_case"] else text
    return text.translate(str.maketrans("", "", string.punctuation)) if how["ignore_punctuation"] else text


_PARTS: dict[str, tuple[str, str]] = {
    "perplexity": ("nats", ""), "word_perplexity": ("nats", "words"), "byte_perplexity": ("nats", "bytes"),
    "bits_per_byte": ("nats", "bytes"),
}  # fmt: skip
"""What the other metrics are the sum of, over what; '' counts items."""


# --- the result ---------------------------------------------------------------------------------------------


def aggregate(scores: Sequence[Score], task: TaskFile) -> OwnTaskResult:
    """The parts of every metric by item."""
    column = lambda name: np.array([np.nan if s.unscored else float(s.values[name]) if name else 1.0 for s in scores])  # noqa: E731
    parts = [_PARTS.get(name, (name, "")) for name in task.metrics]
    text = lambda values: ("item", np.array(list(values), dtype=object))  # noqa: E731
    shares = task.metrics[0] in SHARES
    values = xr.Dataset(
        {
            "above": (("metric", "item"), np.stack([column(above) for above, _ in parts])),
            "below": (("metric", "item"), np.stack([column(below) for _, below in parts])),
            "chance": ("item", column("chance") if shares else np.full(len(scores), np.nan)),
        },
        coords={
            "metric": list(task.metrics), "item": np.array([s.sample for s in scores], dtype=object),
            "cluster": text(s.cluster for s in scores), "subgroup": text(s.group for s in scores),
            "unscored": text(s.unscored for s in scores),
        },
        attrs={
            "task": task.task, "output_type": task.output_type, "asked": denominators(scores).model_dump(mode="json"),
            "floor": "nothing was scored" if all(s.unscored for s in scores) else "",
        },
    )  # fmt: skip
    return OwnTaskResult(NAME, values)


def subgroups_of(result: Result) -> list[str]:
    return sorted({str(name) for name in result.values.subgroup.values if name})


def chance(result: Result) -> float | None:
    """The mean share of right choices over the items scored; None for metrics that have none."""
    values = result.values.chance.values
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def overall(result: Result, metric: str, subgroup: str = ALL, level: float = 0.95) -> Clustered:
    """A metric over all scored items, or over those of a subgroup."""
    v = result.values.sel(metric=metric)
    own = np.isfinite(v.above.values) & ((v.subgroup.values == subgroup) | (subgroup == ALL))
    above, below, clusters = v.above.values[own], v.below.values[own], v.cluster.values[own].astype(str)
    if metric in SHARES:
        return mean_of(above, clusters, level, bounds=(0.0, 1.0))
    if not len(above) or below.sum() <= 0:
        return Clustered(None)
    rows = sums_by(np.stack([above, below], axis=1), clusters)
    return _unbounded(rows, _exponent if metric != "bits_per_byte" else _bits, level, len(above))


def _unbounded(rows: Any, statistic: Any, level: float, n: int) -> Clustered:
    """A statistic that nothing bounds above. Where every cluster gives the same value there is no interval: how far others may lie is not
    known."""
    try:
        return statistic_of(rows, statistic, level, bounds=(-np.inf, np.inf), n=n)
    except BadValue:
        return Clustered(float(statistic(np.asarray(rows, dtype=np.float64)[None], axis=1)[0]), None, n, len(rows))


def _nats(sample: Floats, /, axis: int) -> Floats:
    sums = sample.sum(axis)
    return sums[..., 0] / sums[..., 1]


def _exponent(sample: Floats, /, axis: int) -> Floats:
    return np.exp(_nats(sample, axis))


def _bits(sample: Floats, /, axis: int) -> Floats:
    return _nats(sample, axis) / LN2


def _said(metric: str, value: float | None) -> str:
    return "not defined" if value is None else f"{value:.1%}" if metric in SHARES else f"{value:.4g}"


# --- findings -----------------------------------------------------------------------------------------------


def findings(result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
    """Each metric, of shares against chance, and each against the reference on the items both scored."""
    out = []
    for metric in map(str, result.values.metric.values):
        out.append(_own(result, metric, subject, level))
        if reference is not None:
            out.append(_against(result, reference, metric, subject, level))
    return out


def _own(result: Result, metric: str, subject: str, level: float) -> Finding:
    found, floor, share = overall(result, metric, level=level), result.values.attrs["floor"], metric in SHARES
    null = chance(result) if share else None
    verdict, because = decide(found.value, found.interval, null=null, detectable=found.detectable, applicable=not floor)
    bare = {"null": Null(name="chance", value=null), "interval": found.interval} if share and null is not None else {}
    return Finding(
        claim=f"{result.values.attrs['task']}: answers are right more often than by chance" if share else f"{result.values.attrs['task']}",
        subject=subject, source=NAME, measure=metric, effect=found.value, unit="share of items" if share else metric, verdict=verdict,
        because=floor or because, detectable=found.detectable if share else None, **bare,
        denominators=Denominators.parse(result.values.attrs["asked"]),
        details={**found.plain(), "by_subgroup": {name: overall(result, metric, name, level).plain() for name in subgroups_of(result)}},
    )  # fmt: skip


def _against(result: Result, reference: Result, metric: str, subject: str, level: float) -> Finding:
    """The difference from the reference over the items both scored: of shares, or of nats (the logarithm of a perplexity, a bit's 0.69)."""
    v, w = result.values.sel(metric=metric), reference.values.sel(metric=metric)
    theirs = dict(zip(w.item.values.tolist(), w.above.values.tolist(), strict=True))
    gap = v.above.values - np.array([theirs.get(item, np.nan) for item in v.item.values.tolist()])
    kept = np.isfinite(gap)
    clusters, share = v.cluster.values[kept].astype(str), metric in SHARES
    if share:
        found = mean_of(gap, v.cluster.values.astype(str), level, bounds=(-1.0, 1.0))
    else:
        rows = sums_by(np.stack([gap[kept], v.below.values[kept]], axis=1), clusters) if kept.any() else []
        found = _unbounded(rows, _nats, level, int(kept.sum()))
    floor = v.attrs["floor"] or w.attrs["floor"]
    verdict, because = decide(
        found.value, found.interval, null=0.0, detectable=found.detectable, paired="higher is better" if share else "higher is worse",
        applicable=not floor,
    )  # fmt: skip
    whole = Denominators.parse(result.values.attrs["asked"])
    lost = whole.scored - int(kept.sum())
    asked = Denominators(
        run=whole.run, scored=whole.scored - lost, unscored={**whole.unscored, **({"not scored in the reference": lost} if lost else {})}
    )
    return Finding(
        claim=f"{v.attrs['task']}: other than the reference", subject=subject, source=NAME,
        measure=f"difference in {metric}" if share else f"difference behind {metric}", effect=found.value,
        unit="share of items" if share else "nats", interval=found.interval, verdict=verdict, because=floor or because,
        detectable=found.detectable, denominators=asked,
        null=Null(name="reference", value=0.0, words="the reference model on the same items"), details=found.plain(),
    )  # fmt: skip
