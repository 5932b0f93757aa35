"""Lazy catalogues: a name, where the thing lives, what it is in ten words, and how far to trust it.

A catalogue is a table that can be read on one screen. Nothing listed is imported until it is used; this
module imports the standard library only, so `workbench --help` stays fast.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from workbench.core.errors import UnknownName

Status = Literal["headline", "standard", "experimental"]
STANDINGS: Mapping[str, tuple[Status, ...]] = {
    "headline": ("headline",), "standard": ("headline", "standard"), "experimental": ("headline", "standard", "experimental"),
}  # fmt: skip
"""What may be asked of a whole catalogue at once, and the statuses that it takes in: those from this one up."""
_ORDER = {"headline": 0, "standard": 1, "experimental": 2}


@dataclass(frozen=True)
class Entry:
    """One line of a catalogue.

    ``target`` is ``"module:object"``. ``status`` is *headline* (card, page, speed row and bad-input tests;
    first in reports and gates), *standard*, or *experimental* (never in a gate).
    """

    name: str
    target: str
    words: str
    status: Status

    def __post_init__(self) -> None:
        if self.status not in _ORDER:
            raise ValueError(f"catalogue entry '{self.name}' has status {self.status!r}; allowed: {sorted(_ORDER)}")
        if self.target.count(":") != 1:
            raise ValueError(f"catalogue entry '{self.name}' has target {self.target!r}; it must be 'module:object'")
        if not 1 <= len(self.words.split()) <= 10:
            raise ValueError(f"catalogue entry '{self.name}' is described in {len(self.words.split())} words; at most ten")

    def load(self) -> Any:
        """Import the module and return the object."""
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)


class Catalog(Mapping[str, Entry]):
    """An immutable table of entries; iteration is headline first, then by name.

    >>> c = Catalog("suite", {"sums": ("math:fsum", "adds up", "standard")})
    >>> c.load("sums")([1.0, 2.0])
    3.0
    """

    def __init__(self, kind: str, lines: Mapping[str, tuple[str, str, Status]]) -> None:
        self.kind = kind
        entries = [Entry(name, *line) for name, line in lines.items()]
        self._entries = {e.name: e for e in sorted(entries, key=lambda e: (_ORDER[e.status], e.name))}

    def __getitem__(self, name: str) -> Entry:
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownName(self.kind, name, self._entries) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def get(self, name: str, default: Any = None) -> Any:
        return self._entries.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def load(self, name: str) -> Any:
        """The object behind ``name``; raises UnknownName with the nearest names."""
        return self[name].load()
