"""What is known of a public data set: its files, their addresses and hashes, licence, citation, and what a reader may meet in it."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.core.errors import BadValue, UnknownName

RAW = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class SourceFile:
    """One file of a set: its name in mirror and cache, its address, and what its content must be.

    With ``members`` (globs) the file is a zip of those members of the zip at ``url``, without their folders. What it must be is then
    said of what is in it, however it was packed: ``size`` is the members' bytes together, ``sha256`` that of ``name sha256`` lines
    in the order of the names.
    """

    name: str
    url: str
    sha256: str
    size: int
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """One public set. ``items`` says how many of what; ``warning`` what a reader may meet in it ("" for nothing)."""

    name: str
    files: tuple[SourceFile, ...]
    page: str
    licence: str
    citation: str
    items: str
    warning: str = ""

    def file(self, name: str | None) -> SourceFile:
        """The file of that name, or the only one. Raises UnknownName, or BadValue where a name is needed."""
        if name is None:
            if len(self.files) != 1:
                raise BadValue("file", None, f"one of {', '.join(f.name for f in self.files)}")
            return self.files[0]
        for found in self.files:
            if found.name == name:
                return found
        raise UnknownName("file", name, [f.name for f in self.files], where=f"in the data set '{self.name}'")
