"""A finding that was not declared beforehand says so in every form, and no other one does."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from tests.reports.accessibility import problems
from tests.reports.sample import sample
from workbench.reports.frames import findings_frame
from workbench.reports.render import bom, card, html, pdf
from workbench.reports.report import Report
from workbench.reports.view import view


def marked() -> Report:
    """The sample with its first finding alone exploratory."""
    first, *rest = sample().findings
    return sample().model_copy(update={"findings": (first.model_copy(update={"exploratory": True}), *rest)})


def test_the_page_has_the_badge_at_the_finding_and_in_the_table() -> None:
    page = html.render(marked())
    assert page.count('<span class="badge" lang="en">exploratory</span>') == 2
    assert 'class="badge"' not in html.render(sample())
    assert problems(page) == []
    assert '<span class="badge" lang="zh-Hans">探索性</span>' in html.render(marked(), language="zh")


def test_card_bill_and_dashboard_say_it_beside_the_verdict() -> None:
    text = card.render(marked())
    assert text.count("detected (exploratory)") == 2
    assert "(exploratory)" not in card.render(sample())
    said: Any = json.loads(bom.render(marked()))["metadata"]["component"]["modelCard"]["properties"]
    assert sum(one["value"].startswith("detected (exploratory): ") for one in said) == 1
    frame = findings_frame(marked().all_findings())
    assert [name for name in frame["verdict"] if "(exploratory)" in name] == ["◆ detected (exploratory)"]
    assert [one["badge"] for one in view(marked())["findings"] if one["badge"]] == ["exploratory"]


@pytest.mark.full
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext (poppler-utils) is not installed")
def test_paper_has_the_badge_too() -> None:
    from tests.reports.test_pdf import text_of

    assert text_of(pdf.render(marked())).split().count("exploratory") == 2
    assert "exploratory" not in text_of(pdf.render(sample()))
