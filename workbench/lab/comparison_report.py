"""Two or more finished runs as one report: every suite that they share, sample by sample against the first run that has it.

The differences and intervals are those of ``workbench compare``. Runs that were asked other samples cannot be paired; their means are then
compared as those of different items, and the report says so wherever it does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from evals import SUITES
from workbench.core.finding import Card, Finding
from workbench.core.protocol import Progress, silent
from workbench.core.result import Provenance
from workbench.lab.audit import Audit, write_pages
from workbench.lab.circumstances import CIRCUMSTANCES, circumstances
from workbench.lab.compare import DIFFERENTLY, SAME, drawn, kept, means
from workbench.lab.record import recorded
from workbench.lab.report_parts import suite_coverage
from workbench.lab.side_by_side import Pair, Side, pairs_of, shared, sides_of
from workbench.reports.evidence.plans import ComparisonPlan
from workbench.reports.parts import Coverage, Identity
from workbench.reports.phrases import percent
from workbench.reports.report import Figure, LeftOut, Origin, Report, Section, Table
from workbench.store.runs import Store

KIND = "comparison"
UNPAIRED = "unpaired: means of different items"
"""What a table says whose runs have no pair."""


def compare_runs(
    runs: Sequence[str], *, suites: Sequence[str] = (), level: float = 0.95, store: Store | None = None, date: str = "",
    progress: Progress = silent,
) -> Audit:  # fmt: skip
    """Write the report of two or more finished evaluations or audits (of an audit, its audited model) into a run of its own.

    ``suites``: only these. Raises UsageError for runs that share no suite, that are not finished or are of another kind, and BadValue for
    fewer than two runs or one given twice.
    """
    store = store if store is not None else Store.open(create=False)
    sides = sides_of(store, runs)
    plan = ComparisonPlan(runs=tuple(side.member.run for side in sides), suites=tuple(suites), level=level)
    pairs, left_out = pairs_of(
        sides, shared(sides, suites), lambda side, suite: kept(store, side.member.run, side.labels[suite]), level, progress
    )
    here = Provenance.here()
    report = compose(sides, pairs, left_out, level=level, date=date or time.strftime("%Y-%m-%d", time.gmtime()), here=here)
    spec = {"runs": list(plan.runs), "suites": list(plan.suites), "level": level}
    with recorded(store, KIND, spec, store.runs.get(plan.runs[0]).ref, provenance={}) as run:
        store.put_findings(run, report.all_findings())
        return write_pages(store, run, report, {CIRCUMSTANCES: circumstances([side.member for side in sides], here)})


# --- the report -------------------------------------------------------------------------------------------------


def compose(
    sides: Sequence[Side], pairs: Sequence[Pair], left_out: Sequence[LeftOut], *, level: float, date: str, here: Provenance
) -> Report:
    """The whole document. Equal inputs give equal reports; ``here`` names the code and packages that it says it is made by."""
    suites = list(dict.fromkeys(pair.suite for pair in pairs))
    findings = {suite: _findings(suite, pairs, level) for suite in suites}
    parts = [_section(suite, [pair for pair in pairs if pair.suite == suite], findings[suite], level) for suite in suites]
    return Report(
        kind="comparison", title=f"Comparison of {len(sides)} runs", subject=", ".join(side.name for side in sides), date=date,
        summary=tuple(_summary(pairs))[:12], left_out=tuple(left_out),
        sections=(_runs(sides), *parts, _method(level)),
        identities=tuple(Identity(part=s.letter, name=s.member.model, sha256=s.origin.model_digest) for s in sides),
        coverage=tuple(_coverage(sides, suites, findings)),
        limits=tuple(_limits(pairs)), rederive=(" ".join(["workbench report", *(side.member.run for side in sides)]),),
        provenance=tuple(_origins(sides, here)),
    )  # fmt: skip


def _origins(sides: Sequence[Side], here: Provenance) -> Iterator[Origin]:
    for side in sides:
        for suite, result in side.results.items():
            yield Origin(kind="result", name=f"{suite} of {side.letter}", value=side.member.run, sha256=result.digest())
    yield from made_by(here)


def made_by(here: Provenance) -> Iterator[Origin]:
    """The code and packages of ``here``."""
    yield Origin(kind="code", name="assay-workbench", value=here.code)
    for package, version in sorted(here.packages.items()):
        yield Origin(kind="package", name=package, value=version)


def _findings(suite: str, pairs: Sequence[Pair], level: float) -> tuple[Finding, ...]:
    """The suite's own findings on each run, those paired with the first run among them."""
    own = [pair for pair in pairs if pair.suite == suite]
    base = own[0].first
    asked = SUITES.load(suite)
    cards = {side.letter: side.card_of(suite) for side in (base, *(pair.second for pair in own))}
    out = list(asked.findings(base.results[suite], subject=base.name, level=level))
    for pair in own:
        reference = base.results[suite] if pair.paired and DIFFERENTLY not in pair.found.denominators.unscored else None
        out += asked.findings(pair.second.results[suite], subject=pair.second.name, reference=reference, level=level)
    status = SUITES[suite].status
    return tuple(_beside(one, cards[one.subject[:1]], status) for one in out)


def _beside(one: Finding, card: tuple[Card | None, str], status: str) -> Finding:
    found, words = card
    return one.model_copy(update={"status": status, "card": found, "card_words": words})


def _summary(pairs: Sequence[Pair]) -> Iterator[str]:
    for pair in pairs:
        d = pair.found.denominators
        seen = [one for one in pair.found.differences if one.interval is not None]
        moved = [one.value for one in seen if one.interval is not None and one.interval.excludes(0.0)]
        how = f"{d.scored:,} pairs of {d.run:,} samples" if pair.paired else "unpaired, since no sample was asked alike in both"
        verb = "differs" if len(moved) == 1 else "differ"
        what = f"{', '.join(moved)} {verb} by more than chance would give" if moved else "no value is shown to differ"
        all_of = len(pair.found.differences)
        had = f"{len(seen)} of {all_of} value{'s' if all_of > 1 else ''} with an interval" if seen else "no value has an interval"
        between = f"{pair.suite}, {pair.second.letter} against {pair.first.letter}"
        if _alike(pair):
            yield f"{between} ({how}): no value differs in any pair."
            continue
        yield f"{between} ({how}): {what} ({had})."


def _runs(sides: Sequence[Side]) -> Section:
    rows = tuple((s.letter, s.member.run, s.member.kind, s.name[3:], s.origin.model_digest[:16], ", ".join(s.labels)) for s in sides)
    columns = ("letter", "run", "kind", "model", "digest (first 16)", "suites")
    table = Table(columns=columns, rows=rows, caption="The runs that stand side by side")
    lead = "The first run that was asked a suite is what the others are compared with in it."
    return Section(title="The runs", anchor="runs", lead=lead, tables=(table,))


def _section(suite: str, pairs: Sequence[Pair], findings: tuple[Finding, ...], level: float) -> Section:
    base = pairs[0].first
    text = [f"{m.letter}: {m.results[suite].summary()}." for m in (base, *(pair.second for pair in pairs))]
    for pair in pairs:
        text += _said(pair)
    figures = tuple(figure for pair in pairs for figure in _figure(pair, level))
    tables = tuple(_table(pair, level) for pair in pairs)
    return Section(title=f"Suite: {suite}", anchor=f"suite-{suite}", lead=f"{SUITES[suite].words.capitalize()}.", findings=findings,
                   figures=figures, tables=tables, text=tuple(text))  # fmt: skip


def _said(pair: Pair) -> Iterator[str]:
    d = pair.found.denominators
    left = "".join(f", {count:,} {reason}" for reason, count in sorted(d.unscored.items()))
    between = f"{pair.second.letter} against {pair.first.letter}"
    if pair.paired:
        yield f"{between}: {d.scored:,} pairs of {d.run:,} samples{left}."
        alike = _alike(pair)
        yield from (
            [f"{between}: no value differs in any pair."] if alike else [f"{between}: {means(one)}" for one in pair.found.differences]
        )
    else:
        yield (
            f"{between}: unpaired. {pair.apart}, so their means are compared as those of different items{left and f' ({left[2:]})'}: what "
            "differs may be the items as well as the models."
        )


def _alike(pair: Pair) -> bool:
    """Whether both runs say the same of every sample."""
    return pair.paired and all(one.note == SAME for one in pair.found.differences)


def _table(pair: Pair, level: float) -> Table:
    rows = tuple(
        (
            one.value, one.first, one.second, one.difference, one.interval.low if one.interval else None,
            one.interval.high if one.interval else None, one.p, one.n, one.clusters, one.note,
        )
        for one in pair.found.differences
    )  # fmt: skip
    a, b = pair.first.letter, pair.second.letter
    bounds = f"low ({percent(level)})", f"high ({percent(level)})"
    columns = ("value", a, b, f"{b} − {a}", *bounds, "McNemar p", "pairs" if pair.paired else "items", "clusters", "note")
    how = "pair by pair" if pair.paired else UNPAIRED
    return Table(columns=columns, rows=rows, caption=f"{pair.suite}, {b} less {a}, {how}")


def _figure(pair: Pair, level: float) -> Iterator[Figure]:
    if not pair.found.differences:
        return
    title = f"{pair.suite}: {pair.second.letter} less {pair.first.letter}"
    bounded = [one for one in pair.found.differences if one.interval is not None]
    moved = [one.value for one in bounded if one.interval is not None and one.interval.excludes(0.0)]
    said = f"Differences of {len(pair.found.differences)} values with intervals at {percent(level)} about a line at 0. " + (
        f"The interval excludes 0 for {', '.join(moved)}." if moved else "No interval excludes 0."
    )
    yield Figure.from_chart(drawn(pair.found), _table(pair, level), title=title, alt=said,
                            caption="Each value has its own unit, so sizes of two rows do not compare.")  # fmt: skip


def _coverage(sides: Sequence[Side], suites: Sequence[str], findings: Mapping[str, Sequence[Finding]]) -> Iterator[Coverage]:
    for suite in suites:
        for side in sides:
            if suite in side.results:
                own = [one for one in findings[suite] if one.subject == side.name]
                yield suite_coverage(suite, side.letter, side.results[suite], own)


def _limits(pairs: Sequence[Pair]) -> Iterator[str]:
    for pair in pairs:
        if not pair.paired:
            yield (
                f"{pair.suite} of {pair.second.letter} and {pair.first.letter} is compared unpaired: the runs were asked different "
                "samples, so a difference may be one of the samples."
            )
    count = sum(one.interval is not None for pair in pairs for one in pair.found.differences)
    if count > 1:
        yield f"{count} differences have an interval, each for itself: of so many, some exclude 0 by chance alone."


def _method(level: float) -> Section:
    return Section(
        title="Method", anchor="method", lead="How the runs were compared.",
        text=(
            "Samples are pairs where both runs were asked the same about them. A difference is the mean over pairs of the second value "
            f"less the first, with the paired bootstrap's interval at {percent(level)} over clusters (BCa); values that are true or false "
            "also have the exact McNemar test. Samples that only one run has, or that either left unscored, are counted with the reason.",
            "Where no pair is left, the means of both runs are compared by Welch's t interval over clusters, and it is said each time.",
            "Findings are the suite's own, drawn again from the stored results; the first run is the named null of every comparison.",
        ),
    )  # fmt: skip
