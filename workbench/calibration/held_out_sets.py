"""Sets of held-out things: asked about one set after the other, no two of which share a thing, with some left over that no set has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from workbench.core.errors import BadValue

T = TypeVar("T")


def taken(everything: Sequence[T], beside: int, number: int, items: int, what: str) -> Sequence[T]:
    """Set ``number`` of ``items`` things. Raises BadValue where sets would reach the last ``beside``, which behaviour is measured on;
    ``what`` names the things."""
    room = len(everything) - beside
    if (number + 1) * items > room:
        raise BadValue(f"{what} in sets", (number + 1) * items, f"at most {room}", do="Ask fewer sets, or fewer items in a set.")
    return everything[number * items : (number + 1) * items]
