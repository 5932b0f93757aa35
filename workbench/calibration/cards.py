"""Calibration cards: those shipped, those measured in this home, and whether one applies to the model at hand.

``shipped/town.json`` is what ``benchmarks/town_seeds.py`` measured, ``shipped/places.json`` what ``workbench calibrate`` did: tools scored
on planted models and clean twins of several seeds, none of which is a seed that a shipped audit plan uses. Cards measured by a user lie in
the home's folder ``cards`` and come before the shipped ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from workbench.calibration.code import code_digest
from workbench.core.errors import CorruptFile, UnknownName
from workbench.core.finding import CALIBRATED, STALE, Card
from workbench.core.protocol import HookedModel

FORMAT = "assay-cards/1"
VERSION = "3"
"""Of an exam's cards: how its rows are made a card. It changes with that."""
NONE = "not calibrated here"
FOLDER = "cards"
RENAMED = {("heads", "marks"): "marks passed on"}
"""Input domains by (exam, the name that cards of before have). Two exams had one name for theirs, and each other's cards stood there."""


@lru_cache(maxsize=1)
def shipped() -> tuple[Card, ...]:
    """All shipped cards. Raises CorruptFile for a file that is not in the format."""
    folder = resources.files("workbench.calibration") / "shipped"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda file: file.name)
    return tuple(card for file in files for card in parsed(file.read_text(encoding="utf-8"), file.name))


def measured(home: Path) -> tuple[Card, ...]:
    """The cards measured in a home, input domains by the names they have now. Raises CorruptFile."""
    files = sorted((home / FOLDER).glob("*.json"))
    found = (card for file in files for card in parsed(file.read_text(encoding="utf-8"), str(file)))
    return tuple(card.model_copy(update={"domain": RENAMED.get((card.exam, card.domain), card.domain)}) for card in found)


def parsed(text: str, name: str) -> tuple[Card, ...]:
    """The cards of one file. Raises CorruptFile naming it."""
    try:
        whole = json.loads(text)
        stated = whole.get("format")
    except (ValueError, AttributeError):
        raise CorruptFile(name, f"in format {FORMAT}", "it is not a JSON object") from None
    if stated != FORMAT:
        raise CorruptFile(name, f"in format {FORMAT}", f"its format is {stated!r}")
    return tuple(Card.parse(card, what=f"a calibration card of {name}") for card in whole["cards"])


def is_stale(card: Card) -> bool:
    """Whether the tool's code, or how an exam's rows are made a card, has changed since the card was measured. A card that does not say of
    which code it is counts as current; one of a tool that is no longer there is stale."""
    if not card.code:
        return False
    if card.exam and card.version != VERSION:
        return True
    try:
        return code_digest(card.of) != card.code
    except UnknownName:
        return True


def dump(cards: Sequence[Card]) -> str:
    """The cards as the text of a file of cards."""
    return json.dumps({"format": FORMAT, "cards": [card.model_dump(mode="json") for card in cards]}, indent=1, sort_keys=True) + "\n"


def scope_of(model: HookedModel, domain: str) -> dict[str, Any]:
    """What a card says of the models it was measured on: family, norm placement, input domain, parameters."""
    parameters = sum(p.numel() for p in getattr(model, "parameters", list)())
    return {
        "family": model.family, "norm_placement": str(getattr(model.config, "norm_placement", "unknown")), "domain": domain,
        "parameters": max(1, parameters),
    }  # fmt: skip


def profile_of(model: HookedModel, domain: str) -> dict[str, Any]:
    """What decides whether a card applies to a model: its scope, and which model it is (``model``, its digest)."""
    return {**scope_of(model, domain), "model": model.digest()}


def card_for(name: str, profile: Mapping[str, Any], cards: Sequence[Card] | None = None) -> tuple[Card | None, str]:
    """The card of suite or instrument ``name`` that applies to a model of this profile, or None and the reason in words. A card about that
    very model comes before general ones. A stale card still stands, and its words say so."""
    own = sorted((card for card in (shipped() if cards is None else cards) if card.of == name), key=lambda card: not card.about)
    if not own:
        return None, f"{NONE}: no card was measured for {name}"
    objections = [card.objections(**profile) for card in own]
    for card, against in zip(own, objections, strict=True):
        if not against:
            return card, f"{CALIBRATED}{card.conditions}{STALE if is_stale(card) else ''}"
    nearest = min(zip(own, objections, strict=True), key=lambda pair: (len(pair[1]), bool(pair[0].about)))  # of equals a general one
    return None, f"{NONE}: {'; '.join(nearest[1])}"
