"""The samples of a run, one by one: what each was worth, which were worst, by group, and what the model was asked.

The store keeps scores and no text; the text is made again from the suite and the run's own spec. Text of a set with a warning is masked
until it is asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from evals import SUITES
from evals.imported import SUITE as IMPORTED
from workbench.core.charts.lines import forest
from workbench.core.errors import BadValue, UnknownName
from workbench.core.measure import Generate, Moments, Request, Rolling, Sampled, Suite
from workbench.core.spec import Spec, canonical_json
from workbench.core.stats.intervals import mean_interval, wilson
from workbench.data import sources
from workbench.store.runs import Store

FIXED = ("sample", "group", "cluster", "unscored")
MOST_GROUPS = 60
WARNED = {
    "refusal": "harmful requests", "over-refusal": "requests that are harmful or look so", "hazardous-knowledge": "hazardous knowledge",
    "toxicity-continuations": "hate speech, slurs and threats", "confidence": "what the questions of the suite inside hold",
    "robustness": "what the samples of the suite inside hold",
}  # fmt: skip
"""What a reader may meet in suites that are not called by a registered set's name."""


def suites_of(store: Store, run: str) -> list[str]:
    """The names under which a run keeps samples: a suite's, in an audit with ``.audited`` or ``.reference`` behind it."""
    return list(store.sample_counts(run))


def suite_named(name: str) -> str:
    """The suite behind such a name."""
    return name if name in SUITES else name.rpartition(".")[0]


def warning_of(name: str) -> str:
    """What a reader may meet in the samples, or ''."""
    suite = suite_named(name)
    found = sources.SOURCES.get(suite)
    return found.warning if found is not None else WARNED.get(suite, "")


def sample_table(store: Store, run: str, name: str) -> pd.DataFrame:
    """One row a sample: ``FIXED`` columns, then a column each value (nested ones by path; of a pair of numbers the difference too)."""
    records = store.sink(run, name).read()
    if not records:
        raise UnknownName("samples", name, suites_of(store, run), where=f"in run {run}")
    rows = [{**{name: r.get(name, "") for name in FIXED}, **flat(r.get("values", {}))} for r in records]
    return pd.DataFrame(rows)


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested values side by side: ``trigger.greedy``; lists by number, and of two numbers ``name (first − second)``."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{before}{name}"
        if isinstance(value, Mapping):
            out |= flat(value, f"{path}.")
        elif isinstance(value, list) and len(value) == 2 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
            out |= {f"{path} (first)": value[0], f"{path} (second)": value[1], f"{path} (first − second)": value[0] - value[1]}
        elif isinstance(value, list):
            out[path] = ", ".join(map(str, value))
        else:
            out[path] = value
    return out


def numbers(table: pd.DataFrame) -> list[str]:
    """The columns that hold numbers, or true and false; those that differ most from sample to sample first, since they are measured. The
    two numbers of a pair come last: what counts is their difference."""
    found = [
        name for name in table.columns
        if name not in FIXED and all(isinstance(v, bool | int | float | np.number | np.bool_) for v in table[name].dropna())
    ]  # fmt: skip
    return sorted(found, key=lambda name: (name.endswith((" (first)", " (second)")), _dull(table[name])))


def _dull(column: Any) -> tuple[bool, float]:
    """Few values last (they are of the sample's making), else the less they spread the later."""
    values = column.dropna().astype(float)
    return bool(values.nunique() * 4 < len(values)), -float(values.std() if len(values) > 1 else 0.0)


def by_group(table: pd.DataFrame, value: str, level: float = 0.95) -> pd.DataFrame:
    """One row a group: ``group``, ``mean``, ``low``, ``high``, ``n``. Of true and false Wilson's interval, else Student's; NaN where a
    group has too few. Unscored samples are left out."""
    if value not in numbers(table):
        raise UnknownName("value", value, numbers(table), where="among the samples' numbers")
    scored = table.loc[(table["unscored"] == "") & table[value].notna()]
    rows = []
    for group, found in scored.groupby("group", sort=True):
        values = np.asarray(found[value], dtype=float)
        binary = all(isinstance(v, bool | np.bool_) for v in found[value])
        low, high = _interval(values, binary, level)
        rows.append((str(group) or "(no group)", float(values.mean()), low, high, len(values)))
    return pd.DataFrame(rows, columns=pd.Index(["group", "mean", "low", "high", "n"]))


def _interval(values: np.ndarray, binary: bool, level: float) -> tuple[float, float]:
    if binary:
        found = wilson(int(values.sum()), len(values), level)
        return found.low, found.high
    if len(values) < 2 or np.ptp(values) == 0:
        return math.nan, math.nan
    found = mean_interval(values, level)
    return found.low, found.high


def dots(table: pd.DataFrame, value: str, level: float = 0.95) -> Any:
    """Groups as points with their intervals, and the mean over all samples as the line."""
    frame = by_group(table, value, level).head(MOST_GROUPS)
    whole = float(table.loc[(table["unscored"] == "") & table[value].notna(), value].astype(float).mean())
    frame = frame.assign(label=[f"{group} (n {n})" for group, n in zip(frame["group"], frame["n"], strict=True)])
    titles = {"title": f"{value}, by group", "mean": f"mean {value}", "null": "all"}
    return forest(frame, "label", "mean", "low", "high", null=whole, titles=titles)


def worst(table: pd.DataFrame, value: str, *, lowest: bool, most: int = 20) -> pd.DataFrame:
    """The samples with the lowest (or highest) values, by their number and then by name."""
    if value not in numbers(table):
        raise UnknownName("value", value, numbers(table), where="among the samples' numbers")
    scored = table.loc[(table["unscored"] == "") & table[value].notna()]
    keys = np.asarray(scored[value], dtype=float) * (1 if lowest else -1)
    return scored.iloc[np.lexsort((np.asarray(scored["sample"], dtype=str), keys))[:most]]


def discordant(store: Store, runs: tuple[str, str], name: str, value: str, most: int = 50) -> pd.DataFrame:
    """Samples that both runs scored and valued differently, most different first: ``sample``, ``group``, ``first``, ``second``,
    ``difference`` (second less first)."""
    a, b = (sample_table(store, run, name).set_index("sample") for run in runs)
    for table in (a, b):
        if value not in table:
            raise UnknownName(
                "value", value, [column for column in table.columns if column not in FIXED], where="among the samples' values"
            )
    both = a.index.intersection(b.index)
    a, b = a.loc[both], b.loc[both]
    scored = (a["unscored"] == "") & (b["unscored"] == "")
    frame = pd.DataFrame({"group": a["group"], "first": a[value], "second": b[value]}).loc[scored]
    frame = frame.loc[frame["first"] != frame["second"]]
    frame["difference"] = frame["second"].astype(float) - frame["first"].astype(float)
    order = np.argsort(-np.abs(np.asarray(frame["difference"], dtype=float)), kind="stable")
    return frame.iloc[order[:most]].reset_index()


# --- what was asked ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AskedOf:
    """What the model was asked about one sample: (what it is, its text) pairs, and a prompt for the lab."""

    sample: str
    parts: tuple[tuple[str, str], ...]
    prompt: str


def asked_of(store: Store, run: str, name: str, sample: str) -> AskedOf:
    """The requests of one sample, made again. Raises MissingData where the suite's set is not here, BadValue for a sample not in it."""
    result = store.result(run, name).result
    known = _samples(result.kind, canonical_json(dict(result.spec)))
    if sample not in known:
        raise BadValue("the sample", sample, f"one of the {len(known)} that this suite asks with the run's spec")
    suite, spec = _spec_of(result.kind, result.spec)
    request = suite.request(known[sample], spec)
    asked = request if isinstance(request, tuple) else (request,)
    if not asked:  # the suite looks at the model itself
        shown = tuple((fact, str(value)) for fact, value in known[sample].facts.items())
        return AskedOf(sample, shown, "")
    return AskedOf(sample, tuple(part for one in asked for part in _parts(one)), _prompt(asked))


def _spec_of(kind: str, spec: Mapping[str, Any]) -> tuple[Suite, Spec]:
    suite: Suite = IMPORTED if kind == IMPORTED.name else SUITES.load(kind)
    return suite, suite.spec.parse(spec, what=f"stored spec of '{kind}'")


@lru_cache(maxsize=4)
def _samples(kind: str, spec_as_json: str) -> dict[str, Any]:
    suite, spec = _spec_of(kind, json.loads(spec_as_json))
    return {sample.id: sample for sample in suite.samples(spec)}


def _parts(request: Request) -> list[tuple[str, str]]:
    if isinstance(request, Generate | Sampled):
        return [("prompt, to be continued", request.prompt)]
    if isinstance(request, Rolling | Moments):
        return [*([("context", request.context)] if request.context else []), ("text, scored whole", request.text)]
    choices = [(f"continuation {i + 1}", text) for i, text in enumerate(request.continuations)]
    return [*([("context", request.context)] if request.context else []), *choices]


def _prompt(asked: Sequence[Request]) -> str:
    """A prompt that shows the sample in the lab: the context, else the beginning of the text."""
    first = asked[0]
    if isinstance(first, Generate | Sampled):
        return first.prompt
    if isinstance(first, Rolling | Moments):
        return first.context or first.text
    return first.context or first.continuations[0]


def masked(text: str) -> str:
    """As many blocks as words: how long a text is, and nothing of what it says."""
    return " ".join("▇" * min(8, max(2, len(word))) for word in text.split()) or "▇"
