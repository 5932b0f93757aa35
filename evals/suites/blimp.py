"""BLiMP: does a model find the grammatical sentence of a minimal pair likelier? A capability, to stand beside scores of bias and safety.

Warstadt et al. (TACL 2020). Accuracy of a paradigm: the share of pairs whose grammatical sentence has the higher log p as a whole, each
after BOS where there is one. A tie is not right: a model that gives both sentences the same number knows nothing, and one whose numbers
are rounded until they tie must not gain by it. Fields, phenomena and the whole set are unweighted means over paradigms, as published.
The published accuracies of an n-gram model, an LSTM, Transformer-XL and GPT-2 stand beside, over the same paradigms.

A model at chance is told as such: the finding is whether grammar is preferred at all, and what it takes away from other suites'
findings is for the reader of both ("safe because broken"). Paradigms are what is drawn for intervals of means; a paradigm's own is
Wilson's, over its pairs, which templates and a small vocabulary make more alike than that assumes. Sentences are never stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from evals.clustered import Clustered, mean_of
from evals.metrics import total
from evals.runner import denominators
from evals.suites.blimp_data import MODELS, MinimalPair, load, load_published
from workbench.core.charts.lines import forest
from workbench.core.errors import EmptySelection
from workbench.core.finding import Denominators, Finding, Null, decide
from workbench.core.measure import Loglikelihood, Needs, Sample, Score
from workbench.core.result import Result
from workbench.core.spec import Spec
from workbench.core.stats.intervals import wilson
from workbench.data import sources

NAME = "blimp"
ALL = "all"
SAME = "the two sentences are the same"
SHARE = (0.0, 1.0)
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class BLiMPSpec(Spec):
    """``files``: jsonl files, folders or zips of the set's own form, and ``published`` its models_summary.jsonl; none means the
    registered set ``blimp``. ``paradigms``: only these (none: all). ``most``: the first so many pairs of each (0: all)."""

    files: tuple[str, ...] = ()
    published: str = ""
    paradigms: tuple[str, ...] = ()
    most: int = Field(default=0, ge=0)
    seed: int = 0


@dataclass(frozen=True)
class BLiMPResult(Result):
    """``good``, ``bad`` [item] (nats, NaN where unscored); ``paradigm``, ``term``, ``field``, ``unscored`` [item]."""

    def summary(self) -> str:
        found = mean_over(self)
        if found.value is None:
            return f"grammatical sentence likelier: not applicable, {self.values.attrs['floor']}"
        fields = ", ".join(f"{field} {mean_over(self, field).value:.1%}" for field in fields_of(self))
        beside = published_over(self)
        also = f"; published over the same: {', '.join(f'{name} {value:.1%}' for name, value in beside.items())}" if beside else ""
        return f"grammatical sentence likelier: {found.value:.1%} of {found.n} paradigms ({fields}){also}"

    def plot(self) -> Any:
        rows = []
        for name in [ALL, *fields_of(self)]:
            found = mean_over(self, name)
            low, high = (np.nan, np.nan) if found.interval is None else (found.interval.low, found.interval.high)
            rows.append({"field": f"{name} ({found.n} paradigms)", "accuracy": found.value, "low": low, "high": high})
        titles = {"title": "BLiMP: how often the grammatical sentence is likelier", "accuracy": "accuracy", "null": "chance"}
        return forest(pd.DataFrame(rows), "field", "accuracy", "low", "high", null=0.5, titles=titles)


class _BLiMP:
    name = NAME
    spec = BLiMPSpec
    needs = Needs(abilities=frozenset({"logprobs"}), inputs=(), tokenizer=True)

    def samples(self, spec: BLiMPSpec) -> Iterator[Sample]:
        for pair in pairs_of(spec):
            facts = {"good": pair.good, "bad": pair.bad, "term": pair.term, "field": pair.field}
            yield Sample(f"{pair.paradigm}/{pair.number}", facts, cluster=pair.paradigm, group=pair.field)

    def request(self, sample: Sample, spec: BLiMPSpec) -> Loglikelihood:
        return Loglikelihood("", (sample.facts["good"], sample.facts["bad"]))

    def score(self, sample: Sample, response: list[list[float]], spec: BLiMPSpec) -> Score:
        if sample.facts["good"] == sample.facts["bad"]:
            return Score(sample.id, unscored=SAME)
        return Score(sample.id, {"good": total(response[0]), "bad": total(response[1])})

    def aggregate(self, scores: Sequence[Score], spec: BLiMPSpec) -> BLiMPResult:
        return self.aggregate_told(scores, spec, self.told(spec))

    def told(self, spec: BLiMPSpec) -> dict[str, Any]:
        """The linguistic term of each paradigm, and the published accuracies."""
        return {"terms": {sample.cluster: sample.facts["term"] for sample in self.samples(spec)}, "published": published_of(spec)}

    def aggregate_told(self, scores: Sequence[Score], spec: BLiMPSpec, told: Mapping[str, Any]) -> BLiMPResult:
        """The same as ``aggregate`` by what was ``told``, without the files."""
        return aggregate(scores, dict(told["terms"]), dict(told["published"]))

    def findings(self, result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
        return findings(result, subject=subject, reference=reference, level=level)


SUITE = _BLiMP()


def pairs_of(spec: BLiMPSpec) -> list[MinimalPair]:
    """What the spec asks for. Raises EmptySelection for a paradigm that no file has."""
    pairs = [pair for path in [Path(file) for file in spec.files] or [sources.path(NAME, "blimp.zip")] for pair in load(path)]
    known = sorted({pair.paradigm for pair in pairs})
    for name in spec.paradigms:
        if name not in known:
            raise EmptySelection("paradigm", name, known, where="these BLiMP files")
    out, taken = [], dict.fromkeys(known, 0)
    for pair in pairs:
        if (not spec.paradigms or pair.paradigm in spec.paradigms) and (not spec.most or taken[pair.paradigm] < spec.most):
            taken[pair.paradigm] += 1
            out.append(pair)
    return out


def published_of(spec: BLiMPSpec) -> dict[str, dict[str, float]]:
    """The published accuracies, or none where one's own files come without."""
    if spec.published:
        return load_published(Path(spec.published))
    return {} if spec.files else load_published(sources.path(NAME, "models_summary.jsonl"))


# --- the result ---------------------------------------------------------------------------------------------


def aggregate(scores: Sequence[Score], terms: dict[str, str], published: dict[str, dict[str, float]]) -> BLiMPResult:
    """Both sentences' log p by pair; ``terms`` and ``published`` by paradigm."""
    number = lambda name: ("item", np.array([s.values[name] if not s.unscored else np.nan for s in scores]))  # noqa: E731
    text = lambda values: ("item", np.array(list(values), dtype=object))  # noqa: E731
    values = xr.Dataset(
        {"good": number("good"), "bad": number("bad")},
        coords={
            "item": np.array([s.sample for s in scores], dtype=object), "paradigm": text(s.cluster for s in scores),
            "term": text(terms[s.cluster] for s in scores), "field": text(s.group for s in scores),
            "unscored": text(s.unscored for s in scores),
        },
        attrs={
            "asked": denominators(scores).model_dump(mode="json"), "floor": "nothing was scored" if all(s.unscored for s in scores) else "",
            "published": {name: published[name] for name in terms if name in published},
        },
    )  # fmt: skip
    return BLiMPResult(NAME, values)


def right(result: Result) -> Floats:
    """Per pair: 1 where the grammatical sentence is likelier, 0 where it is not or both are alike, NaN where unscored."""
    gap = result.values.good.values - result.values.bad.values
    return np.where(np.isnan(gap), np.nan, (gap > 0).astype(float))


def fields_of(result: Result) -> list[str]:
    kept = np.isfinite(right(result))
    return sorted(set(result.values.field.values[kept].tolist()))


def by_paradigm(result: Result, kept: Bools | None = None) -> dict[str, tuple[int, int, int, str]]:
    """Of each paradigm with a scored pair: right, scored, ties, and its field."""
    v, found = result.values, right(result)
    usable = np.isfinite(found) if kept is None else np.isfinite(found) & kept
    names, codes = np.unique(v.paradigm.values[usable].astype(str), return_inverse=True)
    count = lambda values: np.bincount(codes, values, len(names)).astype(int).tolist()  # noqa: E731
    ties = (v.good.values == v.bad.values)[usable]
    fields = dict(zip(v.paradigm.values.tolist(), v.field.values.tolist(), strict=True))
    columns = zip(names.tolist(), count(found[usable]), count(np.ones(len(codes))), count(ties.astype(float)), strict=True)
    return {name: (k, n, t, fields[name]) for name, k, n, t in columns}


def mean_over(result: Result, field: str = ALL, level: float = 0.95) -> Clustered:
    """The unweighted mean of the paradigms' accuracies, paradigms drawn; ``n`` counts paradigms."""
    rows = {name: k / n for name, (k, n, _, own) in by_paradigm(result).items() if field in (ALL, own)}
    return mean_of(list(rows.values()), list(rows), level, bounds=SHARE)


def published_over(result: Result, field: str = ALL) -> dict[str, float]:
    """The published models' mean accuracies over the paradigms scored here; nothing where one of them is not published."""
    known = result.values.attrs["published"]
    names = [name for name, (*_, own) in by_paradigm(result).items() if field in (ALL, own)]
    if not names or any(name not in known for name in names):
        return {}
    return {model: float(np.mean([known[name][model] for name in names])) for model in MODELS}


# --- findings -----------------------------------------------------------------------------------------------


def findings(result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
    """One finding for the whole set and one a field against chance, and each against the reference on the same pairs."""
    out = []
    for field in [ALL, *fields_of(result)]:
        out.append(_accuracy(result, field, subject, level))
        if reference is not None:
            out.append(_against(result, reference, field, subject, level))
    return out


def _asked(result: Result, field: str, kept: Bools | None = None) -> Denominators:
    own = np.ones(len(result.values.item), dtype=bool) if field == ALL else result.values.field.values == field
    used = own & np.isfinite(right(result)) & (kept if kept is not None else True)
    reasons: dict[str, int] = {}
    for reason in result.values.unscored.values[own & ~used].tolist():
        reasons[reason or "not scored in the reference"] = reasons.get(reason or "not scored in the reference", 0) + 1
    return Denominators(run=int(own.sum()), scored=int(used.sum()), unscored=reasons)


def _accuracy(result: Result, field: str, subject: str, level: float) -> Finding:
    found, floor = mean_over(result, field, level), result.values.attrs["floor"]
    rows = {name: row for name, row in by_paradigm(result).items() if field in (ALL, row[3])}
    null = 0.5 * (1 - float(np.mean([t / n for _, n, t, _ in rows.values()]))) if rows else 0.5
    verdict, because = decide(found.value, found.interval, null=null, detectable=found.detectable, applicable=not floor)
    each = {}
    for name, (k, n, t, _) in rows.items():
        interval = wilson(k, n, level)
        beside = result.values.attrs["published"].get(name)
        each[name] = {"value": k / n, "low": interval.low, "high": interval.high, "n": n, "ties": t}
        each[name] |= {"published": beside} if beside else {}
    return Finding(
        claim="grammatical sentences are preferred", subject=subject, source=NAME, measure=f"accuracy over paradigms, {field}",
        effect=found.value, unit="share of pairs", interval=found.interval, verdict=verdict, because=floor or because,
        detectable=found.detectable, denominators=_asked(result, field),
        null=Null(name="chance", value=null, words="either sentence is as often the likelier; a tie is not right"),
        details={
            "paradigms": len(rows), "published": published_over(result, field), "by_paradigm": each if field != ALL else {},
            "below_chance": sorted(name for name, one in each.items() if one["high"] < 0.5),
        },
    )  # fmt: skip


def _against(result: Result, reference: Result, field: str, subject: str, level: float) -> Finding:
    """The difference between the models' mean accuracies on pairs both scored, paradigms drawn."""
    v, w = result.values, reference.values
    theirs = dict(zip(w.item.values.tolist(), right(reference).tolist(), strict=True))
    other = np.array([theirs.get(item, np.nan) for item in v.item.values.tolist()])
    gap = right(result) - other
    kept = np.isfinite(gap) & ((v.field.values == field) if field != ALL else True)
    names, codes = np.unique(v.paradigm.values[kept].astype(str), return_inverse=True)
    means = np.bincount(codes, gap[kept], len(names)) / np.bincount(codes, minlength=len(names)) if len(names) else np.array([])
    found = mean_of(means, names, level, bounds=(-1.0, 1.0))
    floor = v.attrs["floor"] or w.attrs["floor"]
    verdict, because = decide(
        found.value, found.interval, null=0.0, detectable=found.detectable, paired="higher is better", applicable=not floor
    )
    return Finding(
        claim="grammatical sentences are preferred more than in the reference", subject=subject, source=NAME, effect=found.value,
        measure=f"difference in accuracy over paradigms, {field}", unit="share of pairs", interval=found.interval, verdict=verdict,
        because=floor or because, detectable=found.detectable, denominators=_asked(result, field, np.isfinite(other)),
        null=Null(name="reference", value=0.0, words="the reference model on the same pairs"), details={"paradigms": len(names)},
    )  # fmt: skip
