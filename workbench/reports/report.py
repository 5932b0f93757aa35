"""What a report says, as frozen values: findings first, then sections, then what was left out and where it all comes from.

A report holds no layout and takes nothing from its surroundings: the date is given, figures arrive drawn, and equal
reports have equal bytes in every form. Renderers live in ``render/``.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal, Self

import pydantic
from pydantic import Field, field_validator, model_validator

from workbench.core.charts.svg import to_svg
from workbench.core.errors import BadValue, CorruptFile
from workbench.core.finding import Finding, Verdict
from workbench.core.spec import Spec, canonical_json, digest_of, later
from workbench.reports import drawing
from workbench.reports.parts import Coverage, Identity
from workbench.reports.words import words_of

FORMAT = "assay-report/1"
_RESERVED_TEXT = "summary findings reading left-out provenance rederive contents identity coverage limits crosswalk"
RESERVED = tuple(_RESERVED_TEXT.split())
_ANCHOR = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_STATUS = {"headline": 0, "standard": 1, "experimental": 2}

Cell = str | bool | int | float | None


def _plain(value: Any) -> Any:
    """A numpy scalar as the Python number it holds; anything else unchanged."""
    return value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value


class Table(Spec):
    """Rows under named columns. ``None`` is a value that was not computed; ``note`` says what is not shown."""

    columns: tuple[str, ...] = Field(min_length=1)
    rows: tuple[tuple[Cell, ...], ...] = ()
    caption: str = Field(min_length=1)
    note: str = ""

    @field_validator("rows", mode="before")
    @classmethod
    def _python_numbers(cls, rows: Any) -> Any:
        return tuple(tuple(_plain(cell) for cell in row) for row in rows)

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"{len(self.columns)} cells in each row, but row {number} has {len(row)}")
        return self

    @classmethod
    def from_frame(cls, frame: Any, caption: str, *, most: int = 200) -> Table:
        """The first ``most`` rows of a pandas frame; the note counts the rest. Missing and non-finite numbers become None."""
        rows = [[_finite(_plain(cell)) for cell in row] for row in frame.head(most).itertuples(index=False, name=None)]
        cut = words_of()("number.rows_cut", most=f"{most:,}", all=f"{len(frame):,}") if len(frame) > most else ""
        return cls(columns=tuple(str(name) for name in frame.columns), rows=tuple(map(tuple, rows)), caption=caption, note=cut)


def _finite(cell: Any) -> Cell:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, float) and math.isinf(cell):
        return "infinite" if cell > 0 else "minus infinite"
    return cell if isinstance(cell, str | bool | int | float) else str(cell)


class Figure(Spec):
    """A drawn chart with its words: ``alt`` says what is to be seen, ``table`` is the readable alternative.

    ``svg`` is one SVG document (``core.charts.to_svg``), kept in the form of ``drawing.clean``, which refuses what could act
    or fetch with BadValue; ``source`` is the digest of the result it was drawn from.
    """

    title: str = Field(min_length=1)
    svg: str
    alt: str = Field(min_length=1)
    table: Table
    caption: str = ""
    source: str = ""

    @field_validator("svg")
    @classmethod
    def _harmless(cls, svg: str) -> str:
        return drawing.clean(svg)

    @classmethod
    def from_chart(cls, chart: Any, table: Table, *, title: str, alt: str = "", caption: str = "", source: str = "") -> Figure:
        """The figure of an Altair chart; ``alt`` defaults to the chart's own description.

        The page prints ``title`` above the figure, so the chart's own is not drawn a second time. Raises MissingExtra
        without vl-convert, and BadValue for a chart that has neither ``alt`` nor description.
        """
        bare = chart.to_dict()
        said = alt or str(bare.get("description", ""))
        if not said:
            raise BadValue(f"the description of the chart '{title}'", said, "what is to be seen in it, given as alt or by the chart")
        return cls(title=title, svg=to_svg(_Bare(bare), title=title), alt=said, table=table, caption=caption, source=source)


@dataclass(frozen=True)
class _Bare:
    """A chart's specification without its title, in the shape that ``to_svg`` takes."""

    spec: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return {name: part for name, part in self.spec.items() if name != "title"}


class Section(Spec):
    """One part of the report: a lead of one or two sentences, then its findings, figures, tables and paragraphs.

    ``anchor`` is the section's address in the page: lower-case words with hyphens.
    """

    title: str = Field(min_length=1)
    anchor: str
    lead: str
    findings: tuple[Finding, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    text: tuple[str, ...] = ()

    @field_validator("anchor")
    @classmethod
    def _address(cls, anchor: str) -> str:
        if not _ANCHOR.fullmatch(anchor) or anchor in RESERVED or anchor.startswith(("finding-", "figure-", "mark-")):
            raise ValueError(f"lower-case words joined by hyphens and none of {', '.join(RESERVED)}, not {anchor!r}")
        return anchor


class Origin(Spec):
    """One thing the numbers rest on: its name, what it says of itself, and its sha256 where it has one."""

    kind: Literal["model", "data", "plan", "spec", "result", "artifact", "code", "package", "machine", "setting"]
    name: str
    value: str = ""
    sha256: str = ""


class LeftOut(Spec):
    """Something a reader could expect to find here, and why it is missing."""

    what: str
    why: str


class Report(Spec):
    """The whole document. ``date`` is given by the caller, never taken from a clock; ``summary`` is at most a dozen lines.

    ``findings`` are those of the whole; a section may carry its own. All of them are stated in full once, first
    (``all_findings``), and sections point to them. ``identities``, ``coverage`` and ``limits`` have sections of their own.
    ``kind``: of one model's audit, of runs side by side, or of the checkpoints of a training.
    """

    title: str = Field(min_length=1)
    subject: str
    date: str
    summary: tuple[str, ...] = Field(default=(), max_length=12)
    findings: tuple[Finding, ...] = ()
    sections: tuple[Section, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    provenance: tuple[Origin, ...] = ()
    rederive: tuple[str, ...] = ()
    identities: tuple[Identity, ...] = later(())
    coverage: tuple[Coverage, ...] = later(())
    limits: tuple[str, ...] = later(())
    kind: Literal["audit", "comparison", "trend"] = later("audit")

    @field_validator("left_out", mode="before")
    @classmethod
    def _pairs(cls, items: Any) -> Any:
        return tuple({"what": i[0], "why": i[1]} if isinstance(i, tuple | list) and len(i) == 2 else i for i in items)

    @model_validator(mode="after")
    def _anchors_differ(self) -> Self:
        anchors = [section.anchor for section in self.sections]
        if twice := sorted({a for a in anchors if anchors.count(a) > 1}):
            raise ValueError(f"a different anchor for every section, but {', '.join(twice)} is used twice")
        return self

    def all_findings(self) -> tuple[Finding, ...]:
        """Every finding once, headline entries first, otherwise in the order given."""
        seen: dict[str, Finding] = {}
        for finding in (*self.findings, *(f for section in self.sections for f in section.findings)):
            seen.setdefault(finding.digest(), finding)
        return tuple(sorted(seen.values(), key=lambda f: _STATUS[f.status]))

    def tally(self) -> dict[Verdict, int]:
        """How many findings ended in each verdict; every verdict is a key, also with 0."""
        found = [finding.verdict for finding in self.all_findings()]
        return {verdict: found.count(verdict) for verdict in Verdict}

    def to_json(self) -> str:
        """The report with its format and digest as canonical JSON: equal reports, equal bytes."""
        content = self.model_dump(mode="json")
        return canonical_json({"format": FORMAT, "digest": digest_of(content), "report": content})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of ``to_json``. Raises CorruptFile for another format, a changed digest or missing parts."""
        try:
            whole = json.loads(text)
        except json.JSONDecodeError as error:
            raise CorruptFile("report", f"in format {FORMAT}", f"it is not JSON ({error})") from None
        found = whole.get("format") if isinstance(whole, dict) else None
        if found != FORMAT:
            raise CorruptFile("report", f"in format {FORMAT}", f"its format is {found!r}")
        content = whole.get("report")
        if digest_of(content) != whole.get("digest"):
            raise CorruptFile("report", f"of digest {str(whole.get('digest'))[:12]}…", f"its content has digest {digest_of(content)[:12]}…",
                              do="It was changed after it was written; render it again from the run.")  # fmt: skip
        try:
            return cls.model_validate(content)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise CorruptFile("report", f"in format {FORMAT}", f"at '{place}' it breaks a rule: {first['msg']}") from None


def section_of(title: str, anchor: str, lead: str, *parts: Finding | Figure | Table | str) -> Section:
    """A section from its parts in any mixture, each put in its place and kept in order."""
    return Section(
        title=title,
        anchor=anchor,
        lead=lead,
        findings=tuple(part for part in parts if isinstance(part, Finding)),
        figures=tuple(part for part in parts if isinstance(part, Figure)),
        tables=tuple(part for part in parts if isinstance(part, Table)),
        text=tuple(part for part in parts if isinstance(part, str)),
    )
