"""The atlas: all cards on one page, so that it is seen at a glance which tool to trust for which question, and where all fail."""

from __future__ import annotations

from collections.abc import Sequence

from evals import SUITES
from probes import INSTRUMENTS
from workbench.calibration.cards import is_stale
from workbench.calibration.exam import Exam
from workbench.calibration.exams import EXAMS
from workbench.calibration.scoring import CUT_OFF, RHO, SLOPE
from workbench.core.catalog import STANDINGS
from workbench.core.finding import SHOWN, Card

HEADER = ("tool", "family", "AUROC", "first", "false alarms", "of its own test", "limit of detection", "effect there", "seconds an item")
NOTHING = "–"
TOWN = "town"
"""What cards without an exam were measured on: the audits of the town."""
UNCARDED = "Without a card"
NOT_SAID = "No card says how often these are right, how often they are wrong, and how small a thing they see."
FOLLOWED = {"slope": SLOPE, "rho": RHO, CUT_OFF: CUT_OFF}


def rows_of(cards: Sequence[Card]) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """One row a card, of its largest dose, and the header."""
    return [_row(card) for card in _ordered(cards)], HEADER


def _ordered(cards: Sequence[Card]) -> list[Card]:
    return sorted(cards, key=lambda card: (card.exam or TOWN, card.of, card.family))


def _followed(card: Card) -> tuple[str, ...]:
    """Of an effect in the suite's own terms: how it follows what the model does, over all models, and from where on it is claimed."""
    return tuple(f"{card.rates[name]:.2f}" if name in card.rates else NOTHING for name in FOLLOWED.values())


def _row(card: Card) -> tuple[str, ...]:
    largest = _largest(card)
    rate = lambda name: f"{card.rates[name]:.2f}" if name in card.rates else NOTHING  # noqa: E731
    cost = f"{card.seconds_an_item:.1g}" if card.seconds_an_item is not None else NOTHING
    effect = f"{card.effect_at_limit:.2f}" if card.effect_at_limit is not None else NOTHING
    return (
        f"{named(card)}{' (stale)' if is_stale(card) else ''}", card.family, rate(f"AUROC of planted against clean, dose {largest}"),
        rate(f"planted part first, dose {largest}"), rate("false alarms at the cut-off"), rate("false alarms of its own test"),
        limit_in_words(card), effect, cost,
    )  # fmt: skip


def named(card: Card) -> str:
    """The tool that a card is of; of a card about one model alone also that model, by the beginning of its digest."""
    return f"{card.of} (model {card.about[:SHOWN]})" if card.about else card.of


def titles(cards: Sequence[Card]) -> list[str]:
    """A title for each card, no two alike: its exam, tool, family and input domain, and the model where it is about one alone."""
    about = lambda card: f", model {card.about[:SHOWN]}" if card.about else ""  # noqa: E731
    return numbered([f"{card.exam or TOWN}: {card.of}, {card.family}, {card.domain}{about(card)}" for card in cards])


def numbered(labels: Sequence[str]) -> list[str]:
    """The labels, with a number behind those that are alike."""
    return [f"{label} ({labels[: i + 1].count(label)})" if labels.count(label) > 1 else label for i, label in enumerate(labels)]


def _largest(card: Card) -> str:
    doses = [name.rpartition("dose ")[2] for name in card.rates if name.startswith("AUROC of planted against clean, dose ")]
    return max(doses, key=float, default="")


def limit_in_words(card: Card) -> str:
    """The limit with its interval, or on which side of the tested doses it lies."""
    if card.limit_of_detection is None:
        return card.limit_words or NOTHING
    interval = card.limit_interval
    return f"{card.limit_of_detection:.2g}" + (f" [{interval.low:.2g}, {interval.high:.2g}]" if interval else "")


def in_words(card: Card) -> list[str]:
    """A card as lines for people: the limit first, then every rate with its interval."""
    unit = f", dose: {card.limit_unit}" if card.limit_unit else ""
    lines = [f"limit of detection (80 % power, 5 % false alarms{unit}): {limit_in_words(card)}"]
    for name, value in card.rates.items():
        within = card.intervals.get(name)
        lines.append(f"{name}: {value:.3g}" + (f" [{within.low:.3g}, {within.high:.3g}]" if within else ""))
    return lines


def uncarded(cards: Sequence[Card]) -> list[tuple[str, str, str]]:
    """(name, kind, status) of every headline and standard instrument and suite that none of ``cards`` is of, headline first."""
    carded = {card.of for card in cards}
    every = [(entry.name, catalog.kind, entry.status) for catalog in (INSTRUMENTS, SUITES) for entry in catalog.values()]
    missing = [one for one in every if one[0] not in carded and one[2] in STANDINGS["standard"]]
    return sorted(missing, key=lambda one: STANDINGS["standard"].index(one[2]))  # sorted keeps the catalogues' order within


def uncarded_words(cards: Sequence[Card]) -> list[str]:
    """What no card speaks of, in lines for people: one for each status and kind, with the names; none where nothing is missing."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, kind, status in uncarded(cards):
        groups.setdefault((status, kind), []).append(name)
    return [f"{status} {kind}s without any card ({len(names)}): {', '.join(names)}" for (status, kind), names in groups.items()]


def page(cards: Sequence[Card]) -> str:
    """The atlas in Markdown: a table for each exam, and what no card speaks of."""
    parts = []
    for exam in dict.fromkeys(card.exam for card in cards if card.exam):
        own = [card for card in cards if card.exam == exam]
        rows, header = rows_of(own)
        if any(CUT_OFF in card.rates for card in own):
            rows, header = [(*row, *_followed(card)) for row, card in zip(rows, _ordered(own), strict=True)], (*header, *FOLLOWED)
        entry = EXAMS[exam].words if exam in EXAMS else ""
        table = [f"| {' | '.join(header)} |", "|---" * len(header) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
        missing = [left, ""] if (left := without(exam, own)) else []
        parts.append("\n".join([f"### {exam}: {entry}?", "", f"A dose is {own[0].limit_unit}.", "", *table, "", *missing]))
    if lines := uncarded_words(cards):
        parts.append("\n".join([f"### {UNCARDED}", "", NOT_SAID, "", *(f"- {line}" for line in lines), ""]))
    return "\n".join(parts)


def without(exam: str, cards: Sequence[Card]) -> str:
    """What the exam takes and none of ``cards`` is of, in words; '' where nothing is missing."""
    if exam not in EXAMS:
        return ""
    whole: Exam = EXAMS.load(exam)
    there = {(card.family, card.of) for card in cards}
    missing = {family: [tool for tool in whole.tools(family) if (family, tool) not in there] for family in whole.families}
    told = [f"{family} ({', '.join(tools)})" for family, tools in missing.items() if tools]
    return f"Of what this exam takes there is no card, measured and above its floor, on {'; '.join(told)}." if told else ""
