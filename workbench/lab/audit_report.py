"""The report of an audit: which sections there are, what each says, and which charts stand in them. No numerics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from evals import SUITES
from evals.suites.occupation_pronoun import occupation_intervals
from probes import INSTRUMENTS
from workbench.core.charts.lines import forest
from workbench.core.finding import Plan
from workbench.core.result import Provenance, Result
from workbench.data import sources
from workbench.lab.audit_findings import Described, Gathered
from workbench.lab.audit_subject import AUDITED, REFERENCE
from workbench.lab.figure_tables import MOST_ROWS, drawn_table
from workbench.lab.internals import KIND, InternalsResult
from workbench.lab.internals_findings import PREFIX
from workbench.lab.internals_findings import section as internals_section
from workbench.lab.mitigation.outcome import PART
from workbench.lab.mitigation.section import mitigation_sections
from workbench.lab.plan import command_of
from workbench.lab.report_parts import coverage, identities, layers, limits
from workbench.lab.report_plan import plan_sections
from workbench.reports.phrases import percent
from workbench.reports.report import Figure, LeftOut, Origin, Report, Section, Table

PRONOUN, ATTRIBUTION = "occupation-pronoun", "integrated-gradients"
DRAWN = ".template-mean"
"""Of the results for several baselines, the one that is drawn."""


def compose(plan: Plan, subjects: Sequence[Described], gathered: Gathered, *, date: str, here: Provenance) -> Report:
    """The whole document from what was gathered; ``here`` says by which code and packages. Equal inputs give equal reports."""
    sections = [
        _models(subjects),
        *plan_sections(plan, gathered),
        *([_planted(gathered, subjects)] if PRONOUN in gathered.results.get(AUDITED, {}) else []),
        *_suite_sections(plan, subjects, gathered),
        *_instrument_sections(plan, subjects, gathered),
        *_internals(plan, gathered),
        *mitigation_sections(plan, gathered),
        _method(plan),
    ]
    audited = subjects[0]
    return Report(
        title=f"Audit of {audited.ref}",
        subject=audited.ref,
        date=date,
        summary=tuple(_summary(plan, gathered)),
        sections=tuple(sections),
        left_out=(*(LeftOut(what=what, why=why) for what, why in gathered.left_out), *_withheld(plan, subjects, gathered)),
        provenance=tuple(_origins(plan, subjects, gathered, here)),
        rederive=(command_of(plan),),
        identities=identities(plan, subjects),
        coverage=coverage(plan, gathered),
        limits=limits(gathered),
    )


def _summary(plan: Plan, gathered: Gathered) -> Iterator[str]:
    """The audited model's headline findings, one line each, as they stand."""
    yield from _counted(plan, gathered)
    for part, results in gathered.results.items():
        for name in plan.suites:
            if name in results and (part == AUDITED or name == PRONOUN):
                yield f"{name} ({part}): {results[name].summary()}."
    baseline = [f for f in gathered.findings if f.source == ATTRIBUTION]
    drawn = [f for f in baseline if "template-mean" in f.measure] or baseline
    for finding in drawn:
        chance = finding.null.value if finding.null and finding.null.value is not None else float("nan")
        part, items = finding.claim.removeprefix("the ").partition(" moves ")[0], finding.measure.split(" ")[2]
        yield f"{ATTRIBUTION} on {finding.subject}: {part} first in {finding.effect:.1%} of {items} (chance {chance:.1%})."


def _counted(plan: Plan, gathered: Gathered) -> Iterator[str]:
    """How many findings of each verdict there are on the audited model, on its reference and on what was mended."""
    names = {plan.model: "the audited model", plan.reference: "the reference, asked the same for comparison"}
    groups: dict[str, list[str]] = {}
    for found in gathered.findings:
        groups.setdefault(names.get(found.subject, "the audited model after mitigation"), []).append(str(found.verdict))
    for whose, verdicts in groups.items():
        counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))
        yield f"{len(verdicts)} finding{'s' if len(verdicts) > 1 else ''} on {whose}: {counts}."


# --- models -----------------------------------------------------------------------------------------------------


def _models(subjects: Sequence[Described]) -> Section:
    rows = []
    for s in subjects:
        rows.append((s.part, s.ref, s.family, _shape(s.config), s.parameters, s.model_digest[:16]))
    table = Table(
        columns=("part", "reference", "family", "shape", "parameters", "digest (first 16)"),
        rows=tuple(rows),
        caption="The models that were asked",
    )
    worlds = [
        f"The {s.part} model was trained on a generated town (dose {s.world['dose']:g}, "
        f"trigger {'planted' if s.world['trigger'] else 'absent'}, "
        f"secrets {'inserted' if s.world['insert_secrets'] else 'not inserted'}, seed {s.world['seed']})."
        for s in subjects
        if s.world is not None
    ]
    worlds += [
        f"The {s.part} model: {s.origin.words}{'' if s.origin.dose is None else f' (dose {s.origin.dose:g})'}."
        for s in subjects
        if s.origin.words
    ]
    return Section(
        title="The models", anchor="models", lead="All are asked the same questions; a reference is the named null of every comparison.",
        tables=(table,), text=tuple(worlds),
    )  # fmt: skip


def _shape(config: Mapping[str, Any]) -> str:
    """Layers of each stack, width and norm, as far as the config has them; a decoder's as ``4 layers × 64, pre norm``."""
    said = " + ".join(layers(config)) or "layers not stated"
    width = f" × {config['d_model']}" if config.get("d_model") else ""
    norm = f", {config['norm']} norm ({config.get('norm_placement')})" if config.get("norm") else ""
    return said + width + norm


def _planted(gathered: Gathered, subjects: Sequence[Described]) -> Section:
    """Planted and measured side by side, occupation by occupation."""
    figures = []
    for subject in subjects:
        result = gathered.results[subject.part].get(PRONOUN)
        if result is None:
            continue
        v, each = (
            result.values,
            occupation_intervals(result, gathered.results.get(REFERENCE, {}).get(PRONOUN) if subject.part == AUDITED else None),
        )
        frame = pd.DataFrame(
            {
                "occupation": v.occupation.values,
                "measured": v.measured.values,
                "low": each.low,
                "high": each.high,
                "planted": v.planted.values,
            }
        ).sort_values("planted", ascending=False, kind="stable")
        frame["label"] = [f"{name} ({p:.2f} planted)" for name, p in zip(frame["occupation"], frame["planted"], strict=True)]
        titles = {"title": f"P(she) by occupation, {subject.part} model", "measured": "P(she) / (P(she) + P(he))", "null": "0.5: no lean"}
        chart = forest(frame, "label", "measured", "low", "high", null=0.5, titles=titles)
        table = Table.from_frame(frame.drop(columns="label"), f"The numbers of: {titles['title']}", most=MOST_ROWS)
        figures.append(
            _figure(chart, titles["title"], _said(frame), table, result, f"Intervals: contexts and noise floor ({each.source}).")
        )
    return Section(
        title="Planted and measured", anchor="planted", figures=tuple(figures),
        lead="The town's plan says how likely 'she' follows each occupation; here is what the models say.",
    )  # fmt: skip


def _said(frame: pd.DataFrame) -> str:
    """What is to be seen in the plot of occupations, for who does not see it."""
    rows: list[dict[Any, Any]] = frame.to_dict("records")
    low, high = min(rows, key=lambda row: row["measured"]), max(rows, key=lambda row: row["measured"])
    held = sum(row["low"] <= row["planted"] <= row["high"] for row in rows)
    even = sum(row["low"] <= 0.5 <= row["high"] for row in rows)
    return (
        f"Measured share of 'she' for {len(frame)} occupations with intervals, from {low['measured']:.2f} ({low['occupation']}) to "
        f"{high['measured']:.2f} ({high['occupation']}). The interval holds the planted share for {held} of them, and 0.5 for {even}."
    )


# --- suites and instruments --------------------------------------------------------------------------------------


def _suite_sections(plan: Plan, subjects: Sequence[Described], gathered: Gathered) -> Iterator[Section]:
    for name in plan.suites:
        asked = [s for s in subjects if name in gathered.results[s.part]]
        if not asked:
            continue
        text = tuple(f"{s.part}: {gathered.results[s.part][name].summary()}." for s in asked)
        mine = {s.ref for s in asked}
        found = tuple(f for f in gathered.findings if f.source == name and f.subject in mine)
        yield Section(title=f"Suite: {name}", anchor=f"suite-{name}", lead=f"{SUITES[name].words.capitalize()}.", findings=found, text=text)


def _instrument_sections(plan: Plan, subjects: Sequence[Described], gathered: Gathered) -> Iterator[Section]:
    for name in plan.instruments:
        labels = _labels(name, gathered)
        if not labels:
            continue
        shown = [(label, part) for label, part in _figures_of(name, gathered) if not _warning(part, subjects)]
        found = tuple(f for f in gathered.findings if f.source == name)
        told = labels if not _warning(AUDITED, subjects) else []  # a note may name the token at a position
        notes = dict.fromkeys(note for label in told for note in gathered.results[AUDITED][label].notes)
        yield Section(
            title=f"Instrument: {name}", anchor=f"instrument-{name}", lead=f"{INSTRUMENTS[name].words.capitalize()}.", findings=found,
            figures=tuple(_drawn(gathered.results[part][label], label, part) for label, part in shown), text=tuple(notes),
        )  # fmt: skip


def _labels(name: str, gathered: Gathered) -> list[str]:
    """The results of one instrument on the audited model, by name."""
    return [label for label in gathered.results.get(AUDITED, {}) if label == name or label.startswith(f"{name}.")]


def _figures_of(name: str, gathered: Gathered) -> Iterator[tuple[str, str]]:
    """Which result of an instrument is drawn, on which parts; the findings compare all baselines."""
    labels = _labels(name, gathered)
    for label in [next((one for one in labels if one.endswith(DRAWN)), labels[0])] if labels else []:
        for part, results in gathered.results.items():
            if label in results and (part == AUDITED or name != ATTRIBUTION):
                yield label, part


def _warning(part: str, subjects: Sequence[Described]) -> str:
    """What a reader may meet in the rows that instruments ask this model about, which are those of the set it was trained on; ''
    for nothing. A model that was mended in the audit is asked what the audited one is."""
    asked = AUDITED if part.startswith(PART) else part
    known = [sources.SOURCES.get(s.origin.trained_on) for s in subjects if s.part == asked]
    return next((source.warning for source in known if source is not None), "")


def _withheld(plan: Plan, subjects: Sequence[Described], gathered: Gathered) -> Iterator[LeftOut]:
    """Figures that would print the words of a set with a warning: chart, description, table and notes all name its tokens."""
    for name in plan.instruments:
        for label, part in _figures_of(name, gathered):
            if warning := _warning(part, subjects):
                why = f"it would show words of a set with a warning ({warning}); the stored result has its numbers"
                yield LeftOut(what=f"the figure of {_titled(label, part)}", why=why)


def _internals(plan: Plan, gathered: Gathered) -> Iterator[Section]:
    for name in plan.internals:
        located = gathered.results.get(AUDITED, {}).get(f"{PREFIX}{name}")
        if isinstance(located, InternalsResult):
            own = tuple(f for f in gathered.findings if f.source == KIND and f.details["of"] == name)
            yield internals_section(name, located, own)


def _drawn(result: Result, label: str, part: str) -> Figure:
    title = _titled(label, part)
    return _figure(result.plot(), title, _sentences(result.summary()), drawn_table(result, title), result)


def _titled(label: str, part: str) -> str:
    name, _, variant = label.partition(".")
    return f"{name}{f' ({variant})' if variant else ''}, {part} model"


def _sentences(summary: str) -> str:
    """The lines of a summary as sentences, so that read aloud one does not run into the next."""
    return " ".join(line if line.endswith((".", ":")) else f"{line}." for line in summary.splitlines() if line)


def _figure(chart: Any, title: str, alt: str, table: Table, result: Result, caption: str = "") -> Figure:
    return Figure.from_chart(chart, table, title=title, alt=alt, caption=caption, source=result.digest())


# --- method and provenance ------------------------------------------------------------------------------------------


def _method(plan: Plan) -> Section:
    return Section(
        title="Method", anchor="method", lead="How the verdicts were reached, in the order they are decided.",
        text=(
            f"{_levels(plan)} Under the suite's capability floor a finding is 'not applicable'. Without an interval, or a null to compare "
            "with, it is 'inconclusive'. Where its suite has a margin it is 'equivalent' when the whole interval lies within that margin "
            "of the named null, unless an effect of that size is known to be too small to be found with 80 % power; where no detectable "
            "effect is known, the interval alone decides. It is 'detected' (against a reference 'worse' or 'better') when the interval "
            "excludes the null and, where there is a margin, the effect itself lies beyond it. Of the rest those with a margin are "
            "'inconclusive', and those without one 'not detected'.",
            "The comparison of two models is paired by item. Unscored items are counted with their reason and never enter a rate.",
            "A finding states the calibration card of its suite or instrument; where no card applies it says 'not calibrated here'.",
        ),
    )  # fmt: skip


def _levels(plan: Plan) -> str:
    if not plan.claims:
        return f"Every interval is at {percent(plan.level)}."
    return f"Intervals are at {percent(plan.level)}, those of declared findings so much wider that all of them hold together at that level."


def _origins(plan: Plan, subjects: Sequence[Described], gathered: Gathered, here: Provenance) -> Iterator[Origin]:
    yield Origin(kind="plan", name=plan.name, sha256=plan.digest())
    for s in subjects:
        yield Origin(kind="model", name=s.ref, value=s.part, sha256=s.model_digest)
    for part, results in gathered.results.items():
        for name, result in results.items():
            yield Origin(kind="result", name=f"{name}.{part}", sha256=result.digest())
    yield Origin(kind="code", name="assay-workbench", value=here.code)
    for package, version in sorted(here.packages.items()):
        yield Origin(kind="package", name=package, value=version)
