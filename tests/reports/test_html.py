"""The page says everything a finding holds, says it the same way each time, and takes no string for markup."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reports.accessibility import Page, parsed, problems
from tests.reports.sample import findings, heat_map, sample
from workbench.core.errors import BadValue
from workbench.reports import phrases
from workbench.reports.render import html
from workbench.reports.report import Report, Section, Table
from workbench.reports.view import finding_view, strip, view


def words_of(page: str) -> str:
    return " ".join(" ".join(data for data, _ in parsed(page).texts).split())


def test_equal_reports_give_equal_bytes() -> None:
    assert html.render(sample()).encode() == html.render(sample()).encode()
    assert html.render(Report.from_json(sample().to_json())) == html.render(sample())


def test_every_finding_is_stated_in_full() -> None:
    report = sample()
    page = Page(html.render(report))
    cards = {attrs["id"]: page.text_of(i) for i, attrs in page.named("article")}
    assert len(cards) == len(report.all_findings())
    for number, finding in enumerate(report.all_findings(), start=1):
        text = " ".join(cards[f"finding-{number}"].split())
        places = phrases.places_of(finding)
        said = [
            finding.verdict.value,
            finding.claim,
            finding.subject,
            finding.source,
            finding.measure,
            finding.because,
            finding.unit if finding.effect is not None else "",
        ]
        said += [
            phrases.number(finding.effect, places),
            phrases.bounds_words(finding.interval, places) if finding.interval else "no interval",
        ]
        said += [finding.interval.method, phrases.percent(finding.interval.level)] if finding.interval else []
        said += [phrases.null_words(finding.null, places), phrases.denominator_words(finding.denominators), phrases.planted_words(finding)]
        said += [phrases.detectable_words(finding), phrases.card_words(finding), finding.rederive, *map(str, finding.details)]
        missing = [words for words in said if " ".join(words.split()) not in text]
        assert missing == []


def test_the_order_is_findings_first_then_sections_then_the_rest() -> None:
    page = Page(html.render(sample()))
    order = [attrs["id"] for _, attrs in page.named("h2")]
    assert order == [
        "contents",
        "summary",
        "findings",
        "identity",
        "coverage",
        "model",
        "data",
        "behaviour",
        "instruments",
        "method",
        "left-out",
        "limits",
        "reading",
        "provenance",
        "rederive",
        "crosswalk",
    ]


def test_the_overview_lists_passes_and_failures_alike() -> None:
    page = Page(html.render(sample()))
    table = next(i for i, attrs in page.named("table") if attrs.get("class") == "overview")
    rows = [i for i in page.children(table, "tr") if page.tags[i][1].get("class") != "group"]
    assert len(rows) == 1 + len(sample().all_findings())
    for claim in (finding.claim for finding in sample().all_findings()):
        assert claim in page.text_of(table)


def test_a_section_of_many_findings_says_where_they_stand() -> None:
    one = findings()[0]
    many = tuple(one.model_copy(update={"measure": f"measure {n}"}) for n in range(15))
    other = one.model_copy(update={"measure": "another"})
    sections = (
        Section(title="Suite: many", anchor="suite-many", lead="Many.", findings=(*many[:9], *many[10:])),
        Section(title="Suite: few", anchor="suite-few", lead="Few.", findings=(other, many[9])),
    )
    report = sample().model_copy(update={"findings": (), "sections": sections})
    assert [(s["many"], len(s["groups"])) for s in view(report)["sections"]] == [
        ("Findings 1–14 belong here; they stand in the table and in full above.", 0), ("", 1),
    ]  # fmt: skip
    whole = report.model_copy(update={"sections": (sections[1], sections[0].model_copy(update={"findings": (*many, other)}))})
    assert view(whole)["sections"][1]["many"].startswith("Findings 1–16 ")
    page = Page(html.render(report))
    assert words_of(html.render(report)).count("Findings 1–14 belong here") == 1
    assert "#finding-1" in [attrs.get("href") for _, attrs in page.named("a")]
    assert [attrs["id"] for _, attrs, _ in page.tags if attrs.get("id") == "finding-1"] == ["finding-1"], "the link leads somewhere"


def test_details_do_not_say_a_finding_again() -> None:
    one = findings()[0]
    assert one.effect is not None
    assert one.interval is not None
    assert one.denominators is not None
    said = {"value": one.effect, "low": one.interval.low, "high": one.interval.high, "n": one.denominators.scored}
    details = finding_view(1, one.model_copy(update={"details": {**said, "clusters": 7}}))["details"]
    assert details == [("clusters", "7")]
    other = finding_view(1, one.model_copy(update={"details": {"value": one.effect + 1, "n": one.denominators.scored + 1}}))["details"]
    assert [name for name, _ in other] == ["n", "value"], "what differs is told"


def test_what_was_left_out_and_provenance_are_said() -> None:
    words = words_of(html.render(sample()))
    for part in (
        "wikitext-2 perplexity",
        "was not in the mirror",
        "9b1d" * 16,
        "seed 0, 40,000 sentences",
        "workbench audit default",
        sample().digest(),
    ):
        assert part in words
    assert "Nothing of the plan was left out." in words_of(html.render(sample().model_copy(update={"left_out": ()})))


def test_numbers_stand_right_and_holes_are_said() -> None:
    page = Page(html.render(sample()))
    cells = [(attrs.get("class"), page.text_of(i)) for i, attrs in page.named("td")]
    assert ("n", "859,904") in cells
    assert ("n", "–not computed") in cells
    assert ("n", "1,411") in cells
    assert (None, "1,411") not in cells


def test_the_small_drawing_keeps_order_and_scale() -> None:
    first = sample().findings[0]
    marks = strip(first)
    assert marks is not None
    at = {name: float(place.rstrip("%")) for name, place in marks.items() if place}
    assert at["null"] < at["low"] < at["effect"] < at["high"] < at["planted"]
    assert (at["effect"] - at["null"]) / (at["planted"] - at["null"]) == pytest.approx(0.963, abs=1e-3)
    assert strip(first.model_copy(update={"interval": None})) is None
    assert strip(first.model_copy(update={"effect": None})) is None


# --- hostile strings ----------------------------------------------------------------------------------------

PAYLOADS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='x",
    "</style><script>",
    "</title><h1>",
    "{{ 7*7 }}{% raw %}",
    "<!--",
    "]]>",
    "&lt;b&gt;",
    "javascript:alert(1)",
    "\x00nul",
    "שלום \u202egnp.exe",
    "مرحبا بالعالم",
    "x" * 5000,
    "a\u200bb\ufeff",
    "https://example.org/a.js",
    "\U000e0041\U0001f469\u200d\U0001f4bb",
    "`${1}`",
    '#panic("x") $ x^2 $ #include "/etc/passwd" @ref <label> *b* _i_ // /* = Heading',
    "<svg onload=alert(1)><a xlink:href='javascript:1'/></svg>",
    '=HYPERLINK("http://example.org")',
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "../../etc/passwd\\..\\x",
]
KEPT = {"verdict", "status", "kind", "anchor", "svg", "format"}


def replaced(value: Any, text: str, key: str = "") -> Any:
    """``value`` with every free string in it put to ``text``: values, table cells and the names of details, not closed lists."""
    if isinstance(value, dict):
        return {(text if key == "details" else name): replaced(part, text, name) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [replaced(part, text, key) for part in value]
    return text if isinstance(value, str) and value and key not in KEPT else value


@cache
def hostile(text: str) -> Report:
    content = sample().model_dump(mode="json")
    for finding in [*content["findings"], *(f for s in content["sections"] for f in s["findings"])]:
        if finding["denominators"]["unscored"]:  # reasons are keys of a mapping, and they must still add up
            finding["denominators"]["unscored"] = {text: sum(finding["denominators"]["unscored"].values())}
        if finding["card"]:
            finding["card"] |= {"rates": {text: 0.5}, "intervals": {}}
    return Report.model_validate(replaced(content, text))


def skeleton(page: str) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
    """All tags with their attributes; only the pictures' descriptions may differ."""
    return [(tag, tuple((k, v) for k, v in attrs.items() if k != "aria-label")) for tag, attrs, _ in parsed(page).tags]


@cache
def plain_skeleton() -> list[tuple[str, tuple[tuple[str, str], ...]]]:
    return skeleton(html.render(hostile("plain")))


def check_hostile(text: str) -> None:
    report = hostile(text)
    page = html.render(report, most_bytes=20_000_000)
    assert skeleton(page) == plain_skeleton()
    assert [p for p in problems(page) if p not in ("a heading is empty", "a table has no caption")] == []
    shown = " ".join(phrases.visible(text).split())
    assert words_of(page).count(shown) >= (100 if shown else 0)
    assert Report.from_json(report.to_json()) == report


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_known_payloads_stay_text(payload: str) -> None:
    check_hostile(payload)


@settings(max_examples=25, deadline=None)
@given(st.text(min_size=1, max_size=60).filter(lambda text: text.strip() and phrases.visible(text).strip()))
def test_any_string_stays_text(text: str) -> None:
    check_hostile(text)


# --- size ---------------------------------------------------------------------------------------------------


def test_a_page_that_is_too_large_names_what_is_largest() -> None:
    long = Table(columns=("a", "b"), rows=tuple((f"row {i}", i) for i in range(40_000)), caption="Every row there is")
    report = Report(
        title="t", subject="s", date="d", sections=(Section(title="S", anchor="s", lead="l", tables=(long,), figures=(heat_map(),)),)
    )
    with pytest.raises(
        BadValue,
        match=r"at most 2\.00 MB\. Its largest parts are the table 'Every row there is' \(0\.\d\d MB\), the drawing 'Att",
    ):
        html.render(report)
    assert len(html.render(sample()).encode()) < 100_000


def test_a_page_does_not_depend_on_the_order_of_details() -> None:
    """What is read back from JSON has its fields in alphabetical order, at every depth."""
    whole = sample()
    first, *rest = whole.findings
    fields = {"n": 2, "ties": 0, "share": 0.5}
    pages = []
    for names in (list(fields), sorted(fields)):
        details = {"by_group": {"a": {name: fields[name] for name in names}}, "one": {name: fields[name] for name in names}}
        pages.append(html.render(whole.model_copy(update={"findings": (first.model_copy(update={"details": details}), *rest)})))
    assert "share 0.5" in pages[0]
    assert pages[0] == pages[1]
