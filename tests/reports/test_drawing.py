"""A drawing enters the page only as shapes and text: what could act, fetch or leave it is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reports.sample import gaps_chart, heat_map_chart
from workbench.core.charts.svg import to_svg
from workbench.core.errors import BadValue
from workbench.reports import drawing
from workbench.reports.phrases import visible

OPEN = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 9 9">'


def wrapped(inside: str) -> str:
    return f"{OPEN}{inside}</svg>"


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ("<script>1</script>", "the element <script>"),
        ("<style>*{fill:red}</style>", "the element <style>"),
        ("<foreignObject><p/></foreignObject>", "the element <foreignObject>"),
        ('<a xlink:href="https://example.org"><g/></a>', "the element <a>"),
        ('<set attributeName="onclick"/>', "the element <set>"),
        ('<g onload="x()"/>', "free of scripts"),
        ('<g fill="javascript:x()"/>', "free of scripts"),
        ('<use href="https://example.org/a.svg#b"/>', "without addresses"),
        ('<image xlink:href="http://example.org/a.png"/>', "without addresses"),
        ('<image href="data:image/svg+xml;base64,PHN2Zy8+"/>', "without addresses"),
        ('<g fill="url(https://example.org/#a)"/>', "without addresses"),
        ('<g clip-path="URL( &quot;//example.org&quot; )"/>', "without addresses"),
    ],
)
def test_what_could_act_is_refused(inside: str, words: str) -> None:
    with pytest.raises(BadValue, match=words.replace("<", r"\<")):
        drawing.clean(wrapped(inside))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no xml",
        "<svg/>",
        '<html xmlns="http://www.w3.org/1999/xhtml"/>',
        wrapped("<g>"),
        '<!DOCTYPE svg [<!ENTITY a "b">]>' + wrapped(""),
    ],
)
def test_what_is_no_drawing_is_refused(text: str) -> None:
    with pytest.raises(BadValue, match="a figure's drawing"):
        drawing.clean(text)


def test_ids_are_numbered_and_then_made_the_figures_own() -> None:
    inside = (
        '<defs><clipPath id="c{0}"><rect width="1.23456789" height="2"/></clipPath></defs>'
        '<g clip-path="url(#c{0})"/><use xlink:href="#c{0}"/>'
    )
    one, other = (drawing.clean(wrapped(inside.replace("{0}", str(count)))) for count in (3, 91))
    assert one == other == drawing.clean(one)
    placed = drawing.inline(one, "f1-", title="a < b", desc="What is to be seen")
    said = '<title id="f1-title">a &lt; b</title><desc id="f1-desc">What is to be seen</desc>'
    labelled = 'role="img" aria-labelledby="f1-title f1-desc"'
    for part in ('id="f1-d0"', 'clip-path="url(#f1-d0)"', 'href="#f1-d0"', 'width="1.235"', labelled, said):
        assert part in placed
    assert "http" not in placed


def test_labels_inside_a_drawing_are_dropped_since_the_figure_has_one() -> None:
    given = '<title>T</title><g role="graphics-symbol" aria-label="x" class="mark" tabindex="1"><text x="1">a &amp; b</text></g><!-- c -->'
    assert (
        drawing.clean(wrapped(given))
        == '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><g><text x="1">a &amp; b</text></g></svg>'
    )


def test_a_drawing_without_a_view_gets_one_from_its_size() -> None:
    assert 'viewBox="0 0 30 20"' in drawing.clean('<svg xmlns="http://www.w3.org/2000/svg" width="30px" height="20"/>')


@pytest.mark.parametrize("build", [heat_map_chart, gaps_chart])
def test_real_charts_pass_with_every_mark_and_word(build: Callable[[], Any]) -> None:
    given = to_svg(build())
    cleaned = drawing.clean(given)
    out, before = ET.fromstring(cleaned), ET.fromstring(given)
    plain = lambda root: sorted(e.tag.rpartition("}")[2] for e in root.iter() if e.tag.rpartition("}")[2] not in drawing.DROPPED)  # noqa: E731
    assert plain(out) == plain(before)
    words = lambda root: [e.text for e in root.iter() if e.tag.rpartition("}")[2] == "text"]  # noqa: E731
    assert words(out) == words(before) != []
    assert len(cleaned) < len(given)
    assert drawing.clean(cleaned) == cleaned == drawing.clean(to_svg(build()))


@given(st.text(st.characters(min_codepoint=32, exclude_categories=("Cs", "Cn"))))
def test_any_word_in_a_drawing_stays_a_word(word: str) -> None:
    root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "viewBox": "0 0 9 9"})
    ET.SubElement(root, "text", {"fill": "#000"}).text = word
    out = drawing.clean(ET.tostring(root, encoding="unicode"))
    assert out.count("<") == (4 if word else 3)
    assert (ET.fromstring(out)[0].text or "") == visible(word)
