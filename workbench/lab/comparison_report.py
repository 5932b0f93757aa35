"""Two or more finished runs as one report: every suite that they share, sample by sample against the first run that has it.

The differences and intervals are those of ``workbench compare``. Runs that were asked other samples cannot be paired; their means are then
compared as those of different items, and the report says so wherever it does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evals import SUITES
from workbench.core.errors import BadValue, MissingData, UnknownName, UsageError
from workbench.core.finding import Card, Finding
from workbench.core.protocol import Progress, silent
from workbench.core.result import Provenance, Result
from workbench.lab.audit import Audit, write_pages
from workbench.lab.audit_subject import AUDITED
from workbench.lab.compare import DIFFERENTLY, Comparison, compared, drawn, means
from workbench.lab.record import recorded
from workbench.lab.report_parts import suite_coverage
from workbench.lab.samples import suite_named
from workbench.lab.unpaired import unpaired
from workbench.reports.parts import Coverage, Identity
from workbench.reports.report import Figure, LeftOut, Origin, Report, Section, Table
from workbench.store.records import RunRecord
from workbench.store.runs import Store

KIND = "comparison"
KINDS = ("eval", "audit")
MOST = 12


@dataclass(frozen=True)
class Member:
    """One of the runs: its letter, and by suite the name under which it keeps samples and its result."""

    letter: str
    record: RunRecord
    labels: Mapping[str, str]
    results: Mapping[str, Result]

    @property
    def origin(self) -> Provenance:
        return next(iter(self.results.values())).provenance

    @property
    def name(self) -> str:
        """What findings call it: its letter and its model, since two runs may be of one model."""
        return f"{self.letter}: {self.record.spec.get('model', self.record.ref) or self.origin.model}"


@dataclass(frozen=True)
class Pair:
    """One suite of a run against the first that has it; ``apart`` says why, where no sample makes a pair."""

    suite: str
    first: Member
    second: Member
    found: Comparison
    apart: str = ""

    @property
    def paired(self) -> bool:
        return not self.apart


def compare_runs(
    runs: Sequence[str], *, suites: Sequence[str] = (), level: float = 0.95, store: Store | None = None, date: str = "",
    progress: Progress = silent,
) -> Audit:  # fmt: skip
    """Write the report of two or more finished evaluations or audits (of an audit, its audited model) into a run of its own.

    ``suites``: only these. Raises UsageError for runs that share no suite, that are not finished or are of another kind, and BadValue for
    fewer than two runs or one given twice.
    """
    store = store if store is not None else Store.open(create=False)
    members = [_member(store, run, letter) for letter, run in zip(_letters(runs), runs, strict=True)]
    if len({member.record.id for member in members}) < len(members):
        raise BadValue("the runs to compare", list(runs), "different runs")
    shared = _shared(members, suites)
    pairs, left_out = _pairs(store, members, shared, level, progress)
    if not pairs:
        raise UsageError(f"Nothing could be compared: {'; '.join(one.why for one in left_out)}")
    report = compose(members, pairs, left_out, _cards(store, members), level=level, date=date or time.strftime("%Y-%m-%d", time.gmtime()))
    spec = {"runs": [member.record.id for member in members], "suites": list(suites), "level": level}
    with recorded(store, KIND, spec, members[0].record.ref, provenance={}) as run:
        store.put_findings(run, report.all_findings())
        return write_pages(store, run, report)


def _letters(runs: Sequence[str]) -> str:
    if not 2 <= len(runs) <= MOST:
        raise BadValue("the number of runs to compare", len(runs), f"2 to {MOST}")
    return "ABCDEFGHIJKL"[: len(runs)]


def _member(store: Store, run: str, letter: str) -> Member:
    newest = [one for one in store.runs.list(status="done") if one.kind in KINDS] if run == "last" else []
    record = newest[0] if newest else store.runs.get(run)
    if record.kind not in KINDS or record.status != "done":
        what = f"of kind '{record.kind}'" if record.kind not in KINDS else record.status
        raise UsageError(f"Run {record.id} is {what}. What can be compared are finished runs of {' and '.join(KINDS)}.")
    results = store.results(record.id)
    ending = f".{AUDITED}" if record.kind == "audit" else ""
    labels = {suite_named(label): label for label in store.sample_counts(record.id) if label in results and label.endswith(ending)}
    if not labels:
        raise UsageError(f"Run {record.id} holds the samples of no suite, so there is nothing to compare.")
    return Member(letter, record, labels, {suite: results[label] for suite, label in labels.items()})


def _shared(members: Sequence[Member], asked: Sequence[str]) -> list[str]:
    """The suites that two runs or more have, in the catalogue's order."""
    counts = {name: sum(name in member.labels for member in members) for member in members for name in member.labels}
    several = [name for name in SUITES if counts.get(name, 0) > 1]
    for name in asked:
        if name not in several:
            raise UnknownName("suite", name, several, where="that two of these runs have")
    if not several:
        each = "; ".join(f"{member.letter} has {', '.join(member.labels)}" for member in members)
        raise UsageError(f"These runs have no suite in common ({each}), so there is nothing to compare.")
    return [name for name in several if not asked or name in asked]


def _pairs(
    store: Store, members: Sequence[Member], shared: Sequence[str], level: float, progress: Progress
) -> tuple[list[Pair], list[LeftOut]]:
    pairs: list[Pair] = []
    left_out: list[LeftOut] = []
    for number, suite in enumerate(shared):
        progress(number, len(shared), f"comparing {suite}")
        having = [member for member in members if suite in member.labels]
        for other in having[1:]:
            try:
                pairs.append(_pair(store, suite, having[0], other, level))
            except (MissingData, UsageError) as error:
                left_out.append(LeftOut(what=f"{suite}, {other.letter} against {having[0].letter}", why=str(error)))
        missing = [member for member in members if member not in having]
        left_out += [LeftOut(what=f"{suite} of {member.letter}", why="This run was not asked this suite.") for member in missing]
    alone = {name: member.letter for member in members for name in member.labels if name not in shared}
    why = "No other run was asked it, or it was not asked for."
    left_out += [LeftOut(what=f"{name} of {letter}", why=why) for name, letter in alone.items()]
    return pairs, left_out


def _pair(store: Store, suite: str, first: Member, second: Member, level: float) -> Pair:
    """Paired where any sample was asked alike in both and scored; else compared as different items."""
    here, there = (first.record.id, first.labels[suite]), (second.record.id, second.labels[suite])
    try:
        return Pair(suite, first, second, compared(store, here, there, level=level))
    except UsageError as error:
        found = unpaired(store, here, there, level=level)
        if not found.differences:
            raise UsageError(f"{error} Nor can their means be compared: no number was scored in both.") from None
        return Pair(suite, first, second, found, str(error).split(". ")[0])


def _cards(store: Store, members: Sequence[Member]) -> dict[tuple[str, str], tuple[Card | None, str]]:
    """By letter and suite the card that stood beside the findings of an audit, with its words. An evaluation had none beside it."""
    out: dict[tuple[str, str], tuple[Card | None, str]] = {}
    for member in members:
        for one in store.findings(member.record.id) if member.record.kind == "audit" else ():
            if one.subject == member.record.ref:
                out[member.letter, one.source] = one.card, one.card_words
    return out


# --- the report -------------------------------------------------------------------------------------------------


def compose(
    members: Sequence[Member], pairs: Sequence[Pair], left_out: Sequence[LeftOut], cards: Mapping[tuple[str, str], tuple[Card | None, str]],
    *, level: float, date: str,
) -> Report:  # fmt: skip
    """The whole document. Equal inputs give equal reports."""
    suites = list(dict.fromkeys(pair.suite for pair in pairs))
    findings = {suite: _findings(suite, pairs, cards, level) for suite in suites}
    parts = [_section(suite, [pair for pair in pairs if pair.suite == suite], findings[suite], level) for suite in suites]
    return Report(
        kind="comparison", title=f"Comparison of {len(members)} runs", subject=", ".join(member.name for member in members), date=date,
        summary=tuple(_summary(pairs))[:12], left_out=tuple(left_out),
        sections=(_runs(members), *parts, _method(level)),
        identities=tuple(
            Identity(part=m.letter, name=m.origin.model or m.record.ref, sha256=m.origin.model_digest) for m in members
        ),
        coverage=tuple(_coverage(members, suites, findings)),
        limits=tuple(_limits(pairs)), rederive=(" ".join(["workbench report", *(member.record.id for member in members)]),),
        provenance=tuple(_origins(members)),
    )  # fmt: skip


def _origins(members: Sequence[Member]) -> Iterator[Origin]:
    for member in members:
        for suite, result in member.results.items():
            yield Origin(kind="result", name=f"{suite} of {member.letter}", value=member.record.id, sha256=result.digest())
    yield from made_by()


def made_by() -> Iterator[Origin]:
    """The code and packages of this process."""
    here = Provenance.here()
    yield Origin(kind="code", name="assay-workbench", value=here.code)
    for package, version in sorted(here.packages.items()):
        yield Origin(kind="package", name=package, value=version)


def _findings(
    suite: str, pairs: Sequence[Pair], cards: Mapping[tuple[str, str], tuple[Card | None, str]], level: float
) -> tuple[Finding, ...]:
    """The suite's own findings on each run, those paired with the first run among them."""
    own = [pair for pair in pairs if pair.suite == suite]
    base = own[0].first
    asked = SUITES.load(suite)
    out = list(asked.findings(base.results[suite], subject=base.name, level=level))
    for pair in own:
        reference = base.results[suite] if pair.paired and DIFFERENTLY not in pair.found.denominators.unscored else None
        out += asked.findings(pair.second.results[suite], subject=pair.second.name, reference=reference, level=level)
    status = SUITES[suite].status
    return tuple(_beside(one, cards.get((one.subject[:1], suite)), status) for one in out)


def _beside(one: Finding, card: tuple[Card | None, str] | None, status: str) -> Finding:
    found, words = card or (None, "no card was looked up: a comparison loads no model")
    return one.model_copy(update={"status": status, "card": found, "card_words": words})


def _summary(pairs: Sequence[Pair]) -> Iterator[str]:
    for pair in pairs:
        d = pair.found.denominators
        seen = [one for one in pair.found.differences if one.interval is not None]
        moved = [one.value for one in seen if one.interval is not None and one.interval.excludes(0.0)]
        how = f"{d.scored:,} pairs of {d.run:,} samples" if pair.paired else "unpaired, since no sample was asked alike in both"
        what = f"by more than chance gives differ {', '.join(moved)}" if moved else "no value is shown to differ"
        had = f"{len(seen)} have an interval" if seen else "none has an interval"
        between = f"{pair.suite}, {pair.second.letter} against {pair.first.letter}"
        yield f"{between} ({how}): {what} (of {len(pair.found.differences)} values {had})."


def _runs(members: Sequence[Member]) -> Section:
    rows = tuple((m.letter, m.record.id, m.record.kind, m.name[3:], m.origin.model_digest[:16], ", ".join(m.labels)) for m in members)
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
        yield from (f"{between}: {means(one)}" for one in pair.found.differences)
    else:
        yield (
            f"{between}: unpaired. {pair.apart}, so their means are compared as those of different items{left and f' ({left[2:]})'}: what "
            "differs may be the items as well as the models."
        )


def _table(pair: Pair, level: float) -> Table:
    rows = tuple(
        (
            one.value, one.first, one.second, one.difference, one.interval.low if one.interval else None,
            one.interval.high if one.interval else None, one.p, one.n, one.clusters, one.note,
        )
        for one in pair.found.differences
    )  # fmt: skip
    a, b = pair.first.letter, pair.second.letter
    bounds = f"low ({level:.0%})", f"high ({level:.0%})"
    columns = ("value", a, b, f"{b} − {a}", *bounds, "McNemar p", "pairs" if pair.paired else "items", "clusters", "note")
    how = "pair by pair" if pair.paired else "unpaired: means of different items"
    return Table(columns=columns, rows=rows, caption=f"{pair.suite}, {b} less {a}, {how}")


def _figure(pair: Pair, level: float) -> Iterator[Figure]:
    if not pair.found.differences:
        return
    title = f"{pair.suite}: {pair.second.letter} less {pair.first.letter}"
    bounded = [one for one in pair.found.differences if one.interval is not None]
    moved = [one.value for one in bounded if one.interval is not None and one.interval.excludes(0.0)]
    said = f"Differences of {len(pair.found.differences)} values with intervals at {level:.0%} about a line at 0. " + (
        f"The interval excludes 0 for {', '.join(moved)}." if moved else "No interval excludes 0."
    )
    yield Figure.from_chart(drawn(pair.found), _table(pair, level), title=title, alt=said,
                            caption="Each value has its own unit, so sizes of two rows do not compare.")  # fmt: skip


def _coverage(members: Sequence[Member], suites: Sequence[str], findings: Mapping[str, Sequence[Finding]]) -> Iterator[Coverage]:
    for suite in suites:
        for member in members:
            if suite in member.results:
                own = [one for one in findings[suite] if one.subject == member.name]
                yield suite_coverage(suite, member.letter, member.results[suite], own)


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
            f"less the first, with the paired bootstrap's interval at {level:.0%} over clusters (BCa); values that are true or false also "
            "have the exact McNemar test. Samples that only one run has, or that either left unscored, are counted with the reason.",
            "Where no pair is left, the means of both runs are compared by Welch's t interval over clusters, and it is said each time.",
            "Findings are the suite's own, drawn again from the stored results; the first run is the named null of every comparison.",
        ),
    )  # fmt: skip
