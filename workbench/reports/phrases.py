"""Numbers, intervals, denominators and verdicts in words: the one place where a finding becomes a phrase.

Every rendering, the command line and the dashboard say a number through these functions, so they cannot differ. The words come
from ``words``, in English unless another language is named.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Any

from workbench.core.finding import CALIBRATED, STALE, Card, Denominators, Finding, Interval, Null, Verdict
from workbench.reports.words import ENGLISH, words_of

# The shapes are those of core.charts.palette.VERDICTS, so that a forest plot, the page and a terminal agree.
MARKS = {
    Verdict.DETECTED: "◆",
    Verdict.NOT_DETECTED: "●",
    Verdict.EQUIVALENT: "■",
    Verdict.WORSE: "▲",
    Verdict.BETTER: "▼",
    Verdict.INCONCLUSIVE: "✚",
    Verdict.NOT_APPLICABLE: "–",
    Verdict.NOT_CALIBRATED: "○",
}

MOST_CHARACTERS = 8000
"""What one text shows in a page; the JSON form holds the whole."""

_HIDDEN = {0x200B, 0x200E, 0x200F, 0x2060, 0x061C, 0xFEFF, *range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xE0000, 0xE0080)}


def visible(text: str) -> str:
    """``text`` with every control, direction mark and invisible character shown as a symbol or as ``⟨U+202E⟩``.

    Line feeds and tabs stay. Nothing in a report may hide, reorder or end the text around it.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible_character(character) for character in text)


def _visible_character(character: str) -> str:
    code = ord(character)
    if character in "\n\t":
        return character
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if code in _HIDDEN or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return f"⟨U+{code:04X}⟩"
    return character


def clipped(text: str, language: str = ENGLISH, most: int = MOST_CHARACTERS) -> str:
    """``text`` made ``visible``, and cut where it is longer than ``most`` characters, with the number of those that are not shown."""
    if len(text) <= most:
        return visible(text)
    return visible(text[:most]) + words_of(language)("page.clipped", count=number(len(text) - most))


def number(value: Any, places: int | None = None, language: str = ENGLISH) -> str:
    """A number to read: integers with thousands, floats with ``places`` decimals or three significant digits, a true minus."""
    say = words_of(language)
    if value is None:
        return say("number.none")
    if isinstance(value, bool):
        return say("number.yes") if value else say("number.no")
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return say("number.nan") if math.isnan(value) else say("number.infinite" if value > 0 else "number.minus_infinite")
    if value and (abs(value) < 1e-4 or abs(value) >= 1e7) and (places is None or round(value, places) == 0 or abs(value) >= 1e7):
        return f"{value:.2e}".replace("-", "−")
    shown = max(0, 2 - math.floor(math.log10(abs(value)))) if places is None and value else (places or 0)
    text = f"{value:,.{min(shown, 8)}f}"
    return ("0" + text[2:] if float(text.replace(",", "")) == 0 and text.startswith("-") else text).replace("-", "−")


def column_places(values: Iterable[Any]) -> int | None:
    """Decimals for a column of floats: four digits of its largest and three of its smallest (at most six), less zeros that all end in."""
    sizes = [abs(v) for v in values if isinstance(v, float) and math.isfinite(v)]
    if not sizes:
        return None
    known = [size for size in sizes if size] or [1.0]
    places = min(6, max(0, 3 - math.floor(math.log10(max(known))), 2 - math.floor(math.log10(min(known)))))
    while places and all(round(size, places) == round(size, places - 1) for size in sizes):
        places -= 1
    return places


def given(value: float | None, places: int | None = None, language: str = ENGLISH) -> str:
    """A number that was set rather than measured, such as a null of 0.5: four decimals at most where that is exact, else ``number``."""
    if isinstance(value, int | float) and (value == 0 or 1e-4 <= abs(value) < 1e7) and round(value, 4) == value:
        return f"{value + 0.0:,.4f}".rstrip("0").rstrip(".").replace("-", "−")
    return number(value, places, language)


def places_of(finding: Finding) -> int | None:
    """Decimals that show the width of the interval with two digits; None (three significant digits) without an interval."""
    if finding.interval is None or finding.interval.high <= finding.interval.low:
        return None
    return min(8, max(0, 1 - math.floor(math.log10(finding.interval.high - finding.interval.low))))


def percent(share: float) -> str:
    """0.95 as ``95 %`` with a space that does not break."""
    return f"{share * 100:.6g}\u00a0%"


def verdict_name(verdict: Verdict, language: str = ENGLISH) -> str:
    """The verdict's word: ``detected``."""
    return words_of(language)(f"verdict.{verdict.value}")


def meaning(verdict: Verdict, language: str = ENGLISH) -> str:
    """What a verdict means, in one clause."""
    return words_of(language)(f"meaning.{verdict.value}")


def verdict_words(verdict: Verdict, language: str = ENGLISH) -> str:
    """The verdict with its mark: ``◆ detected``."""
    return f"{MARKS[verdict]} {verdict_name(verdict, language)}"


def decided_words(finding: Finding, language: str = ENGLISH) -> str:
    """The verdict with its mark, and whether the finding was declared beforehand: ``◆ detected (exploratory)``."""
    words = verdict_words(finding.verdict, language)
    return f"{words} ({words_of(language)('status.exploratory')})" if finding.exploratory else words


def because_words(finding: Finding, language: str = ENGLISH) -> str:
    """Why the verdict is what it is. Reasons of ``core.finding.decide`` are told in the language; a suite's own stay as they are."""
    if language == ENGLISH:
        return finding.because
    say, suffix = words_of(language), words_of()("finding.undeclared", because="").strip()
    plain = finding.because.removesuffix(suffix).rstrip() if finding.because.endswith(suffix) else finding.because
    matches = ((key, pattern.fullmatch(plain)) for key, pattern in _reasons())
    told = next((say(key, **match.groupdict()) for key, match in matches if match), plain)
    return told if plain == finding.because else say("finding.undeclared", because=told)


@cache
def _reasons() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Each known reason's key with a pattern of its English words, in which a number stands in the place of each name."""
    out = []
    for key in sorted(key for key in words_of().names() if key.startswith("because.")):
        parts = re.split(r"\{(\w+)\}", words_of()(key))
        text = "".join(re.escape(part) if index % 2 == 0 else rf"(?P<{part}>-?[\d.e+-]+)" for index, part in enumerate(parts))
        out.append((key, re.compile(text)))
    return tuple(out)


def effect_words(finding: Finding, language: str = ENGLISH) -> str:
    """The effect with its unit, such as ``0.482 probability``."""
    unit = f" {finding.unit}" if finding.unit and finding.effect is not None else ""
    return number(finding.effect, places_of(finding), language) + unit


def bounds_words(interval: Interval | None, places: int | None = None, language: str = ENGLISH) -> str:
    """``0.455 to 0.509``, or ``none``."""
    say = words_of(language)
    if interval is None:
        return say("finding.no_bounds")
    return say("finding.bounds", low=number(interval.low, places, language), high=number(interval.high, places, language))


def interval_words(interval: Interval | None, places: int | None = None, language: str = ENGLISH) -> str:
    """Bounds, level and method: ``0.455 to 0.509 (95 %, Wilson)``."""
    say = words_of(language)
    if interval is None:
        return say("finding.no_interval")
    bounds = bounds_words(interval, places, language)
    return say("finding.interval", bounds=bounds, level=percent(interval.level), method=interval.method)


def null_words(null: Null | None, places: int | None = None, language: str = ENGLISH) -> str:
    """The null's name, its value and what it is."""
    if null is None:
        return words_of(language)("finding.no_null")
    value = f": {given(null.value, places, language)}" if null.value is not None else ""
    return f"{null.name}{value}" + (f" ({null.words})" if null.words else "")


def denominator_words(counts: Denominators | None, language: str = ENGLISH) -> str:
    """``448 run, 440 scored, 8 unscored (6 no parse, 2 empty), 12 excluded``; zeros are said, not left out."""
    say = words_of(language)
    if counts is None:
        return say("finding.not_counted")
    reasons = ", ".join(say("finding.reason", count=number(n), reason=reason) for reason, n in sorted(counts.unscored.items()) if n)
    return say(
        "finding.counts", run=number(counts.run), scored=number(counts.scored), unscored=number(sum(counts.unscored.values())),
        reasons=f" ({reasons})" if reasons else "", excluded=number(counts.excluded),
    )  # fmt: skip


def planted_words(finding: Finding, language: str = ENGLISH) -> str:
    """Planted truth beside the measured value and their difference; empty where nothing was planted."""
    if finding.planted is None:
        return ""
    say, places = words_of(language), places_of(finding)
    planted = given(finding.planted, places, language)
    if finding.effect is None:
        return say("finding.planted_unmeasured", planted=planted)
    gap = finding.effect - finding.planted
    difference = ("+" if gap > 0 else "") + number(gap, places, language)
    return say("finding.planted", planted=planted, measured=number(finding.effect, places, language), difference=difference)


def detectable_words(finding: Finding, language: str = ENGLISH) -> str:
    """The smallest effect that would have been found with 80 % power."""
    say = words_of(language)
    if finding.detectable is None:
        return say("number.none")
    unit = f" {finding.unit}" if finding.unit else ""
    return say("finding.detectable", effect=f"{number(finding.detectable, places_of(finding), language)}{unit}")


def card_words(finding: Finding, language: str = ENGLISH) -> str:
    """The calibration card in one sentence, or why there is none."""
    say, card = words_of(language), finding.card
    if card is None:
        default = finding.card_words in ("", words_of()("finding.no_card"))
        return say("finding.no_card") if default else finding.card_words
    rates = "; ".join(_rate_words(card, name, language) for name in sorted(card.rates))
    words = say(
        "finding.card", of=card.of, version=card.version, rates=rates or say("finding.no_rates"), limit=_limit_words(card, language),
        tried=say("finding.tried", n=number(card.n)) if card.n else "",
        family=card.family, norm=card.norm_placement, domain=card.domain, size=number(card.parameters), conditions=card.conditions,
    )  # fmt: skip
    remark = remark_on_card(finding)
    return words + (say("finding.stale") if remark == STALE else remark)


def card_mark(finding: Finding) -> str:
    """What a table says of the card: ``card``, with what else is to be said of it (that it is stale), or why there is none."""
    return f"card{remark_on_card(finding)}" if finding.card else finding.card_words


def remark_on_card(finding: Finding) -> str:
    """What stands in the words beside a finding after its card's conditions, such as that the card was stale when they were written."""
    told = f"{CALIBRATED}{finding.card.conditions}" if finding.card else ""
    return finding.card_words.removeprefix(told) if told and finding.card_words.startswith(told) else ""


def _limit_words(card: Card, language: str) -> str:
    """How small a thing is seen, with its interval and what a dose is; on which side of the tested doses, where outside; '' where it
    is not known."""
    say, limit, within = words_of(language), card.limit_of_detection, card.limit_interval
    if limit is None:
        outside = {"above the highest dose": "finding.limit_above", "below the lowest dose": "finding.limit_below"}
        words = say(outside[card.limit_words]) if card.limit_words in outside else ""
    else:
        bounds = say("finding.limit_bounds", level=percent(within.level), bounds=bounds_words(within, None, language)) if within else ""
        words = given(limit) + bounds
    if not words:
        return ""
    return say("finding.limit", limit=words) + (say("finding.limit_dose", unit=card.limit_unit) if card.limit_unit else "")


def _rate_words(card: Card, name: str, language: str) -> str:
    say, interval, rate = words_of(language), card.intervals.get(name), given(card.rates[name])
    if interval is None:
        return say("finding.rate", name=name, rate=rate)
    return say("finding.rate_interval", name=name, rate=rate, level=percent(interval.level), bounds=bounds_words(interval, None, language))


def finding_line(finding: Finding) -> str:
    """A finding in one line for a terminal: verdict, claim, measure, its number with the interval, and why."""
    known = f": {effect_words(finding)}" if finding.effect is not None else ""
    if known and finding.interval is not None:
        known += f" [{bounds_words(finding.interval, places_of(finding))}, {percent(finding.interval.level)}]"
    return f"{finding.verdict}: {finding.claim} ({finding.measure}){known}{f', because {finding.because}' if finding.because else ''}"


def tally_words(tally: dict[Verdict, int], language: str = ENGLISH) -> str:
    """``14 findings: 5 detected, 3 not detected …``; verdicts nobody got are left out."""
    say, total = words_of(language), sum(tally.values())
    parts = ", ".join(
        say("finding.tally_part", count=count, verdict=verdict_name(verdict, language)) for verdict, count in tally.items() if count
    )
    return say("finding.tally_one" if total == 1 else "finding.tally_many", total=total) + (f": {parts}" if parts else "")
