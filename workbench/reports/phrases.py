"""Numbers, intervals, denominators and verdicts in words: the one place where a finding becomes a phrase.

The HTML report, the command line and the dashboard all say a number through these functions, so they cannot differ.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from typing import Any

from workbench.core.finding import Card, Denominators, Finding, Interval, Null, Verdict

NOT_COMPUTED = "not computed"

MEANING = {
    Verdict.DETECTED: "the interval excludes the null value, and the effect passes the plan's margin where there is one",
    Verdict.NOT_DETECTED: "the interval contains the null value; the detectable effect says what could have been missed",
    Verdict.EQUIVALENT: "the whole interval lies inside the plan's margin, and an effect of that size would have been found",
    Verdict.WORSE: "paired with the reference, on the same items, the model is worse",
    Verdict.BETTER: "paired with the reference, on the same items, the model is better",
    Verdict.INCONCLUSIVE: "the data decide neither way",
    Verdict.NOT_APPLICABLE: "the model is below the suite's capability floor, so its score would mean nothing",
    Verdict.NOT_CALIBRATED: "no calibration card covers a model like this one",
}

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


def number(value: Any, places: int | None = None) -> str:
    """A number to read: integers with thousands, floats with ``places`` decimals or three significant digits, a true minus."""
    if value is None:
        return NOT_COMPUTED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("infinite" if value > 0 else "minus infinite")
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


def given(value: float | None, places: int | None = None) -> str:
    """A number that was set rather than measured, such as a null of 0.5: four decimals at most where that is exact, else ``number``."""
    if isinstance(value, int | float) and (value == 0 or 1e-4 <= abs(value) < 1e7) and round(value, 4) == value:
        return f"{value + 0.0:,.4f}".rstrip("0").rstrip(".").replace("-", "−")
    return number(value, places)


def places_of(finding: Finding) -> int | None:
    """Decimals that show the width of the interval with two digits; None (three significant digits) without an interval."""
    if finding.interval is None or finding.interval.high <= finding.interval.low:
        return None
    return min(8, max(0, 1 - math.floor(math.log10(finding.interval.high - finding.interval.low))))


def percent(share: float) -> str:
    """0.95 as ``95 %`` with a space that does not break."""
    return f"{share * 100:.6g}\u00a0%"


def verdict_words(verdict: Verdict) -> str:
    """The verdict with its mark: ``◆ detected``."""
    return f"{MARKS[verdict]} {verdict.value}"


def effect_words(finding: Finding) -> str:
    """The effect with its unit, such as ``0.482 probability``."""
    unit = f" {finding.unit}" if finding.unit and finding.effect is not None else ""
    return number(finding.effect, places_of(finding)) + unit


def bounds_words(interval: Interval | None, places: int | None = None) -> str:
    """``0.455 to 0.509``, or ``none``."""
    return "none" if interval is None else f"{number(interval.low, places)} to {number(interval.high, places)}"


def interval_words(interval: Interval | None, places: int | None = None) -> str:
    """Bounds, level and method: ``0.455 to 0.509 (95 %, Wilson)``."""
    return "no interval" if interval is None else f"{bounds_words(interval, places)} ({percent(interval.level)}, {interval.method})"


def null_words(null: Null | None, places: int | None = None) -> str:
    """The null's name, its value and what it is."""
    if null is None:
        return "none named"
    value = f": {given(null.value, places)}" if null.value is not None else ""
    return f"{null.name}{value}" + (f" ({null.words})" if null.words else "")


def denominator_words(counts: Denominators | None) -> str:
    """``448 run, 440 scored, 8 unscored (6 no parse, 2 empty), 12 excluded``; zeros are said, not left out."""
    if counts is None:
        return "not counted"
    missing = sum(counts.unscored.values())
    reasons = ", ".join(f"{number(n)} {reason}" for reason, n in sorted(counts.unscored.items()) if n)
    return (
        f"{number(counts.run)} run, {number(counts.scored)} scored, {number(missing)} unscored"
        + (f" ({reasons})" if reasons else "")
        + f", {number(counts.excluded)} excluded"
    )


def planted_words(finding: Finding) -> str:
    """Planted truth beside the measured value and their difference; empty where nothing was planted."""
    if finding.planted is None:
        return ""
    places = places_of(finding)
    if finding.effect is None:
        return f"planted {given(finding.planted, places)}, not measured"
    gap = finding.effect - finding.planted
    sign = "+" if gap > 0 else ""
    return f"planted {given(finding.planted, places)}, measured {number(finding.effect, places)}, difference {sign}{number(gap, places)}"


def detectable_words(finding: Finding) -> str:
    """The smallest effect that would have been found with 80 % power."""
    if finding.detectable is None:
        return NOT_COMPUTED
    unit = f" {finding.unit}" if finding.unit else ""
    return f"{number(finding.detectable, places_of(finding))}{unit} or more, at 80\u00a0% power"


def card_words(finding: Finding) -> str:
    """The calibration card in one sentence, or why there is none."""
    card = finding.card
    if card is None:
        return finding.card_words or "not calibrated here"
    rates = "; ".join(_rate_words(card, name) for name in sorted(card.rates))
    limit = f"; limit of detection {given(card.limit_of_detection)}" if card.limit_of_detection is not None else ""
    size = f"{number(card.parameters)} parameters"
    tried = f"; n = {number(card.n)}" if card.n else ""
    return (
        f"card {card.of}, version {card.version}: {rates or 'no rates'}{limit}{tried}. "
        f"Holds for {card.family}, {card.norm_placement} norm, {card.domain}, about {size}; {card.conditions}"
    )


def _rate_words(card: Card, name: str) -> str:
    interval = card.intervals.get(name)
    return f"{name} {given(card.rates[name])}" + (f" ({percent(interval.level)}: {bounds_words(interval)})" if interval else "")


def tally_words(tally: dict[Verdict, int]) -> str:
    """``14 findings: 5 detected, 3 not detected …``; verdicts nobody got are left out."""
    total = sum(tally.values())
    parts = ", ".join(f"{count} {verdict.value}" for verdict, count in tally.items() if count)
    return f"{total} finding{'' if total == 1 else 's'}" + (f": {parts}" if parts else "")
