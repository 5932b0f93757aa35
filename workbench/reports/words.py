"""The words of a report in one language: a file of ``languages/`` read once, every key checked against English.

What a suite, a finding or a table says is data and stays as it is; what the report itself says is here and nowhere else.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml

from workbench.core.errors import CorruptFile, UnknownName

ENGLISH = "en"
_FOLDER = resources.files("workbench.reports") / "languages"


def languages() -> list[str]:
    """The languages a report can be written in, by their short names."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _FOLDER.iterdir() if entry.name.endswith(".yaml"))


class Words:
    """The phrases of one language by dotted key: ``words("page.title")``, with ``{names}`` filled in."""

    def __init__(self, name: str, phrases: Mapping[str, Any]) -> None:
        self.name = name
        self._phrases = dict(phrases)

    def __call__(self, key: str, **values: Any) -> str:
        return str(self._phrases[key]).format(**values) if values else str(self._phrases[key])

    def list(self, key: str) -> tuple[str, ...]:
        """A phrase that is a list, such as the heads of a table."""
        return tuple(self._phrases[key])

    @property
    def tag(self) -> str:
        """The language as HTML, PDF and screen readers name it: ``en``, ``zh-Hans``."""
        return self("language.tag")

    def names(self) -> frozenset[str]:
        """Every key there is."""
        return frozenset(self._phrases)


@cache
def words_of(language: str = ENGLISH) -> Words:
    """The words of ``language``. Raises UnknownName for another language, CorruptFile where its file does not match the English one."""
    if language not in languages():
        raise UnknownName("language", language, languages())
    phrases = flat(yaml.safe_load((_FOLDER / f"{language}.yaml").read_text(encoding="utf-8")))
    if language != ENGLISH and (wrong := mismatches(flat_english(), phrases)):
        raise CorruptFile(f"languages/{language}.yaml", "with the keys and {names} of en.yaml", "; ".join(wrong[:3]))
    return Words(language, phrases)


@cache
def flat_english() -> dict[str, Any]:
    """English phrases by dotted key."""
    return flat(yaml.safe_load((_FOLDER / f"{ENGLISH}.yaml").read_text(encoding="utf-8")))


def flat(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Groups of phrases as one mapping with keys ``group.name``."""
    return {f"{group}.{name}": text for group, phrases in groups.items() for name, text in phrases.items()}


def mismatches(english: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What keeps ``other`` from standing in for ``english``: keys too few or too many, other {names}, lists of other length."""
    out = [f"'{key}' is missing" for key in english if key not in other]
    out += [f"'{key}' is not in en.yaml" for key in other if key not in english]
    for key in [key for key in english if key in other]:
        one, two = english[key], other[key]
        if isinstance(one, list) != isinstance(two, list) or (isinstance(one, list) and len(one) != len(two)):
            out.append(f"'{key}' is not a list of the same length")
        elif not isinstance(one, list) and names_in(str(one)) != names_in(str(two)):
            out.append(f"'{key}' does not name {sorted(names_in(str(one)) ^ names_in(str(two)))} as en.yaml does")
    return out


def names_in(text: str) -> set[str]:
    """The ``{names}`` that a phrase fills in."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
