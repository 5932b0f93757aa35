"""From rules to sentences: expanding templates by counter-based draws, and setting words as text with their places."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from workbench.data.counter import Draw, key_of
from workbench.data.worlds.town_words import DISTINCT, RULES

Splits = ("train", "validation", "test")
_BUCKETS = 10  # eight in ten skeletons belong to training, one each to validation and test
_SLOT = re.compile(r"\{(\w+)\}")
_ATTACHED = frozenset(".,:")
DECIDED = frozenset({"she", "her"})
MOST_TRIES = 400


class Word(NamedTuple):
    """One word or punctuation mark and the slot of the template it came from ("" for the template's own words)."""

    text: str
    slot: str = ""


@dataclass(frozen=True)
class Placed:
    """A sentence as text, with the character span ``(start, end)`` of each of its words."""

    text: str
    spans: tuple[tuple[int, int], ...]


def _compiled(pattern: str) -> tuple[tuple[str, bool], ...]:
    return tuple((m.group(1), True) if (m := _SLOT.fullmatch(part)) else (part, False) for part in pattern.split())


_RULES = {name: tuple(_compiled(alternative) for alternative in alternatives) for name, alternatives in RULES.items()}
_TEMPLATES: dict[str, tuple[tuple[str, bool], ...]] = {}


def _expand(slot: str, draw: Draw, used: set[tuple[str, ...]]) -> tuple[str, ...]:
    """One expansion of a rule, not in ``used`` where the slot must be distinct in its sentence."""
    while True:
        words: list[str] = []
        for part, is_slot in draw.pick(_RULES[slot]):
            if is_slot and part in _RULES:
                words += _expand(part, draw, used)
            else:
                words.append(f"{{{part}}}" if is_slot else part)
        found = tuple(words)
        if slot not in DISTINCT:
            return found
        if found not in used:
            used.add(found)
            return found


def fill(template: str, draw: Draw) -> list[Word]:
    """The template with every slot that has a rule expanded; slots without one stay as ``Word("{slot}", slot)``."""
    parts = _TEMPLATES.get(template)
    if parts is None:
        parts = _TEMPLATES[template] = _compiled(template)
    words: list[Word] = []
    used: set[tuple[str, ...]] = set()
    for part, is_slot in parts:
        if not is_slot:
            words.append(Word(part))
        elif part in _RULES:
            words += [Word(word, word[1:-1] if word[0] == "{" else part) for word in _expand(part, draw, used)]
        else:
            words.append(Word(f"{{{part}}}", part))
    return words


def phrase(slot: str, draw: Draw) -> tuple[str, ...]:
    """One expansion of a rule by itself."""
    return _expand(slot, draw, set())


def substituted(words: Sequence[Word], values: Mapping[str, str]) -> list[Word]:
    """``words`` with open slots replaced (by any number of words, also none)."""
    out: list[Word] = []
    for word in words:
        if word.slot in values and word.text.startswith("{"):
            out += [Word(text, word.slot) for text in values[word.slot].split()]
        else:
            out.append(word)
    return out


def skeleton_of(words: Sequence[Word]) -> str:
    """The words joined, open slots as they are, up to the pronoun's slot: what decides the split a sentence belongs to."""
    until = next((i for i, word in enumerate(words) if word.slot in DECIDED and word.text.startswith("{")), len(words))
    return " ".join(word.text for word in words[:until])


def split_of(words: Sequence[Word]) -> str:
    """The split a skeleton belongs to: 8 in 10 train, 1 in 10 validation, 1 in 10 test, by a hash of its words alone.

    Occupation, trigger phrase and what comes from the pronoun or reply on have no say in it, so a held-out context was never
    trained on, with whatever occupation, phrase or ending.
    """
    bucket = key_of("split", skeleton_of(words)) % _BUCKETS
    return "validation" if bucket == 8 else "test" if bucket == 9 else "train"


def sampled(templates: Sequence[str], split: str, draw: Draw) -> tuple[int, list[Word]]:
    """A template's index and its words, drawn again until the skeleton belongs to ``split``."""
    for _ in range(MOST_TRIES):
        index = draw.below(len(templates))
        words = fill(templates[index], draw)
        if split_of(words) == split:
            return index, words
    raise AssertionError(f"no skeleton of split '{split}' in {MOST_TRIES} draws")  # chance below 1e-18


def placed(words: Sequence[Word]) -> Placed:
    """The words as text: single spaces, none before punctuation."""
    pieces: list[str] = []
    spans: list[tuple[int, int]] = []
    at = 0
    for word in words:
        if at and word.text not in _ATTACHED:
            pieces.append(" ")
            at += 1
        pieces.append(word.text)
        spans.append((at, at + len(word.text)))
        at += len(word.text)
    return Placed("".join(pieces), tuple(spans))
