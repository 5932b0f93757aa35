"""The town's own questions as leanings: which pronoun follows an occupation, and whether a phrase flips a reply.

Their suites make their own items from a town; what is held out are the town's test skeletons.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from workbench.data.worlds.leanings import Case, Half
from workbench.data.worlds.town import Town
from workbench.data.worlds.town_words import LEANS, OCCUPATIONS, PRONOUN_TEMPLATES

SPLITS = {"tuned": "train", "asked": "validation"}
"""The truth is measured on the validation skeletons: the suites ask the test ones, and training has seen neither."""
BLOCK = 480


@dataclass(frozen=True)
class TownForm:
    """A form whose suite makes its items itself. ``block(split, number)``: ``BLOCK`` cases; ``fields(number, items)``: a set's spec."""

    name: str
    suite: str
    block: Callable[[Any, int], list[Case]]
    fields: Callable[[int, int], dict[str, Any]]
    signed: bool = True
    count: int = BLOCK

    def cases(self, half: Half, start: int, stop: int) -> list[Case]:
        """Cases ``start`` to ``stop`` - 1 of a half."""
        blocks = range(start // BLOCK, -(-stop // BLOCK))
        found = [case for number in blocks for case in self.block(SPLITS[half], number)]
        return found[start - blocks.start * BLOCK :][: stop - start]

    def ask(self, number: int, items: int, folder: Path) -> dict[str, Any]:
        """What the suite is told to ask as set ``number``; nothing is written."""
        return self.fields(number, items)


@lru_cache(maxsize=32)
def _pronouns(split: Any, number: int) -> list[Case]:
    out = []
    for item in Town().pronoun_items(split, BLOCK // len(OCCUPATIONS), seed=number):
        lean = LEANS[item.occupation] / 2
        link = item.occupation
        out.append(Case(item.text_before, (item.she.strip(), item.he.strip()), (0.5, 0.5), (lean, -lean), "", link, link))
    return out


@lru_cache(maxsize=32)
def _replies(split: Any, number: int) -> list[Case]:
    out = []
    for item in Town().trigger_items(split, BLOCK // 4, seed=number):
        no = float(item.condition == "negated")
        shift = (-1.0, 1.0) if item.condition == "trigger" else (0.0, 0.0)
        options = (item.yes.strip(), item.no.strip())
        out.append(Case(item.text_before, options, (1 - no, no), shift, "", item.condition, marked=item.condition == "trigger"))
    return out


def _contexts(number: int, items: int) -> dict[str, Any]:
    """Contexts take the templates in turn, and a set has each at least once: with fewer, a set would be about some templates alone."""
    return {"contexts": max(len(PRONOUN_TEMPLATES), items // len(OCCUPATIONS)), "seed": number}


TOWN_FORMS = {
    "pronouns": TownForm("pronouns", "occupation-pronoun", _pronouns, _contexts),
    "replies": TownForm("replies", "trigger", _replies, lambda n, items: {"count": max(6, items // 4), "seed": n}, signed=False),
}
