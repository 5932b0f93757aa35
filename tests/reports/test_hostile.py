"""What models, prompts and file names may hold comes out inert in every form: lines of a megabyte, formulas, templates, hidden marks."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.reports.accessibility import Page, problems
from tests.reports.sample import findings, sample
from tests.reports.test_html import PAYLOADS, hostile, words_of
from workbench.core.finding import Finding
from workbench.reports import phrases
from workbench.reports.frames import findings_frame
from workbench.reports.render import bom, card, html, pdf
from workbench.reports.render import json as as_json
from workbench.reports.report import LeftOut, Origin, Report, Section, Table
from workbench.reports.view import view

MEGABYTE = "<b>=1+1 " + "x" * 1_000_000 + "\u202eend"
HIDDEN = [chr(code) for code in (0x00, 0x07, 0x1B, 0x7F, 0x85, 0x200B, 0x200E, 0x200F, 0x202E, 0x2066, 0x2028, 0x2029, 0xFEFF, 0xE0041)]


@cache
def long_lines() -> Report:
    """A report with a line of a megabyte wherever a model's or a user's words can stand."""
    first = findings()[0].model_copy(update={"claim": MEGABYTE, "because": MEGABYTE, "details": {"reply": MEGABYTE}, "rederive": MEGABYTE})
    table = Table(columns=("prompt", MEGABYTE), rows=((MEGABYTE, 1.5), (None, 2.5)), caption="Prompts")
    section = Section(title="Prompts", anchor="prompts", lead=MEGABYTE, tables=(table,), text=(MEGABYTE,))
    out = LeftOut(what="x", why=MEGABYTE)
    return Report(
        title=MEGABYTE, subject=MEGABYTE, date="2025-01-31", findings=(first,), sections=(section,), left_out=(out,),
        provenance=(Origin(kind="artifact", name=MEGABYTE),), rederive=(MEGABYTE,), limits=(MEGABYTE,),
    )  # fmt: skip


def test_a_line_of_a_megabyte_is_cut_with_a_word_on_the_rest() -> None:
    page = html.render(long_lines())
    assert len(page.encode()) < 300_000
    assert problems(page) == []
    assert "more characters; the JSON of the report holds all" in words_of(page)
    assert phrases.clipped(MEGABYTE).startswith("<b>=1+1 xxx")
    assert "(992,012 more characters" in phrases.clipped(MEGABYTE)
    assert len(card.render(long_lines())) < 300_000
    assert len(bom.render(long_lines())) < 200_000
    assert Report.from_json(as_json.render(long_lines())).title == MEGABYTE


@pytest.mark.full
def test_a_line_of_a_megabyte_on_paper() -> None:
    assert len(pdf.render(long_lines())) < 2_000_000


def test_nothing_hidden_is_left_in_any_text_form() -> None:
    text = "".join(f"a{character}b" for character in HIDDEN)
    report = hostile(text)
    for form in (html.render(report), card.render(report), bom.render(report), json.dumps(view(report), ensure_ascii=False)):
        assert [f"U+{ord(character):04X}" for character in HIDDEN if character in form] == []
    assert "⟨U+202E⟩" in html.render(report)


FORMULAS = ["=1+1", "+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://example.org")']


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_formula_stays_a_text(formula: str) -> None:
    """No form of a report is one that a spreadsheet computes; a cell that would be a formula there is a plain text here."""
    table = Table(columns=("reply",), rows=((formula,),), caption="Replies")
    report = Report(title="t", subject="s", date="d", sections=(Section(title="R", anchor="r", lead="l", tables=(table,)),))
    shown = phrases.visible(formula).strip()
    page = Page(html.render(report))
    assert shown in [page.text_of(index) for index, attrs in page.named("th") if attrs.get("scope") == "row"]
    frame = findings_frame([Finding(claim=formula, subject="s", source="x", measure="m", effect=None, verdict=findings()[0].verdict)])
    assert frame["claim"].tolist() == [formula], "the table on the dashboard shows the text as it is"


TEMPLATES = ["{{ 7*7 }}", "{% for x in range(9) %}", "{title}", "{0}", "%s %(x)s", "$title", "#panic()", "\\u{1F600}"]


@pytest.mark.parametrize("text", TEMPLATES)
def test_a_template_in_a_text_is_not_filled_in(text: str) -> None:
    words = words_of(html.render(hostile(text)))
    assert words.count(text) >= 100
    for finding in view(hostile(text))["findings"]:
        assert text in finding["claim"]
        assert any(text in said for _, said, role in finding["facts"] if role == "measure")


BYTES = """
import sys
from tests.reports.sample import sample
from tests.reports.test_html import PAYLOADS, hostile
from workbench.reports.render import bom, card, html
from workbench.reports.render import json as as_json
for report in (sample(), hostile(PAYLOADS[11])):
    for form in (html.render(report), html.render(report, language="zh"), card.render(report), bom.render(report), as_json.render(report)):
        sys.stdout.buffer.write(form.encode())
"""


@pytest.mark.full
def test_two_processes_write_the_same_bytes() -> None:
    root = Path(__file__).parents[2]
    run: Any = [subprocess.run([sys.executable, "-c", BYTES], capture_output=True, check=True, cwd=root).stdout for _ in range(2)]
    assert run[0] == run[1]
    here = html.render(sample()).encode()
    assert run[0].startswith(here), "and this process the same"
    assert hostile(PAYLOADS[11]).digest().encode() in run[0]
