"""Files and tensors by content: an artifact's name is the sha256 of its bytes.

Laid out as ``artifacts/ab/cd/abcd…``. Written under a temporary name and renamed, so a reader sees a whole artifact
or none; every read is checked against the name.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from workbench.core.errors import BadValue, CorruptFile, MissingFile, StoreError

_DIGEST = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20


class Artifacts:
    """The artifacts below one folder. Safe with several processes: equal content has one name, and a rename is whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, content: bytes | Path) -> str:
        """Store ``content`` (bytes, or the file at a path) and return its sha256 (hex). Storing it again changes nothing."""
        if isinstance(content, Path) and not content.is_file():
            raise MissingFile(content, "file to store as an artifact")
        try:
            return self._write(content)
        except OSError as error:
            raise StoreError("An artifact could not be written", f"{error.strerror or error} at '{self.folder}'") from error

    def path(self, digest: str) -> Path:
        """Where the artifact lies, after checking its bytes. Raises MissingFile or CorruptFile."""
        place = self._place(digest)
        if not place.is_file():
            raise MissingFile(place, f"artifact {digest[:12]}…", do="It was never stored here, or was removed.")
        found = _sha256(place)
        if found != digest:
            raise CorruptFile(place, f"of sha256 {digest[:12]}…", f"its bytes have {found[:12]}…", do="Compute it again.")
        return place

    def read(self, digest: str) -> bytes:
        """The artifact's bytes, checked."""
        return self.path(digest).read_bytes()

    def __contains__(self, digest: str) -> bool:
        return _DIGEST.fullmatch(digest) is not None and self._place(digest).is_file()

    def __iter__(self) -> Iterator[str]:
        """The digests that are stored, sorted."""
        yield from sorted(p.name for p in self.folder.glob("??/??/*") if _DIGEST.fullmatch(p.name))

    def _place(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise BadValue("the artifact's digest", digest, "64 hexadecimal digits (a sha256)")
        return self.folder / digest[:2] / digest[2:4] / digest

    def _write(self, content: bytes | Path) -> str:
        self.folder.mkdir(parents=True, exist_ok=True)
        name = self.folder / f".new-{secrets.token_hex(8)}"  # made by open, so that the umask decides who may read it
        try:
            with name.open("xb") as out:
                digest = hashlib.sha256()
                for part in _parts(content):  # hashed as it is written: the source may change under us
                    digest.update(part)
                    out.write(part)
                out.flush()
                os.fsync(out.fileno())
            place = self._place(digest.hexdigest())
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(name, place)
        except BaseException:
            name.unlink(missing_ok=True)
            raise
        return digest.hexdigest()


def _parts(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as source:
        while part := source.read(_CHUNK):
            yield part


def _sha256(place: Path) -> str:
    digest = hashlib.sha256()
    for part in _parts(place):
        digest.update(part)
    return digest.hexdigest()
