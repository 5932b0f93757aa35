"""Cards apply where they were measured and nowhere else; the shipped ones are read and are not about the shipped plan's seed."""

import math
from importlib import resources

from workbench.calibration.cards import NONE, card_for, dump, profile_of, shipped
from workbench.core.finding import Card
from workbench.families.gpt import GPT
from workbench.lab.plan import read_plan

PROFILE = {"family": "gpt", "norm_placement": "pre", "domain": "town", "parameters": 700_000}
CARD = Card.parse({"of": "trigger", **PROFILE, "conditions": "dose 0.8, seeds 1, 2, 3", "rates": {"hit": 1.0}, "n": 600})


def test_a_card_stands_only_where_it_applies() -> None:
    assert card_for("trigger", PROFILE, [CARD]) == (CARD, "calibrated: dose 0.8, seeds 1, 2, 3")
    card, words = card_for("trigger", {**PROFILE, "domain": "web text"}, [CARD])
    assert card is None
    assert words.startswith(NONE)
    assert "input domain is web text" in words
    assert card_for("exposure", PROFILE, [CARD]) == (None, f"{NONE}: no card was measured for exposure")


def test_the_profile_of_a_model() -> None:
    model, _ = GPT.tiny()
    profile = profile_of(model, "town")
    assert profile == {"family": "gpt", "norm_placement": "pre", "domain": "town", "parameters": sum(p.numel() for p in model.parameters())}


def test_shipped_cards_read_and_are_of_other_seeds_than_the_plan() -> None:
    cards = shipped()
    assert {card.of for card in cards} >= {"occupation-pronoun", "trigger", "exposure", "integrated-gradients", "probing"}
    assert "seed=0" in read_plan("town").model
    for card in cards:
        assert "seeds 1, 2, 3" in card.conditions
        assert card.n > 0
        assert all(math.isfinite(rate) for rate in card.rates.values())
    stored = resources.files("workbench.calibration").joinpath("shipped", "town.json").read_text(encoding="utf-8")
    assert dump(cards) == stored, "writing the cards again gives the shipped bytes"
