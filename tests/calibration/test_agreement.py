"""Two measurings of a card: what drawing anew moves is let pass, what is another result is named."""

from typing import Any

import pytest

from workbench.calibration.agreement import disagreements
from workbench.calibration.cards import shipped
from workbench.calibration.exam import Grid
from workbench.core.finding import Card, Interval

GRID = Grid.parse({"doses": [0.1, 0.2, 0.5, 1.0]})
CASES = 20  # at each dose
CARD = Card.parse(
    {
        "of": "saliency", "version": "2", "family": "gpt", "norm_placement": "pre", "domain": "marks", "parameters": 9_000,
        "conditions": "as planned", "n": 280, "exam": "places", "limit_unit": "dose",
        "rates": {"first": 0.9, "slope on behaviour": 0.8},
        "intervals": {"first": {"low": 0.8, "high": 0.95, "method": "made up"}},
        "limit_of_detection": 0.3, "limit_words": "within the range", "limit_interval": {"low": 0.2, "high": 0.45, "method": "made up"},
        "curve": [(0.0, 0.05, 0.0), (0.1, 0.2, 0.1), (0.2, 0.5, 0.2), (0.5, 0.95, 0.5), (1.0, 1.0, 0.99)],
    }
)  # fmt: skip


def changed(**fields: Any) -> Card:
    return CARD.model_copy(update=fields)


def curve(place: int, share: float, effect: float) -> tuple[tuple[float, float, float], ...]:
    points = list(CARD.curve)
    points[place] = (points[place][0], share, effect)
    return tuple(points)


def test_shipped_cards_agree_with_themselves() -> None:
    exam_cards = [card for card in shipped() if card.exam]
    assert exam_cards
    assert all(disagreements(card, card, GRID) == [] for card in exam_cards)


@pytest.mark.parametrize(
    "now",
    [
        changed(code="of another day", seconds_an_item=3.0),
        changed(rates={"first": 0.7, "slope on behaviour": 0.85}, intervals={"first": Interval(low=0.5, high=0.82, method="made up")}),
        changed(limit_of_detection=0.21, limit_interval=Interval(low=0.1, high=0.3, method="made up")),
        changed(curve=curve(2, 0.7, 0.22)),
        changed(rates={"first": 0.82, "slope on behaviour": 0.8}, intervals={}),
    ],
    ids=["code and seconds", "rates", "limit", "curve", "an interval on one card only"],
)
def test_what_drawing_anew_moves_is_let_pass(now: Card) -> None:
    assert disagreements(CARD, now, GRID) == disagreements(now, CARD, GRID) == []


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (changed(n=279), "n was 280 and is 279"),
        (changed(parameters=9_001), "parameters was 9000 and is 9001"),
        (changed(rates={"first": 0.9}), "rates on one card only: slope on behaviour"),
        (changed(rates={"first": 0.9, "slope on behaviour": 0.6}), "slope on behaviour was 0.8 and is 0.6"),
        (
            changed(rates={"first": 0.6, "slope on behaviour": 0.8}, intervals={"first": Interval(low=0.5, high=0.7, method="made up")}),
            "first was 0.9 and is 0.6",
        ),
        (changed(rates={"first": 0.78, "slope on behaviour": 0.8}, intervals={}), "first was 0.9 and is 0.78"),
        (changed(curve=curve(2, 0.0, 0.2)), f"at dose 0.2, 10 of {CASES} cases were found and 0 are"),
        (changed(curve=curve(0, 0.2, 0.0)), "at dose 0, 10 of 200 cases were found and 40 are"),
        (changed(curve=curve(4, 1.0, 0.5)), "at dose 1 the behaviour moved by 0.99 and moves by 0.5"),
        (changed(curve=CARD.curve[1:]), "the doses were [0.0, 0.1, 0.2, 0.5, 1.0] and are [0.1, 0.2, 0.5, 1.0]"),
        (
            changed(limit_of_detection=0.95, limit_interval=Interval(low=0.4, high=2.0, method="made up")),
            "the limit of detection was 0.3 and is 0.95",
        ),
        (
            changed(limit_of_detection=0.5, limit_interval=Interval(low=0.46, high=0.6, method="made up")),
            "the limit of detection was 0.3 and is 0.5",
        ),
        (
            changed(limit_of_detection=None, limit_interval=None, limit_words="above the highest dose"),
            "the limit of detection was 0.3 and is above the highest dose",
        ),
    ],
)
def test_another_result_is_named(now: Card, said: str) -> None:
    assert said in disagreements(CARD, now, GRID)


def test_a_limit_at_the_edge_of_the_range_may_fall_outside_it() -> None:
    edge = changed(limit_of_detection=0.9, limit_interval=Interval(low=0.5, high=1.4, method="made up"))
    outside = changed(limit_of_detection=None, limit_interval=None, limit_words="above the highest dose")
    assert disagreements(edge, outside, GRID) == disagreements(outside, edge, GRID) == []
    below = outside.model_copy(update={"limit_words": "below the lowest dose"})
    assert disagreements(edge, below, GRID) == ["the limit of detection was 0.9 and is below the lowest dose"]
    assert disagreements(outside, below, GRID) == ["the limit of detection was above the highest dose and is below the lowest dose"]
