"""The page keeps the rules for screen readers, keyboards, print and air-gapped machines; each rule is tried on a broken page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.reports.accessibility import Page, contrast, problems, themes
from tests.reports.sample import sample
from workbench.core.finding import Verdict
from workbench.reports.render import html

PAGE = html.render(sample())
CSS = (Path(html.__file__).parent / "report.css").read_text()


def test_the_page_keeps_every_rule() -> None:
    assert problems(PAGE) == []


def test_an_empty_report_keeps_every_rule() -> None:
    bare = sample().model_copy(update={"findings": (), "sections": (), "left_out": (), "provenance": (), "rederive": (), "summary": ()})
    assert problems(html.render(bare)) == []


BROKEN = {
    "language": ('<html lang="en">', "<html>", "language"),
    "second h1": ("<h2 id=", "<h1>Again</h1><h2 id=", "one <h1>"),
    "no main": ("<main>", "<div>", "<main>"),
    "skipped level": ('<h2 id="summary">Summary</h2>', '<h4 id="summary">Summary</h4>', "level 4 follows one of level 2"),
    "empty heading": ('<h2 id="summary">Summary</h2>', '<h2 id="summary"></h2>', "heading is empty"),
    "no caption": ('<caption id="model-table-0"><span>The two audited models</span></caption>', '<p id="model-table-0"></p>', "no caption"),
    "no scope": ('<th scope="col" class="n">layers', '<th class="n">layers', "without a scope"),
    "no keyboard": ('class="scroll" role="region" tabindex="0"', 'class="scroll" role="region"', "scrolled by keyboard"),
    "no alternative": ("<summary>Figure as a table: Attention of layer 1, head 2</summary>", "", "no table beside it"),
    "no description": ('<desc id="f3-0-desc">Heat map', '<desc id="f3-0-other">Heat map', "no picture with a description"),
    "no title": ('role="img" aria-labelledby="f3-0-title f3-0-desc"', 'role="img" aria-labelledby="f3-0-desc"', "no picture with a desc"),
    "read aloud": ('<svg class="strip" aria-hidden="true"', '<svg class="strip"', "shape by shape"),
    "word without shape": ('<use href="#mark-detected"/>', "", "both word and shape"),
    "twice": ('id="findings"', 'id="summary"', "used 2 times"),
    "dangling": ('href="#findings"', 'href="#nowhere"', "pointed at and not there"),
    "nameless nav": ('<nav aria-labelledby="contents">', "<nav>", "has no name"),
    "no zoom": ("initial-scale=1", "initial-scale=1, user-scalable=no", "forbids zooming"),
    "no policy": ("default-src 'none'", "default-src *", "policy"),
    "script": ("<main>", "<main><script>1</script>", "holds <script>"),
    "handler": ("<main>", '<main onclick="x">', "would act"),
    "picture": ("<main>", '<main><a href="https://example.org/x">y</a>', "would load"),
    "font": ("* { box", "@import 'x'; * { box", "style sheet would load"),
    "nul": ("<main>", "<main>\x00", "NUL"),
    "unclosed": ("</article>", "", "not closed"),
    "order": ('tabindex="0"', 'tabindex="3"', "keyboard order"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_page_is_caught(name: str) -> None:
    good, bad, words = BROKEN[name]
    assert good in PAGE, "the planted fault must have a place"
    assert any(words in problem for problem in problems(PAGE.replace(good, bad, 1)))


TEXT = (
    "ink",
    "soft",
    "link",
    "detected",
    "not-detected",
    "equivalent",
    "worse",
    "better",
    "inconclusive",
    "not-applicable",
    "not-calibrated",
)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_contrast(theme: str) -> None:
    colours = themes(CSS)[theme]
    for ground in ("paper", "panel"):
        low = {name: round(contrast(colours[name], colours[ground]), 2) for name in TEXT if contrast(colours[name], colours[ground]) < 4.5}
        assert low == {}, f"text on {ground} in {theme}"
    marks = {name: contrast(colours[name], colours["paper"]) for name in ("line", "planted", "soft")}
    assert all(ratio >= 3 for ratio in marks.values()), marks


def test_contrast_knows_its_ends() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # the grey that just fails AA


def test_every_verdict_has_a_shape_of_its_own_and_a_colour() -> None:
    page = Page(PAGE)
    shapes = {attrs["id"]: PAGE.split(f'<symbol id="{attrs["id"]}"')[1].split("</symbol>")[0] for _, attrs in page.named("symbol")}
    assert set(shapes) == {"mark-" + verdict.value.replace(" ", "-") for verdict in Verdict}
    assert len(set(shapes.values())) == len(Verdict)
    assert all(re.search(rf"\.v-{verdict.value.replace(' ', '-')} ", CSS) for verdict in Verdict)


def test_colours_are_only_in_the_theme() -> None:
    """A colour outside the ``:root`` blocks would escape the contrast test; the white ground of drawings is the one exception."""
    rest = re.sub(r":root\s*\{[^}]*\}", "", CSS)
    assert re.findall(r"#[0-9a-f]{3,8}\b|rgb\(|hsl\(", rest) == ["#ffffff"]
