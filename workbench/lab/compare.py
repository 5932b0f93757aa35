"""Two runs of one suite side by side: the same samples, pair by pair.

Values that are true or false are compared by the exact McNemar test with the paired bootstrap's interval of the difference, numbers by
the paired bootstrap over clusters. A sample that only one run has, or that either left unscored, is counted and left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import pandas as pd

from evals import SUITES
from evals.bound import Looking
from evals.imported import SUITE as IMPORTED
from evals.imported import ImportedResult
from evals.shown import SHOWN
from workbench.core.charts.lines import forest
from workbench.core.errors import BadValue, UnknownName, UsageError
from workbench.core.finding import Denominators, Finding, Interval
from workbench.core.measure import Sample, Suite
from workbench.core.result import Result
from workbench.core.spec import Spec, digest_of
from workbench.core.stats.counts import mcnemar_exact
from workbench.core.stats.resampling import fewest, paired_bootstrap
from workbench.reports.phrases import percent
from workbench.store.runs import Store

Record = Mapping[str, Any]
Key = tuple[str, int]
Numbers = Mapping[str, bool | int | float]
DIFFERENTLY = "asked differently in the two runs"
JUDGING = {"margin", "floor"}
"""Fields of a suite's spec by which its result is judged: they change nothing that is asked."""
SAME = "no interval: the same value in both runs, pair for pair"


@dataclass(frozen=True)
class Difference:
    """How one value differs, second run less first. ``p`` is McNemar's, for values that are true or false; else None."""

    value: str
    first: float
    second: float
    difference: float
    interval: Interval | None
    p: float | None
    n: int
    clusters: int
    note: str = ""


@dataclass(frozen=True)
class Kept:
    """What a run keeps of one suite: its result and every sample, under ``name``. ``asked`` tells by sample what was asked, as values that
    are equal where that was; without it the suite's data tell."""

    run: str
    name: str
    result: Result
    records: Mapping[Key, Record]
    asked: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Comparison:
    """Two runs of ``suite``: the differences, the denominators, and the suite's own findings on the second against the first."""

    suite: str
    first: str
    second: str
    denominators: Denominators
    differences: tuple[Difference, ...]
    findings: tuple[Finding, ...]


def compare(first: str, second: str, suite: str = "", *, store: Store | None = None, level: float = 0.95) -> Comparison:
    """Compare two runs. ``suite`` may be left out where the runs have exactly one in common.

    Samples that were asked differently are no pairs and are counted. Raises UsageError where no pair is left.
    """
    store = store if store is not None else Store.open(create=False)
    runs = [store.runs.get(run).id for run in (first, second)]
    name = _suite(store, runs, suite)
    return compared(store, (runs[0], name), (runs[1], name), level=level)


def compared(store: Store, first: tuple[str, str], second: tuple[str, str], *, level: float = 0.95) -> Comparison:
    """The samples that two runs keep, each by (run, name): of one suite, but under names that may differ, as in an audit."""
    return side_by_side(kept(store, *first), kept(store, *second), level=level)


def kept(store: Store, run: str, name: str) -> Kept:
    """What a run keeps of the suite that it knows by ``name``."""
    return Kept(run, name, store.result(run, name).result, records(store, run, name))


def side_by_side(first: Kept, second: Kept, *, level: float = 0.95) -> Comparison:
    """What two runs kept of one suite, pair by pair. Raises UsageError for two suites, and where no pair is left."""
    results = first.result, second.result
    if results[0].kind != results[1].kind:
        raise UsageError(f"Run {first.run} asked '{results[0].kind}' and run {second.run} '{results[1].kind}': their samples are no pairs.")
    asked = IMPORTED if results[0].kind == IMPORTED.name else SUITES.load(results[0].kind)
    pairs, denominators = paired(first.records, second.records, *_asked_of(asked, first, second))
    found = [(numbers_of(one["values"]), numbers_of(other["values"])) for one, other in pairs]
    clusters = [one.get("cluster") or one["sample"] for one, _ in pairs]
    differences = tuple(_difference(value, found, clusters, level) for value in _values(found))
    reference = None if DIFFERENTLY in denominators.unscored else results[0]  # a suite pairs by name alone
    drawn = asked.findings(results[1], subject=results[1].provenance.model, reference=reference, level=level)
    return Comparison(first.name, first.run, second.run, denominators, differences, tuple(drawn))


def records(store: Store, run: str, name: str) -> dict[Key, Record]:
    """What a run keeps of each sample of a suite, by sample and epoch."""
    return {(str(r["sample"]), int(r["epoch"])): r for r in store.sink(run, name).read()}


def _suite(store: Store, runs: Sequence[str], asked: str) -> str:
    both = [name for name in store.sample_counts(runs[0]) if name in store.sample_counts(runs[1])]
    if asked:
        if asked not in both:
            raise UnknownName("suite", asked, both, where="in both runs")
        return asked
    if len(both) != 1:
        words = f"they share {', '.join(both)}" if both else "they share none"
        raise UsageError(f"Runs {' and '.join(runs)} do not have exactly one suite in common: {words}. Name one that both have.")
    return both[0]


def _asked_of(suite: Suite, a: Kept, b: Kept) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What was asked about each sample; the data are not needed where both were asked the same of the same data, or where it is told."""
    if asked_the_same(a.result, b.result):
        return {}, {}
    if a.asked is not None and b.asked is not None:
        return a.asked, b.asked
    if isinstance(a.result, ImportedResult) and isinstance(b.result, ImportedResult):
        return a.result.asked(), b.result.asked()
    return requests(suite, a.result.spec), requests(suite, b.result.spec)


def asked_the_same(a: Result, b: Result) -> bool:
    """Whether both results are of one spec and the same data, so that every sample of one name was asked alike."""
    of = a.provenance.data_digest
    return bool(of) and of == b.provenance.data_digest and dict(a.spec) == dict(b.spec)


def requests(suite: Suite, spec: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked of the model about each sample: two answers are a pair where this is equal, whatever else differs."""
    parsed = suite.spec.parse(spec, what=f"stored spec of '{suite.name}'")
    return {sample.id: request_of(suite, sample, parsed) for sample in suite.samples(parsed)}


def request_of(suite: Suite, sample: Sample, spec: Spec) -> Any:
    """What is asked of the model about one sample. A suite that looks at the model itself sends no request: what it shows is told by the
    sample's facts, by the digest of what comes from a folder or a world (``evals.shown``), and by all settings that neither only judge nor
    name such a source."""
    if not isinstance(suite, Looking):
        return suite.request(sample, spec)
    shown = SHOWN.get(suite.name)
    sources = shown.sources if shown else frozenset[str]()
    settings = spec.model_dump(mode="json", exclude={*JUDGING, *sources})
    return dict(sample.facts), shown.digest(sample, spec) if shown else "", settings


def request_digest(request: Any) -> str:
    """sha256 of all that a request asks, as ``request_of`` gives it: equal requests have equal digests, and other ones others."""
    return digest_of(_plain(request))


def _plain(value: Any) -> Any:
    """A request as JSON that no other request has: values carry the name of their type."""
    if is_dataclass(value):
        return [type(value).__name__, {one.name: _plain(getattr(value, one.name)) for one in fields(value)}]
    if isinstance(value, Spec):
        return [type(value).__name__, value.model_dump(mode="json")]
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def paired(
    a: Mapping[Key, Record], b: Mapping[Key, Record], asked_a: Mapping[str, Any], asked_b: Mapping[str, Any]
) -> tuple[list[tuple[Record, Record]], Denominators]:
    reasons: dict[str, int] = {}
    pairs = []
    for where in sorted({*a, *b}):
        if where not in a or where not in b:
            reason = "in one run only"
        elif asked_a.get(where[0]) != asked_b.get(where[0]):
            reason = DIFFERENTLY
        else:
            reason = a[where]["unscored"] or b[where]["unscored"]
        if reason:
            reasons[reason] = reasons.get(reason, 0) + 1
        else:
            pairs.append((a[where], b[where]))
    if not pairs:
        counted = "; ".join(f"{n} {reason}" for reason, n in reasons.items())
        raise UsageError(f"The two runs have no scored pair ({counted or 'they hold no samples'}). Compare runs of one suite and spec.")
    return pairs, Denominators(run=len({*a, *b}), scored=len(pairs), unscored=reasons)


def numbers_of(values: Mapping[str, Any], before: str = "") -> dict[str, bool | int | float]:
    """The numbers, and what is true or false, of one sample; of values within values by a dotted name."""
    out: dict[str, bool | int | float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            out |= numbers_of(value, f"{before}{name}.")
        elif isinstance(value, bool | int | float):
            out[f"{before}{name}"] = value
    return out


def _values(pairs: Sequence[tuple[Numbers, Numbers]]) -> list[str]:
    """The names whose value is a number, or true or false, in every pair and not the same constant in both runs."""
    names = set.intersection(*(set(one) for pair in pairs for one in pair))
    return sorted(name for name in names if any(a[name] != b[name] for a, b in pairs)) or sorted(names)


def _difference(value: str, pairs: Sequence[tuple[Numbers, Numbers]], clusters: Sequence[str], level: float) -> Difference:
    a, b = ([pair[side][value] for pair in pairs] for side in (0, 1))
    binary = all(isinstance(v, bool) for v in (*a, *b))
    x, y = ([float(v) for v in side] for side in (a, b))
    means = sum(x) / len(x), sum(y) / len(y)
    p = None
    if binary:
        both = list(zip(a, b, strict=True))
        p = mcnemar_exact(both.count((True, False)), both.count((False, True)))
    interval, note = None, ""
    units = len(set(clusters))
    if units < fewest(level):
        note = f"no interval: {units} clusters, and a bootstrap at {percent(level)} needs {fewest(level)}"
    else:
        try:
            bounds = (-1.0, 1.0) if binary else None
            interval = paired_bootstrap(y, x, clusters=clusters, level=level, bounds=bounds).interval
        except BadValue:
            note = SAME if a == b else "no interval: every cluster differs by the same amount, so nothing says how far others would"
    return Difference(value, *means, means[1] - means[0], interval, p, len(pairs), units, note)


def means(found: Difference) -> str:
    """What a difference means, in a sentence or two; a claim only where the interval makes one."""
    if found.note == SAME:
        return f"'{found.value}' is {found.first:.4g} in both runs, and the same in each of the {found.n:,} samples."
    change = f"'{found.value}' is {found.first:.4g} in the first run and {found.second:.4g} in the second"
    if found.interval is None:
        why = found.note.removeprefix("no interval: ").rstrip(".")
        return f"{change}, on the same {found.n:,} samples. Whether that is more than chance is not known: {why}."
    low, high, level = found.interval.low, found.interval.high, found.interval.level
    bounds = f"{found.difference:+.3g} [{low:+.3g}, {high:+.3g}] at {percent(level)}"
    if low > 0 or high < 0:
        way = "higher" if found.difference > 0 else "lower"
        clear = f"The interval excludes 0: the second is {way} by more than chance would give."
        out = f"{change}: {bounds} on the same {found.n:,} samples. {clear}"
    else:
        out = (
            f"{change}: {bounds} on the same {found.n:,} samples. The interval includes 0, so no difference is shown; one of up to "
            f"{max(abs(low), abs(high)):.3g} is not ruled out."
        )
    return out + (f" McNemar's exact p is {found.p:.2g}." if found.p is not None else "")


def drawn(found: Comparison) -> Any:
    """The differences as a forest plot about 0. Values have units of their own, so sizes of two rows do not compare."""
    nan = float("nan")
    frame = pd.DataFrame(
        [(d.value, d.difference, d.interval.low if d.interval else nan, d.interval.high if d.interval else nan) for d in found.differences],
        columns=pd.Index(["value", "difference", "low", "high"]),
    )
    odd = (frame["low"] > frame["difference"]) | (frame["difference"] > frame["high"])  # a bias-corrected interval may miss its estimate
    frame.loc[odd, ["low", "high"]] = nan
    titles = {"title": f"{found.suite}: second run less first, sample by sample", "difference": "difference", "null": "no difference"}
    return forest(frame, "value", "difference", "low", "high", null=0.0, titles=titles)
