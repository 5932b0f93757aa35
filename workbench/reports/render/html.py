"""The report as one HTML file: no script, nothing fetched, under two megabytes, to be read on screen, on paper and aloud.

Every string from a finding, a table or a name is data: it is made visible (``phrases.visible``) and escaped by the template,
never trusted. The layout is ``report.html.j2`` and ``report.css`` beside this file.
"""

from __future__ import annotations

import json
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from workbench.core.errors import BadValue, MissingExtra
from workbench.core.finding import Finding, Verdict
from workbench.core.spec import canonical_json
from workbench.reports import drawing, phrases
from workbench.reports.report import Report, Table

MOST_BYTES = 2_000_000
_HERE = Path(__file__).parent
_STRIP_MARGIN = 0.08  # of the strip's range on either side, so that end marks are not cut


def render(report: Report, *, most_bytes: int = MOST_BYTES) -> str:
    """The whole page. Equal reports give equal bytes.

    Raises BadValue when the page is larger than ``most_bytes``, naming its largest parts.
    """
    figures = {
        (s, f): drawing.inline(figure.svg, f"f{s}-{f}-")
        for s, section in enumerate(report.sections)
        for f, figure in enumerate(section.figures)
    }
    findings = report.all_findings()
    page = _environment().get_template("report.html.j2").render(
        report=report, css=_css(), digest=report.digest(), drawings=figures,
        findings=[_card(number, finding) for number, finding in enumerate(findings, start=1)],
        place={finding.digest(): number for number, finding in enumerate(findings, start=1)},
        tally=[(verdict, count) for verdict, count in report.tally().items() if count],
        verdicts=[(verdict, phrases.MEANING[verdict]) for verdict in Verdict],
    )  # fmt: skip
    size = len(page.encode())
    if size > most_bytes:
        raise BadValue(
            "the report's size", f"{size / 1e6:.2f} MB", f"at most {most_bytes / 1e6:.2f} MB",
            do=f"Its largest parts are {_largest(report, figures)}. Draw fewer marks or shorten tables; the stored results keep all.",
        )  # fmt: skip
    return page


@cache
def _environment() -> Any:
    try:
        import jinja2
    except ModuleNotFoundError:
        raise MissingExtra("jinja2", "report", "The HTML report") from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined, finalize=_visible,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {
        "number": phrases.number, "slug": lambda verdict: str(verdict).replace(" ", "-"), "columns": _columns, "safe_svg": _trusted,
        "sentence": lambda words: words[:1].upper() + words[1:], "by_source": _by_source,
    }  # fmt: skip
    return environment


def _visible(value: Any) -> Any:
    """What the template writes: strings with hidden characters shown; markup made by the template itself is left alone."""
    return value if hasattr(value, "__html__") or not isinstance(value, str) else phrases.visible(value)


def _trusted(text: str) -> Any:
    """Our own style sheet, and drawings that ``drawing.clean`` wrote: the only text that is not escaped."""
    import markupsafe

    return markupsafe.Markup(text)


@cache
def _css() -> str:
    return (_HERE / "report.css").read_text(encoding="utf-8")


def _columns(table: Table) -> list[dict[str, Any]]:
    """For each column whether it is numeric (right-aligned) and how many decimals it shows."""
    out = []
    for index in range(len(table.columns)):
        cells = [row[index] for row in table.rows if row[index] is not None]
        numeric = bool(cells) and all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in cells)
        out.append({"numeric": numeric, "places": phrases.column_places(cells) if numeric else None})
    return out


def _by_source(cards: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Neighbouring cards of one suite or instrument together, in the order they come."""
    return [(source, list(group)) for source, group in groupby(cards, key=lambda card: card["finding"].source)]


def _card(number: int, finding: Finding) -> dict[str, Any]:
    """Everything the template says about one finding, in words."""
    places = phrases.places_of(finding)
    return {
        "number": number,
        "finding": finding,
        "effect": phrases.number(finding.effect, places),
        "bounds": phrases.bounds_words(finding.interval, places),
        "level": phrases.percent(finding.interval.level) if finding.interval else "",
        "null": phrases.null_words(finding.null, places),
        "null_value": phrases.given(finding.null.value, places) if finding.null and finding.null.value is not None else "–",
        "counted": phrases.denominator_words(finding.denominators),
        "planted": phrases.planted_words(finding),
        "detectable": phrases.detectable_words(finding),
        "card": phrases.card_words(finding),
        "strip": _strip(finding),
        "details": [(str(name), _detail(value)) for name, value in sorted(finding.details.items())],
    }


def _detail(value: Any) -> str:
    if isinstance(value, str | bool | int | float) or value is None:
        return phrases.number(value)
    return canonical_json(json.loads(json.dumps(value, default=str)))


def _strip(finding: Finding) -> dict[str, str | None] | None:
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


def _largest(report: Report, figures: dict[tuple[int, int], str], most: int = 3) -> str:
    parts = [(len(report.sections[s].figures[f].title), s, f) for s, f in figures]
    sizes = [(len(figures[s, f].encode()), f"the drawing '{report.sections[s].figures[f].title}'") for _, s, f in parts]
    for section in report.sections:
        tables = [*section.tables, *(figure.table for figure in section.figures)]
        sizes += [(len(canonical_json(table.model_dump(mode="json")).encode()), f"the table '{table.caption}'") for table in tables]
    sizes.append((sum(len(f.canonical().encode()) for f in report.all_findings()), f"{len(report.all_findings())} findings"))
    top = sorted(sizes, key=lambda pair: (-pair[0], pair[1]))[:most]
    return ", ".join(f"{words} ({size / 1e6:.2f} MB)" for size, words in top)
