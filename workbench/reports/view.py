"""A report as a page shows it: every number in words, in one language, in the order of the document, as plain values.

HTML, PDF and Markdown are laid out from this one value, so a figure cannot differ between them. All texts are made visible and cut
here (``phrases.clipped``); what each rendering still does is its own escaping.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from workbench.core.finding import Finding, Verdict
from workbench.reports import phrases
from workbench.reports.crosswalk import crosswalk
from workbench.reports.report import Cell, Report, Section, Table
from workbench.reports.standard import coverage_tables, identity_tables, limit_lines, several_identities
from workbench.reports.words import ENGLISH, words_of

_STRIP_MARGIN = 0.08  # of the strip's range on either side, so that end marks are not cut

View = dict[str, Any]


def view(report: Report, language: str = ENGLISH) -> View:
    """Everything that stands on the page, as JSON values. Equal reports and languages give equal views."""
    say = words_of(language)
    shown = lambda text: phrases.clipped(text, language)  # noqa: E731
    findings = report.all_findings()
    place = {finding.digest(): number for number, finding in enumerate(findings, start=1)}
    cards = [finding_view(number, finding, language) for number, finding in enumerate(findings, start=1)]
    made: View = {
        "language": say.tag,
        "kind": say(f"kind.{report.kind}"),
        "title": shown(report.title),
        "subject": shown(report.subject),
        "date": shown(report.date),
        "digest": report.digest(),
        "summary": [shown(line) for line in report.summary],
        "tally": [{"count": n, **_verdict(v, language)} for v, n in report.tally().items() if n],
        "findings": cards,
        "groups": _groups(cards),
        "identity": [table_view(table, language) for table in _identity(report, language)],
        "coverage": [table_view(table, language) for table in coverage_tables(report.coverage, language)],
        "sections": [_section(section, place, cards, language) for section in report.sections],
        "left_out": [{"what": shown(item.what), "why": shown(item.why)} for item in report.left_out],
        "limits": [shown(line) for line in limit_lines(report, language)],
        "verdicts": [{**_verdict(v, language), "meaning": phrases.meaning(v, language)} for v in Verdict],
        "provenance": [
            {"kind": origin.kind, "name": shown(origin.name), "value": shown(origin.value), "sha256": shown(origin.sha256)}
            for origin in report.provenance
        ],
        "rederive": [shown(command) for command in report.rederive],
    }
    return made | {"crosswalk": crosswalk({name for name, part in made.items() if part}, {card["source"] for card in cards}, language)}


def _identity(report: Report, language: str) -> list[Table]:
    return (identity_tables if report.kind == "audit" else several_identities)(report.identities, language)


def finding_view(number: int, finding: Finding, language: str = ENGLISH) -> View:
    """One finding in words; ``facts`` are (label, value, role) in the order they are read."""
    say, places = words_of(language), phrases.places_of(finding)
    shown = lambda text: phrases.clipped(text, language)  # noqa: E731
    interval, counts, null = finding.interval, finding.denominators, finding.null
    bounds = phrases.bounds_words(interval, places, language)
    planted = phrases.planted_words(finding, language)
    facts = [
        (say("finding.subject"), finding.subject, "subject"),
        (say("finding.measured_by"), say("finding.measured_as", source=finding.source, measure=finding.measure), "measure"),
        (say("finding.null"), phrases.null_words(null, places, language), "null"),
        *([(say("finding.planted_truth"), planted, "planted")] if planted else []),
        (say("finding.items"), phrases.denominator_words(counts, language), "items"),
        (say("finding.detectable_head"), phrases.detectable_words(finding, language), "detectable"),
        (say("finding.calibration"), phrases.card_words(finding, language), "card" if finding.card else "no-card"),
        *([(say("finding.rederive"), finding.rederive, "command")] if finding.rederive else []),
    ]
    return {
        "number": number,
        "claim": _sentence(shown(finding.claim)),
        "subject": shown(finding.subject),
        "measure": shown(finding.measure),
        "source": shown(finding.source),
        "status": "" if finding.status == "standard" else say(f"status.{finding.status}"),
        "badge": say("status.exploratory") if finding.exploratory else "",
        **_verdict(finding.verdict, language),
        "because": say("finding.because", because=shown(phrases.because_words(finding, language))) if finding.because else "",
        "effect": phrases.number(finding.effect, places, language),
        "known": finding.effect is not None,
        "unit": shown(finding.unit),
        "bounds": bounds if interval else "",
        "interval": say("finding.level_interval", level=phrases.percent(interval.level), bounds=bounds)
        if interval
        else say("finding.no_interval"),
        "method": shown(interval.method) if interval else "",
        "null_value": phrases.given(null.value, places, language) if null and null.value is not None else "–",
        "scored": say("finding.scored_of", scored=phrases.number(counts.scored), drawn=phrases.number(counts.run + counts.excluded))
        if counts
        else say("finding.not_counted"),
        "facts": [(label, shown(text), role) for label, text, role in facts],
        "strip": strip(finding),
        "details": [(shown(str(name)), shown(_detail(value, language))) for name, value in sorted(_beyond(finding).items())],
    }


def _beyond(finding: Finding) -> dict[str, Any]:
    """The details that say more than the finding: its own effect, interval and count stand above them."""
    said: dict[str, Any] = {"value": finding.effect, "n": finding.denominators.scored if finding.denominators else None}
    if finding.interval is not None:
        said |= {"low": finding.interval.low, "high": finding.interval.high}
    return {name: value for name, value in finding.details.items() if name not in said or value != said[name]}


def table_view(table: Table, language: str = ENGLISH) -> View:
    """A table in words: ``columns`` with name and whether right-aligned; a cell is text, or None where nothing was computed."""
    shown = lambda text: phrases.clipped(text, language)  # noqa: E731
    columns = []
    for index, name in enumerate(table.columns):
        cells = [row[index] for row in table.rows if row[index] is not None]
        numeric = bool(table.rows) and all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in cells)
        columns.append({"name": shown(name), "numeric": numeric, "places": phrases.column_places(cells) if numeric else None})
    rows = [[_cell(cell, column["places"], language) for cell, column in zip(row, columns, strict=True)] for row in table.rows]
    return {"caption": shown(table.caption), "note": shown(table.note), "columns": columns, "rows": rows}


def strip(finding: Finding) -> dict[str, str | None] | None:
    """Places, in per cent of the width, of the marks of a small drawing: interval, effect, null and planted truth."""
    null = finding.null.value if finding.null else None
    marks = {"effect": finding.effect, "null": null, "planted": finding.planted}
    if finding.interval is not None:
        marks |= {"low": finding.interval.low, "high": finding.interval.high}
    known = {name: value for name, value in marks.items() if value is not None}
    if finding.effect is None or finding.interval is None or max(known.values()) <= min(known.values()):
        return None
    span = max(known.values()) - min(known.values())
    start = min(known.values()) - _STRIP_MARGIN * span
    place = lambda value: f"{100 * (value - start) / (span * (1 + 2 * _STRIP_MARGIN)):.2f}%"  # noqa: E731
    return {name: None if value is None else place(value) for name, value in marks.items()}


def _verdict(verdict: Verdict, language: str) -> View:
    return {"verdict": phrases.verdict_name(verdict, language), "slug": verdict.value.replace(" ", "-")}


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def _groups(cards: Sequence[View]) -> list[View]:
    """Neighbouring findings of one suite or instrument together, in the order they come."""
    return [
        {"source": _sentence(source), "numbers": [card["number"] for card in group]}
        for source, group in groupby(cards, key=lambda card: card["source"])
    ]


def _section(section: Section, place: dict[str, int], cards: Sequence[View], language: str) -> View:
    shown = lambda text: phrases.clipped(text, language)  # noqa: E731
    figures = [
        {
            "title": shown(figure.title),
            "caption": shown(figure.caption),
            "alt": shown(figure.alt),
            "source": shown(figure.source),
            "table": table_view(figure.table, language),
        }
        for figure in section.figures
    ]
    numbers = [place[finding.digest()] for finding in section.findings]
    many = len(numbers) > MOST_LISTED
    return {
        "title": shown(section.title),
        "anchor": section.anchor,
        "lead": shown(section.lead),
        "groups": [] if many else _groups([cards[number - 1] for number in numbers]),
        "many": words_of(language)("page.section_many", numbers=_ranges(numbers)) if many else "",
        "first": min(numbers, default=0),
        "figures": figures,
        "tables": [table_view(table, language) for table in section.tables],
        "text": [shown(paragraph) for paragraph in section.text],
    }


MOST_LISTED = 12
"""Findings that a section lists again; of more it says where in the table above they stand."""


def _ranges(numbers: Sequence[int]) -> str:
    """``3–38, 41``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def _cell(cell: Cell, places: int | None, language: str) -> str | None:
    return None if cell is None else phrases.clipped(phrases.number(cell, places, language), language)


MOST_PARTS = 12
"""Parts of a structured detail that a page writes out; of more it says how many there are, and the JSON form holds them."""


def _detail(value: Any, language: str) -> str:
    """A detail in words: numbers as everywhere, lists and short mappings part by part."""
    if isinstance(value, Mapping):
        ordered = sorted(value.items(), key=lambda item: str(item[0]))  # as it is when read back
        parts = [f"{name} {_detail(part, language)}" for name, part in ordered]
    elif isinstance(value, list | tuple):
        parts = [_detail(part, language) for part in value]
    else:
        plain = value if isinstance(value, str | bool | int | float) or value is None else str(value)
        return phrases.number(plain, None, language)
    nested = any(isinstance(part, Mapping | list | tuple) for part in (value.values() if isinstance(value, Mapping) else value))
    if len(parts) > MOST_PARTS or (nested and len(parts) > 3):
        return words_of(language)("finding.many_parts", count=phrases.number(len(parts)))
    return "; ".join(parts) if nested else ", ".join(parts)
