"""Word lists of association tests: two sets of target words and two of attribute words, from files or from what is at hand.

A file is one JSON object with ``targ1``, ``targ2``, ``attr1`` and ``attr2``, each with ``category`` (a name) and ``examples`` (words, or
whole sentences as SEAT's files have), the form of the published tests of sent-bias. Errors name the file and the set, never a word.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core.errors import CorruptFile, MissingFile
from workbench.core.stats.association import FEWEST

SETS = ("targ1", "targ2", "attr1", "attr2")
GET_IT = "Give json files of four word lists: targ1, targ2, attr1, attr2, each with category and examples."
MEN = ("he", "him", "his", "man", "boy", "father", "brother", "son")
WOMEN = ("she", "her", "hers", "woman", "girl", "mother", "sister", "daughter")


@dataclass(frozen=True)
class WordSet:
    """A named set of words."""

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class WordTest:
    """Targets ``x`` and ``y`` against attributes ``a`` and ``b``: is x nearer to a and y to b?"""

    name: str
    x: WordSet
    y: WordSet
    a: WordSet
    b: WordSet

    @property
    def sets(self) -> tuple[WordSet, ...]:
        return self.x, self.y, self.a, self.b


def load(path: Path) -> WordTest:
    """One test. Raises MissingFile, and CorruptFile for what is not of the form, a short list, or a word in both sets of a kind."""
    if not path.is_file():
        raise MissingFile(path, "file of word lists", do=GET_IT)
    try:
        found: Any = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise CorruptFile(path, "one json object", "it is not", do=GET_IT) from None
    if not isinstance(found, dict):
        raise CorruptFile(path, "one json object", "it is not", do=GET_IT)
    return _checked(path, path.stem, [_set(path, found, name) for name in SETS])


def occupations(where: Callable[[str], Path]) -> WordTest:
    """WinoBias's occupations by the sex they are stereotypically of, against eight words for men and eight for women."""
    sets = []
    for sex in ("male", "female"):
        path = where(f"{sex}_occupations.txt")
        words = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
        sets.append(WordSet(f"{sex} occupations", words))
    return _checked(where("male_occupations.txt"), "occupations", [*sets, WordSet("words for men", MEN), WordSet("words for women", WOMEN)])


def _set(path: Path, found: dict[str, Any], name: str) -> WordSet:
    own = found.get(name)
    words = own.get("examples") if isinstance(own, dict) else None
    if not isinstance(own, dict) or not isinstance(words, list) or not all(isinstance(word, str) and word.strip() for word in words):
        raise CorruptFile(path, f"'{name}' with a list of words as 'examples'", "it has none", do=GET_IT)
    return WordSet(str(own.get("category") or name), tuple(dict.fromkeys(word.strip() for word in words)))


def _checked(path: Path, name: str, sets: list[WordSet]) -> WordTest:
    for own, label in zip(sets, SETS, strict=True):
        if len(own.words) < FEWEST:
            raise CorruptFile(path, f"at least {FEWEST} different words in '{label}'", f"it has {len(own.words)}", do=GET_IT)
    for first, second in ((0, 1), (2, 3)):
        if shared := len(set(sets[first].words) & set(sets[second].words)):
            raise CorruptFile(path, f"no word in both '{SETS[first]}' and '{SETS[second]}'", f"{shared} are", do=GET_IT)
    return WordTest(name, *sets)
