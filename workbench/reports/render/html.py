"""The report as one HTML file: no script, nothing fetched, under two megabytes, to be read on screen, on paper and aloud.

Every string from a finding, a table or a name is data: it is made visible (``phrases.visible``) and escaped by the template,
never trusted. The layout is ``report.html.j2`` and ``report.css`` beside this file.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from workbench.core.errors import BadValue, MissingExtra
from workbench.core.finding import Verdict
from workbench.core.spec import canonical_json
from workbench.reports import drawing, phrases
from workbench.reports.report import Report
from workbench.reports.view import view
from workbench.reports.words import ENGLISH, words_of

MOST_BYTES = 2_000_000
_HERE = Path(__file__).parent


def render(report: Report, *, language: str = ENGLISH, most_bytes: int = MOST_BYTES) -> str:
    """The whole page. Equal reports give equal bytes.

    Raises UnknownName for a language there is none of, and BadValue when the page is larger than ``most_bytes``, naming its largest parts.
    """
    shown = lambda text: phrases.clipped(text, language)  # noqa: E731
    figures = {
        (s, f): drawing.inline(figure.svg, f"f{s}-{f}-", title=shown(figure.title), desc=shown(figure.alt))
        for s, section in enumerate(report.sections)
        for f, figure in enumerate(section.figures)
    }
    page = _environment().get_template("report.html.j2").render(
        view=view(report, language), say=words_of(language), css=_css(), drawings=figures,
        own="" if language == ENGLISH else _trusted(f' lang="{ENGLISH}"'), slugs=[verdict.value.replace(" ", "-") for verdict in Verdict],
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
    environment.filters["safe_svg"] = _trusted
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


def _largest(report: Report, figures: dict[tuple[int, int], str], most: int = 3) -> str:
    parts = [(len(report.sections[s].figures[f].title), s, f) for s, f in figures]
    sizes = [(len(figures[s, f].encode()), f"the drawing '{report.sections[s].figures[f].title}'") for _, s, f in parts]
    for section in report.sections:
        tables = [*section.tables, *(figure.table for figure in section.figures)]
        sizes += [(len(canonical_json(table.model_dump(mode="json")).encode()), f"the table '{table.caption}'") for table in tables]
    sizes.append((sum(len(f.canonical().encode()) for f in report.all_findings()), f"{len(report.all_findings())} findings"))
    top = sorted(sizes, key=lambda pair: (-pair[0], pair[1]))[:most]
    return ", ".join(f"{words} ({size / 1e6:.2f} MB)" for size, words in top)
