"""Every figure of a report is the same in every form: page, paper, card, bill of materials, JSON and the dashboard's words."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from functools import cache

import pytest
from markdown_it import MarkdownIt

from tests.reports.sample import TARGET, sample
from tests.reports.test_html import words_of
from workbench.core.finding import Finding
from workbench.reports import phrases
from workbench.reports.frames import findings_frame
from workbench.reports.render import bom, card, html, pdf
from workbench.reports.render import json as as_json
from workbench.reports.report import Report
from workbench.reports.view import View, finding_view, view

NUMBER = re.compile(r"\d")


def figures_of(finding: View) -> Iterator[str]:
    """Every text of a finding that holds a number."""
    said = [finding["effect"], finding["interval"], finding["bounds"], finding["null_value"], finding["scored"]]
    said += [text for _, text, _ in finding["facts"]] + [text for pair in finding["details"] for text in pair]
    yield from (text for text in said if NUMBER.search(text))


def in_tables(tables: list[View]) -> Iterator[str]:
    yield from (cell for table in tables for row in table["rows"] for cell in row if cell is not None and NUMBER.search(cell))


def figures(seen: View, *, whole: bool) -> list[str]:
    """All of them; without the sections' own tables, which a card has not, unless ``whole``."""
    out = [text for finding in seen["findings"] for text in figures_of(finding)]
    out += in_tables([*seen["identity"], *seen["coverage"]])
    out += [str(part["count"]) for part in seen["tally"]]
    if whole:
        out += in_tables([t for s in seen["sections"] for t in [*s["tables"], *(f["table"] for f in s["figures"])]])
    return out


def squeezed(text: str) -> str:
    return "".join(text.split())


@cache
def page() -> str:
    return squeezed(words_of(html.render(sample())))


@cache
def body() -> str:
    """The words of the card as a reader of Markdown shows them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(card.render(sample()).split("---\n", 2)[2])
    parts = [child.content for token in tokens for child in token.children or ()] + [t.content for t in tokens if t.type == "fence"]
    return squeezed(" ".join(parts))


def test_there_are_figures_to_compare() -> None:
    assert len(figures(view(sample()), whole=True)) > 120


def test_the_page_has_every_figure() -> None:
    assert [text for text in figures(view(sample()), whole=True) if squeezed(text) not in page()] == []


def test_the_card_has_every_figure_of_findings_and_denominators() -> None:
    tally = {str(part["count"]) for part in view(sample())["tally"]}
    wanted = [text for text in figures(view(sample()), whole=False) if text not in tally]
    assert [text for text in wanted if squeezed(text) not in body()] == []


@pytest.mark.full
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext (poppler-utils) is not installed")
def test_paper_has_every_figure() -> None:
    from tests.reports.test_pdf import text_of

    said = squeezed(text_of(pdf.render(sample())))
    assert [text for text in figures(view(sample()), whole=True) if squeezed(text) not in said] == []


def test_the_data_give_the_same_figures_again() -> None:
    again = Report.from_json(as_json.render(sample()))
    assert view(again) == view(sample())
    raw = json.loads(as_json.render(sample()))["report"]["findings"]
    assert [one["effect"] for one in raw] == [f.effect for f in sample().findings]


def test_the_bill_of_materials_has_the_unrounded_numbers_that_the_page_rounds() -> None:
    metrics = json.loads(bom.render(sample()))["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    valued = [f for f in sample().all_findings() if f.subject == TARGET and f.effect is not None]
    for metric, finding in zip(metrics, valued, strict=True):
        places = phrases.places_of(finding)
        assert phrases.number(float(metric["value"]), places) == finding_view(1, finding)["effect"]
        if finding.interval is not None:
            low, high = (float(metric["confidenceInterval"][name]) for name in ("lowerBound", "upperBound"))
            assert f"{phrases.number(low, places)} to {phrases.number(high, places)}" == finding_view(1, finding)["bounds"]


def test_the_dashboard_has_the_same_figures() -> None:
    found = sample().all_findings()
    for row, finding in zip(findings_frame(found).to_dict("records"), found, strict=True):
        seen = finding_view(1, finding)
        assert row["effect"] == seen["effect"]
        assert row["interval"] == (seen["bounds"] or phrases.bounds_words(None))
        assert (phrases.effect_words(finding) == f"{seen['effect']} {seen['unit']}".strip()) or not seen["known"]
        assert phrases.denominator_words(finding.denominators) in [text for _, text, _ in seen["facts"]]


def test_a_figure_that_differs_is_caught() -> None:
    first = sample().findings[0]
    other = first.model_copy(update={"effect": 0.964})
    changed = view(sample().model_copy(update={"findings": (other, *sample().findings[1:])}))
    assert [text for text in figures(changed, whole=True) if squeezed(text) not in page()] != []


def test_a_finding_read_from_another_program_is_the_same() -> None:
    for finding in sample().all_findings():
        again = Finding.model_validate(json.loads(json.dumps(finding.model_dump(mode="json"))))
        assert finding_view(1, again) == finding_view(1, finding)
