"""The model card: metadata that the hub's own library reads, a body that a Markdown reader takes for text, and bytes that stay."""

from __future__ import annotations

import re
from functools import cache

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tests.reports.sample import TARGET, findings, sample
from tests.reports.test_html import PAYLOADS, hostile
from workbench.reports import phrases
from workbench.reports.parts import Identity
from workbench.reports.render import card
from workbench.reports.report import Report


def reader() -> MarkdownIt:
    """A reader with everything switched on that the hub's has: tables, strikethrough, raw HTML, bare links."""
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def body(text: str) -> str:
    return text.split("---\n", 2)[2]


def shape(text: str) -> list[str]:
    """The kinds of all blocks and inline parts but text; what is between them may differ."""
    kinds: list[str] = []
    for token in reader().parse(body(text)):
        kinds.append(token.type)
        kinds += [child.type for child in token.children or () if child.type != "text"]
    return kinds


def test_the_hub_reads_the_metadata() -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub comes with the extra 'interop'")
    data = hub.ModelCard(card.render(sample())).data
    assert data.license == "apache-2.0"
    assert data.model_name == TARGET
    valued = [f for f in sample().all_findings() if f.effect is not None and f.subject == TARGET]
    assert [r.metric_value for r in data.eval_results] == [f.effect for f in valued]
    assert data.eval_results[0].metric_args["interval"] == {"low": 0.931, "high": 0.997, "level": 0.95, "method": "cluster bootstrap"}


def test_only_the_audited_models_findings_are_its_results() -> None:
    other = sample().model_copy(update={"identities": (Identity(part="audited", name="someone else"),)})
    assert "model-index" not in card.metadata(other)
    assert "model-index" not in card.metadata(Report(title="t", subject="s", date="d", findings=findings()))
    odd = sample().model_copy(update={"identities": (Identity(part="audited", name="m", licence="our own licence, see file"),)})
    assert card.metadata(odd)["license"] == "other"
    assert card.metadata(odd)["license_name"] == "our own licence, see file"


def test_the_body_states_every_finding_and_every_denominator() -> None:
    text = card.render(sample())
    for number, finding in enumerate(sample().all_findings(), start=1):
        assert f"### Finding {number}: {card.plain(finding.claim)}" in text
    for words in ("occupation-pronoun | audited | 500 | 20 | 480 | 472", "wikitext-2 perplexity", "workbench audit default", "9b1d" * 16):
        assert words in text
    assert shape(text).count("heading_open") == 1 + 2 + 2 + 5 + len(sample().all_findings())
    assert card.render(sample()) == text


def test_an_empty_report_is_a_card_too() -> None:
    text = card.render(Report(title="t", subject="s", date="d"))
    assert "No finding was made." in text
    assert yaml.safe_load(text.split("---\n")[1]) == {"library_name": "assay", "tags": ["assay", "audit"]}


LINK = re.compile(r"https?://|www\.")


@cache
def plain_shape() -> list[str]:
    return shape(card.render(hostile("plain")))


@pytest.mark.parametrize("payload", [PAYLOADS[number] for number in (0, 5, 11, 15)], ids=["script", "jinja", "right to left", "address"])
def test_a_hostile_report_has_the_shape_of_a_plain_one(payload: str) -> None:
    text = card.render(hostile(payload))
    assert shape(text) == plain_shape()
    assert yaml.safe_load(text.split("---\n")[1])["library_name"] == "assay"
    assert LINK.search(body(text).split("```")[0]) is None, "some readers would make it a link"


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.sampled_from(PAYLOADS), st.text(alphabet=st.sampled_from("ab1 \\`*_{}[]()<>#+-.!|~$&:/@\"'=^\n"), max_size=40)))
def test_any_text_stays_text(text: str) -> None:
    said = card.plain(phrases.visible(text))
    words = " ".join(phrases.visible(text).split())
    for place in ("{}", "- {}", "## {}", "| a |\n| --- |\n| {} |", "x: {}"):
        tokens = reader().parse(place.format(said))
        inline = [token for token in tokens if token.type == "inline"][-1:]
        children = [child for token in inline for child in token.children or ()]
        assert {child.type for child in children} <= {"text", "text_special"}, (place, said)
        shown = "".join(child.content for child in children)
        assert shown == (f"x: {words}".strip() if place == "x: {}" else words), (place, said)
    assert LINK.search(said) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1. not a list", "1\\. not a list"),
        ("- nor this", "\\- nor this"),
        ("# no heading", "\\# no heading"),
        ("a | b", "a \\| b"),
        ("two\nlines", "two lines"),
        ("<b>&amp;</b>", "&lt;b&gt;&amp;amp;&lt;/b&gt;"),
        ("$x$ and www.example.org", "\\$x\\$ and www\\.example.org"),
        ("-0.5 to 0.5", "\\-0.5 to 0.5"),
        ("0.931 to 0.997", "0.931 to 0.997"),
    ],
)
def test_escaping(text: str, said: str) -> None:
    assert card.plain(text) == said
