"""The public data sets, as the shells show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.core.errors import CorruptFile
from workbench.core.protocol import Progress, silent
from workbench.data import sources


def listed() -> list[dict[str, Any]]:
    """Every registered set, as plain values; ``state`` is *here*, *not here* or *wrong* (there, but not what it must be)."""
    out = []
    for name, one in sources.SOURCES.items():
        try:
            state = "here" if sources.available(name) else "not here"
        except CorruptFile:
            state = "wrong"
        facts = {field: getattr(one, field) for field in ("items", "licence", "citation", "page", "warning")}
        out.append({"name": name, "state": state, **facts, "bytes": sum(file.size for file in one.files)})
    return out


def first_lines(name: str, *, lines: int = 6, files: int = 4) -> list[tuple[str, str]]:
    """(file, its first lines) of the set's first text files. Raises UnknownName, MissingData and CorruptFile; it hashes what it reads."""
    out = []
    for one in sources.source(name).files:
        if len(out) == files:
            break
        place = sources.path(name, one.name)
        with place.open("rb") as opened:
            start = opened.read(1 << 16)
        try:
            text = start.decode("utf-8", errors="ignore" if len(start) == 1 << 16 else "strict")
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            out.append((one.name, "\n".join(line[:400] for line in text.splitlines()[:lines])))
    return out


def fetch(names: Sequence[str], *, progress: Progress = silent) -> dict[str, list[str]]:
    """Download sets and return the paths of their files. Every name is checked before the first is fetched."""
    for name in names:
        sources.source(name)
    return {name: [str(place) for place in sources.fetch(name, progress)] for name in dict.fromkeys(names)}


def verify(names: Sequence[str] = ()) -> dict[str, list[str]]:
    """Hash the files of sets again (none named: of all that are here). Raises CorruptFile, MissingData, UnknownName."""
    for name in names:
        sources.source(name)
    chosen = list(dict.fromkeys(names)) or [one["name"] for one in listed() if one["state"] != "not here"]
    return {name: [str(place) for place in sources.verify(name)] for name in chosen}
