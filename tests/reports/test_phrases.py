"""Numbers are said with the digits their interval allows, counts with every reason, and nothing hidden stays hidden."""

from __future__ import annotations

import re
from html import unescape

import pytest
from hypothesis import given as with_examples
from hypothesis import strategies as st

from tests.reports.sample import LINK_CARD, findings, sample
from workbench.core.finding import STALE, Denominators, Finding, Interval, Null, Verdict
from workbench.reports import phrases
from workbench.reports.frames import findings_frame
from workbench.reports.render import html
from workbench.reports.report import Report
from workbench.reports.view import view
from workbench.reports.words import languages, words_of


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [
        (None, None, "not computed"),
        (True, None, "yes"),
        (1234567, None, "1,234,567"),
        (-3, None, "−3"),
        (0.0, None, "0"),
        (0.5, 3, "0.500"),
        (0.12345, None, "0.123"),
        (1234.5, None, "1,234"),
        (-0.0004, 2, "0.00"),
        (-0.25, 2, "−0.25"),
        (3.2e-7, 3, "3.20e−07"),
        (1e9, 1, "1.00e+09"),
        (float("nan"), 2, "not a number"),
        (float("-inf"), None, "minus infinite"),
        ("word", 2, "word"),
    ],
)
def test_numbers(value: object, places: int | None, text: str) -> None:
    assert phrases.number(value, places) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-0.0, "0"), (0.5, "0.5"), (1.0, "1"), (1.44, "1.44"), (-2.5, "−2.5"), (1 / 3, "0.333"), (None, "not computed")],
)
def test_given_numbers_are_short(value: float | None, text: str) -> None:
    assert phrases.given(value, 3) == text


@with_examples(st.floats(-1e300, 1e300), st.one_of(st.none(), st.integers(0, 8)))
def test_a_number_is_never_said_wrong(value: float, places: int | None) -> None:
    said = float(phrases.number(value, places).replace(",", "").replace("−", "-"))
    allowed = 0.51 * 10 ** -(places if places is not None else 9)
    assert said == pytest.approx(value, rel=0.006, abs=allowed)
    assert not (said == 0 and abs(value) > allowed)


@with_examples(st.lists(st.floats(-1e6, 1e6), max_size=6))
def test_a_column_keeps_its_numbers_apart_from_zero(values: list[float]) -> None:
    places = phrases.column_places(values)
    assert (places is None) == (values == [])
    for value in values:
        assert value == 0 or abs(value) < 1e-6 or float(phrases.number(value, places).replace(",", "").replace("−", "-")) != 0


def test_columns() -> None:
    assert phrases.column_places([1.413, 1.409]) == 3
    assert phrases.column_places([0.9, 0.65, 0.02]) == 2
    assert phrases.column_places([1.0, 2.0, 0.0]) == 0
    assert phrases.column_places(["a", 3]) is None


def test_the_interval_decides_the_digits() -> None:
    first = findings()[0]
    assert phrases.effect_words(first) == "0.963 per unit of planted lean"
    assert phrases.interval_words(first.interval, phrases.places_of(first)) == "0.931 to 0.997 (95\u00a0%, cluster bootstrap)"
    wide = first.model_copy(update={"effect": 12.345, "interval": Interval(low=3, high=21.7, method="Wilson", level=0.999)})
    assert phrases.effect_words(wide).startswith("12 ")
    assert phrases.interval_words(wide.interval, 0) == "3 to 22 (99.9\u00a0%, Wilson)"
    assert phrases.places_of(first.model_copy(update={"interval": None})) is None


def test_a_line_for_a_terminal_has_the_number_with_its_interval() -> None:
    one = Finding(
        claim="c", subject="m", source="s", measure="x", effect=0.4817, unit="share", verdict=Verdict.DETECTED,
        interval=Interval(low=0.455, high=0.509, level=0.95, method="t"), because="the interval excludes 0",
    )  # fmt: skip
    assert phrases.finding_line(one) == "detected: c (x): 0.482 share [0.455 to 0.509, 95\u00a0%], because the interval excludes 0"
    bare = one.model_copy(update={"interval": None, "verdict": Verdict.INCONCLUSIVE, "because": "too few"})
    assert phrases.finding_line(bare) == "inconclusive: c (x): 0.482 share, because too few"
    unknown = bare.model_copy(update={"effect": None})
    assert phrases.finding_line(unknown) == "inconclusive: c (x), because too few"
    assert phrases.finding_line(unknown.model_copy(update={"because": ""})) == "inconclusive: c (x)"


def test_denominators_say_every_count() -> None:
    counts = Denominators(run=10, scored=7, unscored={"no parse": 2, "empty": 1, "never": 0}, excluded=4)
    assert phrases.denominator_words(counts) == "10 run, 7 scored, 3 unscored (1 empty, 2 no parse), 4 excluded"
    assert phrases.denominator_words(Denominators(run=1, scored=1)) == "1 run, 1 scored, 0 unscored, 0 excluded"
    assert phrases.denominator_words(None) == "not counted"


def test_nulls_plants_cards_and_limits() -> None:
    first, twin, secret = findings()[:3]
    assert phrases.null_words(first.null, 3) == "clean twin: 0 (the same model trained without the link)"
    assert phrases.null_words(None) == "none named"
    assert phrases.null_words(Null(name="n")) == "n"
    assert phrases.planted_words(first) == "planted 1, measured 0.963, difference −0.037"
    assert phrases.planted_words(twin) == "planted 0, measured 0.003, difference +0.003"
    assert phrases.planted_words(secret) == ""
    assert phrases.planted_words(first.model_copy(update={"effect": None})) == "planted 1, not measured"
    assert phrases.detectable_words(first) == "0.031 per unit of planted lean or more, at 80\u00a0% power"
    assert phrases.card_words(secret) == "not calibrated here"
    assert phrases.card_words(secret.model_copy(update={"card_words": ""})) == "not calibrated here"
    words = phrases.card_words(first)
    assert "hit rate 0.97 (95\u00a0%: 0.830 to 1.00)" in words
    assert "limit of detection 0.031; n = 6." in words
    assert "860,000 parameters" in words


def test_the_limit_of_a_card_has_its_interval_and_says_what_a_dose_is() -> None:
    first = findings()[0]
    assert first.card is not None
    within = Interval(low=0.02, high=0.05, method="profile likelihood")

    def said(language: str = "en", **changes: object) -> str:
        return phrases.card_words(first.model_copy(update={"card": first.card and first.card.model_copy(update=changes)}), language)

    assert "; limit of detection 0.031 (95\u00a0%: 0.0200 to 0.0500), a dose being rows (of 240); n = 6." in said(
        limit_interval=within, limit_unit="rows (of 240)"
    )
    outside = said(limit_of_detection=None, limit_words="above the highest dose", limit_unit="rows")
    assert "; limit of detection above the highest dose, a dose being rows; n = 6." in outside
    assert "高于最大剂量，剂量指 rows" in said("zh", limit_of_detection=None, limit_words="above the highest dose", limit_unit="rows")
    assert "limit" not in said(limit_of_detection=None, limit_words="not estimated: too few doses", limit_unit="rows")


STALE_IN = {
    "en": "doses 0, 0.1 … 0.8; stale: its code has changed since, and `workbench calibrate` measures it anew",
    "zh": "doses 0, 0.1 … 0.8；已过时：测定之后，该工具的代码已经改动，可用 `workbench calibrate` 重新测定",
}


def with_words(words: str) -> Finding:
    """The first finding, with other words beside it."""
    return findings()[0].model_copy(update={"card_words": words})


@pytest.mark.parametrize("language", languages())
def test_a_stale_card_is_said_to_be_stale_wherever_it_is_said(language: str) -> None:
    told = f"calibrated: {LINK_CARD.conditions}"
    fresh, stale, more = (with_words(told + end) for end in ("", STALE, "; of something else"))
    said = phrases.card_words(stale, language)
    assert said.endswith(STALE_IN[language])
    assert phrases.card_words(fresh, language) == phrases.card_words(with_words(""), language)
    assert said == phrases.card_words(fresh, language) + words_of(language)("finding.stale")
    assert phrases.card_words(more, language) == phrases.card_words(fresh, language) + "; of something else", "no remark is dropped"
    report = Report(title="t", subject="s", date="d", findings=(fresh, stale))
    calibration = [{role: value for _, value, role in one["facts"]}["card"] for one in view(report, language)["findings"]]
    assert calibration == [phrases.card_words(fresh, language), said]
    page = " ".join(unescape(html.render(report, language=language)).split())
    assert page.count(words_of(language)("finding.stale")) == 1
    assert Report.from_json(report.to_json()).findings[1].card_words == told + STALE


def test_a_table_says_that_a_card_is_stale() -> None:
    told = f"calibrated: {LINK_CARD.conditions}"
    marks = findings_frame([with_words(told), with_words(told + STALE), findings()[2]])["calibration"]
    assert list(marks) == ["card", f"card{STALE}", "not calibrated here"]
    assert words_of()("finding.stale") == STALE, "the words of the finding are those of the language they are written in"


def test_the_tally_leaves_no_one_out() -> None:
    assert phrases.tally_words(sample().tally()) == "8 findings: 4 detected, 1 not detected, 1 equivalent, 1 inconclusive, 1 not applicable"


@with_examples(st.text())
def test_nothing_stays_hidden(text: str) -> None:
    shown = phrases.visible(text)
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff\U000e0000-\U000e007f]", shown
    )
    if text.isalnum():
        assert shown == text


def test_hidden_characters_are_named() -> None:
    assert phrases.visible("a\x00b\x7f\u202ec\u200d\U000e0041\r\n\t") == "a␀b␡⟨U+202E⟩c\u200d⟨U+E0041⟩␍\n\t"
    assert phrases.visible("plain text") == "plain text"
