"""Cards as pictures: limits of detection side by side, and how the share found rises with the dose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from workbench.calibration.atlas import named, numbered
from workbench.core.charts.curves import MOST, curves
from workbench.core.charts.lines import forest_of_sizes
from workbench.core.errors import BadValue
from workbench.core.finding import Card


def labels_of(cards: Sequence[Card]) -> list[str]:
    """A label for each card of one exam, no two alike: its tool and family, and the model where it is about one alone."""
    return numbered([f"{named(card)}, {card.family}" for card in cards])


def limits(cards: Sequence[Card], title: str) -> Any:
    """The limits of detection of cards of one exam, each with its interval; those outside the tested doses are named in the note below and
    have no point. Raises BadValue where none lies within."""
    inside = [card for card in cards if card.limit_of_detection is not None]
    if not inside:
        raise BadValue("the limits of detection", "none", "at least one within the tested doses")
    rows, inside = [], sorted(inside, key=lambda c: (c.of, c.family))
    for card, label in zip(inside, labels_of(inside), strict=True):
        within = card.limit_interval
        rows.append(
            {"tool": label, "limit": card.limit_of_detection, "low": within.low if within else float("nan"),
             "high": within.high if within else float("nan")}
        )  # fmt: skip
    titles = {"title": title, "limit": f"dose found with 80 % power at 5 % false alarms: {inside[0].limit_unit}"}
    return forest_of_sizes(pd.DataFrame(rows), "tool", "limit", "low", "high", titles=titles)


def responses(cards: Sequence[Card], title: str) -> Any:
    """The share of cases above the cut-off by dose, a line a card (at most six); the clean twins stand at dose 0."""
    chosen = list(cards)[:MOST]
    told = zip(chosen, labels_of(chosen), strict=True)
    rows = [{"dose": dose, "found": found, "card": label} for card, label in told for dose, found, _ in card.curve]
    if not rows:
        raise BadValue("the doses of these cards", "none", "at least one card with a curve; cards of before have none")
    titles = {
        "title": title,
        "dose": chosen[0].limit_unit or "dose",
        "found": "share of cases above the cut-off",
        "card": "tool and family",
    }
    return curves(
        pd.DataFrame(rows), "dose", "found", "card", titles=titles, levels={"false alarms allowed": 0.05, "power": 0.8}, zero=True
    )
