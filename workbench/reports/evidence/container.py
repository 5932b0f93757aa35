"""The container of an evidence bundle: a zip of one fixed form, so that the same entries have the same bytes and no other zip passes.

Entries are stored without compression, sorted by name, with one fixed time, no comment and no extra field; then the central directory
and its end. Reading takes nothing from the central directory: entries are walked one after the other from the first byte, and what
must follow them is built anew and compared. So a name that leaves the folder, an entry given twice, a compressed entry (a zip bomb),
bytes between entries and bytes after the end are each refused, and a changed byte is named by the entry it lies in.

Layout of the records: APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from workbench.core.errors import BadValue

MOST_BYTES, MOST_ENTRIES, MOST_LETTERS = 2 << 30, 20_000, 240
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@=+-]*(/[A-Za-z0-9_][A-Za-z0-9._@=+-]*)*")
_LOCAL, _CENTRAL, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_FIXED = (20, 0, 0, 0, 0x21)
"""Version needed, flags, method (stored), time, date (1980-01-01)."""
_HEAD = struct.Struct("<5H")
_LOCAL_SIZE = 4 + _HEAD.size + struct.calcsize("<IIIHH")
_FILE = 0o100644 << 16


@dataclass(frozen=True)
class Fault:
    """Something that is not as it must be: where (an entry, or a part of the container) and what is wrong. Its text is safe to print."""

    where: str
    words: str

    def __str__(self) -> str:
        return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in f"{self.where}: {self.words}")


def check_name(name: str) -> None:
    """Raise BadValue unless ``name`` is a plain relative path: no ``..``, no leading ``/`` or dot, no backslash, ASCII."""
    if len(name) > MOST_LETTERS or not _NAME.fullmatch(name):
        raise BadValue(
            "an entry's name", name[:80], f"a relative path of letters, digits and . _ @ = + - in at most {MOST_LETTERS} characters"
        )


def pack(entries: Mapping[str, bytes]) -> bytes:
    """The container of ``entries`` by name: equal entries, equal bytes. Raises BadValue for a name or a size that cannot be held."""
    if not 1 <= len(entries) <= MOST_ENTRIES:
        raise BadValue("the number of entries", len(entries), f"1 to {MOST_ENTRIES}")
    if (total := sum(map(len, entries.values()))) > MOST_BYTES:
        raise BadValue("the bundle's size", f"{total:,} bytes", f"at most {MOST_BYTES:,}")
    parts: list[bytes] = []
    places: list[tuple[str, bytes, int]] = []
    offset = 0
    for name in sorted(entries):
        check_name(name)
        content = entries[name]
        head = _local(name, content)
        places.append((name, content, offset))
        parts += [head, content]
        offset += len(head) + len(content)
    return b"".join([*parts, _directory(places, offset)])


def unpack(data: bytes) -> tuple[dict[str, bytes], list[Fault]]:
    """The entries of a container and everything that is wrong with it; only with no fault are its bytes those of ``pack(entries)``.

    Walking stops where the next entry cannot be told, so after a fault of the frame later entries may be missing.
    """
    if len(data) > MOST_BYTES + (MOST_ENTRIES << 9):
        return {}, [Fault("container", f"{len(data):,} bytes are more than a bundle holds")]
    entries: dict[str, bytes] = {}
    places: list[tuple[str, bytes, int]] = []
    faults: list[Fault] = []
    offset, before = 0, ""
    while data[offset : offset + 4] == _LOCAL:
        where = f"entry {len(entries) + 1} (after '{before}')" if before else "entry 1"
        found = _entry(data, offset)
        if isinstance(found, str):
            return entries, [*faults, Fault(where, found)]
        name, content, crc, end = found
        if name <= before:
            wrong = "it is there twice" if name in entries else f"it stands after '{before}', but names must be sorted"
            return entries, [*faults, Fault(name, wrong)]
        if zlib.crc32(content) != crc:
            faults.append(Fault(name, "its bytes are not those its checksum is of"))
        entries[name] = content
        places.append((name, content, offset))
        if len(entries) > MOST_ENTRIES:
            return entries, [*faults, Fault("container", f"more than {MOST_ENTRIES:,} entries")]
        offset, before = end, name
    if not entries:
        return entries, [Fault("container", "it does not begin with an entry: this is no evidence bundle")]
    fault = _end_fault(data, offset, places) if not faults else None
    return entries, [*faults, *([fault] if fault else [])]


def _entry(data: bytes, offset: int) -> tuple[str, bytes, int, int] | str:
    """Name, content, checksum and end of the entry at ``offset``, or what is wrong with it."""
    if len(data) < offset + _LOCAL_SIZE:
        return "it is cut short"
    fixed = _HEAD.unpack_from(data, offset + 4)
    crc, packed, size, letters, extra = struct.unpack_from("<IIIHH", data, offset + 4 + _HEAD.size)
    start = offset + _LOCAL_SIZE
    if letters > MOST_LETTERS or extra:
        return "its name is too long or it has an extra field, which no bundle has"
    raw = data[start : start + letters]
    name = raw.decode("ascii", "backslashreplace")
    try:
        check_name(name)
    except BadValue as error:
        return str(error).rstrip(".")
    if fixed[2] or packed != size:
        return f"'{name}' is compressed ({packed:,} bytes for {size:,}); a bundle stores its entries, so nothing in it can unfold"
    if fixed != _FIXED:
        return f"'{name}' has another version, flag or time than every entry of a bundle has"
    end = start + letters + size
    if end > len(data):
        return f"'{name}' is cut short: {len(data) - start - letters:,} of {size:,} bytes are there"
    return name, data[start + letters : end], crc, end


def _end_fault(data: bytes, offset: int, places: list[tuple[str, bytes, int]]) -> Fault | None:
    """What is wrong after the last entry, where the central directory must stand and nothing after it."""
    must, found = _directory(places, offset), data[offset:]
    if found == must:
        return None
    at = next((i for i, (a, b) in enumerate(zip(must, found, strict=False)) if a != b), min(len(must), len(found)))
    last = places[-1][0]
    if at == len(must):
        return Fault("container", f"{len(found) - len(must):,} bytes stand after its end")
    if at < 4:
        return Fault("container", f"after '{last}' (byte {offset + at:,}) stands neither an entry nor the directory")
    if at == len(found):
        return Fault("container", f"its directory is cut short after byte {offset + at:,}")
    return Fault("container", f"byte {offset + at:,} of its directory is not what the entries make it ({_directory_part(places, at)})")


def _directory_part(places: list[tuple[str, bytes, int]], at: int) -> str:
    passed = 0
    for name, content, offset in places:
        passed += len(_central(name, content, offset))
        if at < passed:
            return f"the record of '{name}'"
    return "the end record"


def _local(name: str, content: bytes) -> bytes:
    return _LOCAL + _shared(name, content) + name.encode("ascii")


def _shared(name: str, content: bytes) -> bytes:
    size = len(content)
    return _HEAD.pack(*_FIXED) + struct.pack("<IIIHH", zlib.crc32(content), size, size, len(name), 0)


def _central(name: str, content: bytes, offset: int) -> bytes:
    made_by = (3 << 8) | 20  # Unix, so that the file's mode below means something
    return (
        _CENTRAL
        + struct.pack("<H", made_by)
        + _shared(name, content)
        + struct.pack("<HHHII", 0, 0, 0, _FILE, offset)
        + name.encode("ascii")
    )


def _directory(places: list[tuple[str, bytes, int]], offset: int) -> bytes:
    records = b"".join(_central(*place) for place in places)
    n = len(places)
    return records + _END + struct.pack("<HHHHIIH", 0, 0, n, n, len(records), offset, 0)
