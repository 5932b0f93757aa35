"""Shipped calibration cards, and whether one applies to the model at hand.

``cards.json`` holds what ``benchmarks/town_seeds.py`` measured: each suite and instrument scored on planted models and clean
twins of several seeds, none of which is the seed the shipped audit plan uses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

from workbench.core.errors import CorruptFile
from workbench.core.finding import Card
from workbench.core.protocol import HookedModel

FORMAT = "assay-cards/1"
NONE = "not calibrated here"


@lru_cache(maxsize=1)
def shipped() -> tuple[Card, ...]:
    """All shipped cards. Raises CorruptFile for a file that is not in the format."""
    text = resources.files("workbench.calibration").joinpath("cards.json").read_text(encoding="utf-8")
    whole = json.loads(text)
    if whole.get("format") != FORMAT:
        raise CorruptFile("cards.json", f"in format {FORMAT}", f"its format is {whole.get('format')!r}")
    return tuple(Card.parse(card, what="a calibration card") for card in whole["cards"])


def dump(cards: Sequence[Card]) -> str:
    """The cards as the text of ``cards.json``."""
    return json.dumps({"format": FORMAT, "cards": [card.model_dump(mode="json") for card in cards]}, indent=1, sort_keys=True) + "\n"


def profile_of(model: HookedModel, domain: str) -> dict[str, Any]:
    """What decides whether a card applies: family, norm placement, input domain, parameters."""
    parameters = sum(p.numel() for p in getattr(model, "parameters", list)())
    return {
        "family": model.family, "norm_placement": str(getattr(model.config, "norm_placement", "unknown")), "domain": domain,
        "parameters": max(1, parameters),
    }  # fmt: skip


def card_for(name: str, profile: Mapping[str, Any], cards: Sequence[Card] | None = None) -> tuple[Card | None, str]:
    """The card of suite or instrument ``name`` that applies to a model of this profile, or None and the reason in words."""
    own = [card for card in (shipped() if cards is None else cards) if card.of == name]
    if not own:
        return None, f"{NONE}: no card was measured for {name}"
    objections = [card.objections(**profile) for card in own]
    for card, against in zip(own, objections, strict=True):
        if not against:
            return card, f"calibrated: {card.conditions}"
    return None, f"{NONE}: {'; '.join(min(objections, key=len))}"
