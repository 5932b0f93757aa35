"""A training over its checkpoints as one report: suites asked of every checkpoint that it kept, each compared with the first, pair by pair.

The evaluations are runs of their own, children of the training. What a suite finds is drawn for every checkpoint, so that its own measures
can be followed; the changes of single values are those of ``workbench compare``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from evals import SUITES
from workbench.core.charts.lines import forest
from workbench.core.errors import BadValue, UsageError
from workbench.core.finding import Finding
from workbench.core.protocol import Progress, silent
from workbench.core.result import Provenance, Result
from workbench.core.spec import Spec
from workbench.lab.audit import Audit, write_pages
from workbench.lab.circumstances import CIRCUMSTANCES, circumstances
from workbench.lab.compare import Comparison, Kept, kept, means, side_by_side
from workbench.lab.comparison_report import made_by
from workbench.lab.record import recorded
from workbench.lab.refs import checkpoint_of
from workbench.lab.report_parts import suite_coverage
from workbench.lab.run import evaluate, own_world
from workbench.lab.settings import by_name
from workbench.reports.evidence.plans import TrendPlan
from workbench.reports.parts import Identity
from workbench.reports.phrases import percent
from workbench.reports.report import Figure, LeftOut, Origin, Report, Section, Table
from workbench.store.records import RunRecord
from workbench.store.runs import Store
from workbench.training.checkpoint import MANIFEST

KIND = "trend"
MOST_DRAWN = 8
"""Measures of a suite that are drawn; all of them are in its table."""


class Checkpoint(Spec):
    """One checkpoint in words. ``part`` is its step as a name, ``run`` the run that asked it ``suites``, and ``of`` what was trained."""

    part: str
    ref: str
    model_digest: str
    run: str
    step: int
    of: str
    suites: tuple[str, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Moment:
    """One checkpoint, and what was found of it: a result for each suite."""

    checkpoint: Checkpoint
    results: Mapping[str, Result]

    @property
    def step(self) -> int:
        return self.checkpoint.step

    @property
    def run(self) -> str:
        return self.checkpoint.run

    @property
    def digest(self) -> str:
        return next(iter(self.results.values())).provenance.model_digest

    @property
    def name(self) -> str:
        return f"step {self.step:,}"


Keep = Callable[[Moment, str], Kept]
"""What the run that asked a checkpoint keeps of a suite."""


def trend_of(
    training: str, suites: Sequence[str], *, settings: Mapping[str, Any] | None = None, level: float = 0.95, store: Store | None = None,
    date: str = "", progress: Progress = silent,
) -> Audit:  # fmt: skip
    """Ask ``suites`` of every checkpoint that a training kept and write the report into a run of its own.

    ``settings`` are fields of the suites, as ``evaluate`` takes them. Raises UsageError for a run that is no training, BadValue where it
    kept fewer than two checkpoints, and what ``evaluate`` raises.
    """
    store = store if store is not None else Store.open(create=False)
    record = store.runs.get(training)
    if record.kind != "train":
        raise UsageError(f"Run {record.id} is of kind '{record.kind}', and checkpoints are a training's.")
    names = list(dict.fromkeys(suites))
    for name in names:
        SUITES[name]  # a misspelt name costs no time
    folders = checkpoints(store, record.id)
    given = by_name(names, settings or {}, "suite")
    moments = [
        _asked(store, record, step, folder, given, lambda done, total, words, at=number: progress(at, len(folders), words))
        for number, (step, folder) in enumerate(folders.items())
    ]
    spec = {"training": record.id, "suites": given, "level": level, "asked": [moment.run for moment in moments]}
    here, today = Provenance.here(), date or time.strftime("%Y-%m-%d", time.gmtime())
    report = compose(TrendPlan.parse(spec), moments, lambda moment, suite: kept(store, moment.run, suite), date=today, here=here)
    with recorded(store, KIND, spec, f"run:{record.id}", parent=record.id, provenance={}) as run:
        store.put_findings(run, report.all_findings())
        return write_pages(store, run, report, {CIRCUMSTANCES: circumstances([moment.checkpoint for moment in moments], here)})


def checkpoints(store: Store, training: str) -> dict[int, Path]:
    """The whole checkpoints of a training by step, first to last. Raises BadValue for fewer than two."""
    found = sorted(place for place in checkpoint_of(store, training).glob("step-*") if (place / MANIFEST).is_file())
    if len(found) < 2:
        do = "`--set train.keep=N` with `train.save_every` keeps more of them in the next training."
        raise BadValue(f"the number of checkpoints that training {training} kept", len(found), "at least 2", do=do)
    return {int(place.name.removeprefix("step-")): place for place in found}


def _asked(
    store: Store, record: RunRecord, step: int, folder: Path, settings: Mapping[str, Mapping[str, Any]], progress: Progress
) -> Moment:
    """The suites asked of one checkpoint, each of the world that the training was on, where it was on one that the suite asks about."""
    fields: dict[str, Any] = {
        name: {**own_world(SUITES.load(name), own, f"run:{record.id}", store), **own}  # a checkpoint by its folder does not tell it
        for name, own in settings.items()
    }
    named: Progress = lambda done, total, words="": progress(done, total, f"{words} at step {step:,}")  # noqa: E731
    done = evaluate(list(fields), str(folder), store=store, progress=named, parent=record.id, **fields)
    digest = next(iter(done.results.values())).provenance.model_digest
    words = Checkpoint(
        part=f"step-{step}", ref=f"run:{record.id}, step {step:,}", model_digest=digest, run=done.run, step=step, of=record.ref,
        suites=tuple(settings),
    )  # fmt: skip
    return Moment(words, done.results)


# --- the report -------------------------------------------------------------------------------------------------

Changes = list[tuple[Moment, Moment, Comparison]] | UsageError
"""Two checkpoints and how their samples differ, for each step that is looked at; or why there is nothing to compare."""


def compose(plan: TrendPlan, moments: Sequence[Moment], keep: Keep, *, date: str, here: Provenance) -> Report:
    """The whole document: the checkpoints, then each suite over them. ``here`` names the code and packages that it is made by."""
    ref, last, level, suites = f"run:{plan.training}", moments[-1], plan.level, moments[0].checkpoint.suites
    changes = {suite: _changes(moments, suite, keep, level) for suite in suites}
    left_out = [LeftOut(what=suite, why=str(found)) for suite, found in changes.items() if isinstance(found, UsageError)]
    findings = {suite: _last(suite, moments, level) for suite in suites}
    parts = [_section(suite, moments, changes[suite], findings[suite], level) for suite in suites]
    return Report(
        kind="trend", title=f"Training {ref} over {len(moments)} checkpoints", subject=ref, date=date,
        summary=tuple(f"{suite} at {m.name}: {m.results[suite].summary()}." for suite in suites for m in (moments[0], last))[:12],
        sections=(_checkpoints(plan, moments), *parts, _method(level)),
        left_out=tuple(left_out),
        identities=tuple(Identity(part=m.name, name=f"{ref}, {m.name}", sha256=m.digest) for m in (moments[0], last)),
        coverage=tuple(
            suite_coverage(suite, m.name, m.results[suite], SUITES.load(suite).findings(m.results[suite], subject=m.name, level=level))
            for suite in suites for m in moments
        ),
        limits=("Checkpoints of one training are one draw: another seed may take another way to the same end.",),
        rederive=(" ".join(["workbench trend", plan.training, *suites]),),
        provenance=(
            *(Origin(kind="result", name=f"{s} at {m.name}", value=m.run, sha256=m.results[s].digest()) for s in suites for m in moments),
            *made_by(here),
        ),
    )  # fmt: skip


def _changes(moments: Sequence[Moment], suite: str, keep: Keep, level: float) -> Changes:
    """Each checkpoint against the one before it, then the last against the first; why not, where nothing was scored in two of them."""
    steps = [*pairwise(moments), *([(moments[0], moments[-1])] if len(moments) > 2 else [])]
    try:
        return [(a, b, side_by_side(keep(a, suite), keep(b, suite), level=level)) for a, b in steps]
    except UsageError as error:
        return error


def _last(suite: str, moments: Sequence[Moment], level: float) -> tuple[Finding, ...]:
    """What the suite finds at the last checkpoint, compared with the first."""
    first, last = moments[0], moments[-1]
    found = SUITES.load(suite).findings(last.results[suite], subject=last.name, reference=first.results[suite], level=level)
    words, status = "no card was looked up for a checkpoint", SUITES[suite].status
    return tuple(one.model_copy(update={"status": status, "card_words": words}) for one in found)


def _checkpoints(plan: TrendPlan, moments: Sequence[Moment]) -> Section:
    rows = tuple((m.step, m.digest[:16], m.run) for m in moments)
    table = Table(columns=("step", "digest (first 16)", "asked in run"), rows=rows, caption="The checkpoints that were kept and asked")
    of = f"Training {plan.training} of {moments[0].checkpoint.of}"
    lead = f"{of}: every checkpoint is asked the same questions, and each is compared with the one before."
    return Section(title="The checkpoints", anchor="checkpoints", lead=lead, tables=(table,))


def _section(suite: str, moments: Sequence[Moment], changes: Changes, found: tuple[Finding, ...], level: float) -> Section:
    asked = SUITES.load(suite)
    by_measure: dict[tuple[str, str], list[tuple[Moment, Finding]]] = {}
    for moment in moments:
        for one in asked.findings(moment.results[suite], subject=moment.name, level=level):
            by_measure.setdefault((one.claim, one.measure), []).append((moment, one))
    figures = [figure for series in by_measure.values() for figure in _figure(suite, series)]
    tables = [_measures(suite, by_measure, level)]
    text = [f"{moment.name}: {moment.results[suite].summary()}." for moment in moments]
    if len(figures) > MOST_DRAWN:
        text.append(f"The first {MOST_DRAWN} of {len(figures)} measures are drawn; the table has all.")
    if not isinstance(changes, UsageError):
        tables.append(_table(suite, changes, level))
        first, last, whole = changes[-1]
        text += [f"From {first.name} to {last.name}: {_in_steps(means(one), first, last)}" for one in whole.differences]
    return Section(title=f"Suite: {suite}", anchor=f"suite-{suite}", lead=f"{SUITES[suite].words.capitalize()}.", findings=found,
                   figures=tuple(figures[:MOST_DRAWN]), tables=tuple(tables), text=tuple(text))  # fmt: skip


def _in_steps(words: str, first: Moment, last: Moment) -> str:
    """The words of a comparison with the checkpoints in the place of the runs."""
    words = words.replace("in the first run", f"at {first.name}").replace("in the second", f"at {last.name}")
    return words.replace("the second is", "it is").replace("in both runs", "at both")


def _measures(suite: str, by_measure: Mapping[tuple[str, str], Sequence[tuple[Moment, Finding]]], level: float) -> Table:
    rows = tuple(
        (
            measure, moment.step, one.effect, one.interval.low if one.interval else None, one.interval.high if one.interval else None,
            one.null.value if one.null else None, str(one.verdict),
        )
        for (_, measure), series in by_measure.items() for moment, one in series
    )  # fmt: skip
    columns = ("measure", "step", "effect", f"low ({percent(level)})", f"high ({percent(level)})", "null", "verdict")
    return Table(columns=columns, rows=rows, caption=f"What {suite} finds at each checkpoint")


def _table(suite: str, changes: Sequence[tuple[Moment, Moment, Comparison]], level: float) -> Table:
    rows = tuple(
        (
            one.value, before.step, after.step, one.first, one.second, one.difference, one.interval.low if one.interval else None,
            one.interval.high if one.interval else None, one.p, one.n, one.note,
        )
        for before, after, found in changes for one in found.differences
    )  # fmt: skip
    bounds = f"low ({percent(level)})", f"high ({percent(level)})"
    columns = ("value", "from step", "to step", "before", "after", "change", *bounds, "McNemar p", "pairs", "note")
    return Table(columns=columns, rows=rows, caption=f"How the samples of {suite} change from checkpoint to checkpoint, pair by pair")


def _figure(suite: str, series: Sequence[tuple[Moment, Finding]]) -> Iterator[Figure]:
    """One measure over the checkpoints, with its intervals; none where no checkpoint has it as a number."""
    known = [(moment, one) for moment, one in series if one.effect is not None]
    if not known:
        return
    nan = float("nan")
    rows: list[tuple[str, float, float, float]] = []
    for moment, one in known:
        inside = one.interval is not None and one.effect is not None and one.interval.low <= one.effect <= one.interval.high
        low, high = (one.interval.low, one.interval.high) if one.interval is not None and inside else (nan, nan)
        rows.append((moment.name, float(one.effect or 0.0), low, high))
    frame = pd.DataFrame(rows, columns=pd.Index(["checkpoint", "effect", "low", "high"]))
    nulls = {one.null.value for _, one in known if one.null is not None and one.null.value is not None}
    null = nulls.pop() if len(nulls) == 1 else None
    measure, unit = known[0][1].measure, known[0][1].unit
    title = f"{suite}: {measure}"
    named = known[0][1].null
    titles = {"title": title, "effect": unit or "effect", "null": named.name if null is not None and named is not None else "null"}
    ends = f"{known[0][0].name} gives {rows[0][1]:.3g}, {known[-1][0].name} {rows[-1][1]:.3g}"
    said = f"{measure} at {len(known)} checkpoints with intervals: {ends}" + ("." if null is None else f", and the null is {null:.3g}.")
    chart = forest(frame, "checkpoint", "effect", "low", "high", null=null, titles=titles)
    yield Figure.from_chart(chart, Table.from_frame(frame, f"The numbers of: {title}"), title=title, alt=said)


def _method(level: float) -> Section:
    return Section(
        title="Method", anchor="method", lead="How the checkpoints were compared.",
        text=(
            "Every checkpoint was asked the same samples. Changes are paired by sample, with the paired bootstrap's interval at "
            f"{percent(level)} over clusters (BCa); values that are true or false also have the exact McNemar test. Each holds for itself.",
            "Findings in full are those at the last checkpoint, with the first as the named null of every comparison.",
        ),
    )  # fmt: skip
