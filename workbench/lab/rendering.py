"""A stored report written in its other forms: as PDF, as a model card, as a bill of materials, and its page in another language."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from workbench.core.errors import StoreError, UnknownName, UsageError
from workbench.reports.render import bom, card, html, pdf
from workbench.reports.report import Report
from workbench.reports.words import ENGLISH, languages

FORMS = {"html": html.render, "pdf": pdf.render, "card": card.render, "bom": bom.render}
"""How each form is made: text or bytes from a report and a language."""


def write_forms(report: Report, wanted: Mapping[str, str | Path], *, language: str = ENGLISH) -> dict[str, Path]:
    """Write ``report`` in each of the ``wanted`` forms (``html``, ``pdf``, ``card``, ``bom``) to its file; where each lies.

    All are made before any is written, and a file is either whole or as it was. Raises UnknownName for another form or language,
    StoreError where a file cannot be written, and what the form raises.
    """
    for name in wanted:
        if name not in FORMS:
            raise UnknownName("form of a report", name, FORMS)
    if report.kind != "audit" and (own := sorted({"card", "bom"} & set(wanted))):
        raise UsageError(
            f"The form '{own[0]}' is about one model, and a {report.kind} report is about several. Write it of an audit: "
            f"`workbench report RUN --{own[0]} FILE`."
        )
    if language not in languages():
        raise UnknownName("language", language, languages())
    made = {name: FORMS[name](report, language=language) for name in wanted}
    return {name: _written(Path(wanted[name]), content) for name, content in made.items()}


def _written(place: Path, content: str | bytes) -> Path:
    partial = place.with_name(place.name + ".partial")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content if isinstance(content, bytes) else content.encode())
        partial.replace(place)
    except OSError as error:
        raise StoreError(f"The report could not be written to '{place}'", error.strerror or str(error)) from error
    return place
