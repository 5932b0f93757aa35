"""The page in a real browser: fits a phone, fetches nothing, prints whole, also with hostile words."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.reports.browser import chromium
from tests.reports.sample import sample
from tests.reports.test_html import PAYLOADS, hostile
from workbench.reports.render import html

pytestmark = pytest.mark.full


def test_the_page_fits_every_width_and_fetches_nothing(tmp_path: Path) -> None:
    pages = {
        "sample": html.render(sample()),
        "script": html.render(hostile(PAYLOADS[0])),
        "long": html.render(hostile("x" * 400)),
        "rtl": html.render(hostile(PAYLOADS[11])),
    }
    with chromium() as browser:
        for name, text in pages.items():
            place = tmp_path / f"{name}.html"
            place.write_text(text, encoding="utf-8")
            for width, scheme in ((1280, "light"), (768, "dark"), (390, "light"), (320, "dark")):
                context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
                page = context.new_page()
                asked: list[str] = []
                said: list[str] = []
                page.on("request", lambda request, asked=asked: asked.append(request.url))
                page.on("console", lambda message, said=said: said.append(message.text))
                page.on("dialog", lambda dialog, said=said: said.append(dialog.message))
                page.goto(place.as_uri())
                assert asked == [place.as_uri()], name
                assert said == [], name
                assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} at {width}"
                context.close()


def axe_findings(page: Any) -> list[str]:
    """What axe-core finds on an open page, serious or not, under the rules of WCAG 2.2 A and AA and its best practices."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python comes with the extra 'dev'")
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
    found = axe.Axe().run(page, options=rules).response
    assert len(found["passes"]) > 15, "axe has looked at the page"
    return [f"{v['impact']}: {v['id']} at {v['nodes'][0]['target']}" for v in found["violations"]]


def test_axe_finds_nothing(tmp_path: Path) -> None:
    pages = {"en": html.render(sample()), "zh": html.render(sample(), language="zh"), "rtl": html.render(hostile(PAYLOADS[12]))}
    with chromium() as browser:
        for name, text in pages.items():
            place = tmp_path / f"{name}.html"
            # The page forbids every script, also the checker's: for the checker alone the policy is taken out.
            place.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text), encoding="utf-8")
            for width, scheme in ((1280, "light"), (360, "dark"))[: 2 if name == "en" else 1]:
                context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
                page = context.new_page()
                page.goto(place.as_uri())
                page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
                found = axe_findings(page)
                if name == "rtl":  # all its tables are called the same by the hostile text, which axe finds moderate
                    found = [words for words in found if words.startswith(("serious", "critical"))]
                assert found == [], f"{name} at {width}"
                context.close()


def test_axe_catches_a_broken_page(tmp_path: Path) -> None:
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html.render(sample()))
    bad = text.replace('<html lang="en">', "<html>").replace("--soft: #565e68", "--soft: #b0b0b0")
    place = tmp_path / "bad.html"
    place.write_text(bad, encoding="utf-8")
    with chromium() as browser:
        page = browser.new_page(color_scheme="light")
        page.goto(place.as_uri())
        found = " ".join(axe_findings(page))
    assert "html-has-lang" in found
    assert "color-contrast" in found


def test_the_keyboard_reaches_skip_link_findings_and_tables(tmp_path: Path) -> None:
    place = tmp_path / "page.html"
    place.write_text(html.render(sample()), encoding="utf-8")
    with chromium() as browser:
        page = browser.new_page()
        page.goto(place.as_uri())
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the findings"
        page.keyboard.press("Enter")
        assert page.url.endswith("#findings")
        reached = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.tagName + '.' + document.activeElement.className"))
        assert {"A.", "DIV.scroll", "SUMMARY.", "PRE."} <= reached


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext (poppler-utils) is not installed")
def test_paper_holds_every_finding_with_its_details(tmp_path: Path) -> None:
    place, paper = tmp_path / "page.html", tmp_path / "page.pdf"
    place.write_text(html.render(sample()), encoding="utf-8")
    with chromium() as browser:
        page = browser.new_page()
        page.goto(place.as_uri())
        page.pdf(path=str(paper), prefer_css_page_size=True)
    words = " ".join(subprocess.run(["pdftotext", "-layout", str(paper), "-"], capture_output=True, text=True, check=True).stdout.split())
    for finding in sample().all_findings():
        assert finding.verdict.value in words
        assert finding.claim.split()[-1] in words
    assert "the logarithm of 16,384 candidates" in words, "details are open on paper"
    assert re.search(r"\b(\d+) ?/ ?\1$", words), "pages are numbered, and the last is the last"
