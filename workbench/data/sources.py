"""Public data sets: where each comes from, what it must hash to, its licence, and how to get it.

Nothing from elsewhere is part of the product. A file is read from the mirror folder (``WORKBENCH_DATA_MIRROR``, laid out as
``<set>/<file>``) if it is there, else from the cache (``WORKBENCH_HOME/data``, or the user's cache folder), and never unless its
sha256 is right. Only ``fetch`` uses the network. A mirror file whose content is wrong is an error, not a reason to look
elsewhere: two people with the same settings read the same bytes.
"""

from __future__ import annotations

import fnmatch
import hashlib
import http.client
import os
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from workbench.core.errors import CorruptFile, MissingData, UnknownName
from workbench.core.protocol import Progress, silent
from workbench.data.corpus_sources import CORPORA
from workbench.data.group_sources import GROUPS
from workbench.data.item_sources import ITEMS
from workbench.data.safety_sources import SAFETY
from workbench.data.source import Source, SourceFile

MIRROR, HOME = "WORKBENCH_DATA_MIRROR", "WORKBENCH_HOME"
TIMEOUT_S = 30.0
_CHUNK = 1 << 16
_ARCHIVE = 4  # an archive is at most so many times as large as what is taken from it

SOURCES: dict[str, Source] = {source.name: source for source in (*ITEMS, *CORPORA, *SAFETY, *GROUPS)}


def source(name: str) -> Source:
    """The set of that name. Raises UnknownName."""
    if name not in SOURCES:
        raise UnknownName("data set", name, SOURCES)
    return SOURCES[name]


def mirror_folder() -> Path | None:
    """The mirror, where one is set."""
    folder = os.environ.get(MIRROR, "")
    return Path(folder) if folder else None


def cache_folder() -> Path:
    """``WORKBENCH_HOME/data`` where set, else ``assay/data`` in the user's cache folder of this system."""
    home = os.environ.get(HOME, "")
    if home:
        return Path(home) / "data"
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "assay" / "data"


_verified: dict[Path, tuple[int, int, str]] = {}  # path → (mtime_ns, size, sha256): a file is hashed once a process while unchanged


def _sha256(path: Path, file: SourceFile, *, again: bool = False) -> str:
    state = path.stat()
    known = _verified.get(path)
    if known and not again and known[:2] == (state.st_mtime_ns, state.st_size):
        return known[2]
    if file.members:
        found = _packed_sha256(path, file)
    else:
        with path.open("rb") as handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
    _verified[path] = (state.st_mtime_ns, state.st_size, found)
    return found


def _packed_sha256(path: Path, file: SourceFile) -> str:
    """The sha256 of what is in a zip: names and contents. CorruptFile where it cannot be opened or holds too much."""
    whole = hashlib.sha256()
    try:
        with zipfile.ZipFile(path) as pack:
            held = sum(member.file_size for member in pack.infolist())
            if held > file.size:  # known before anything is unpacked
                raise CorruptFile(path, f"a zip of {file.size} bytes in all", f"it holds {held}")
            for name in sorted(pack.namelist()):
                whole.update(f"{name} {hashlib.sha256(pack.read(name)).hexdigest()}\n".encode())
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise CorruptFile(path, "a zip file", f"it is not ({error})") from None
    return whole.hexdigest()


def _check(path: Path, file: SourceFile, name: str, *, again: bool = False) -> Path:
    found = _sha256(path, file, again=again)
    if found != file.sha256:
        raise CorruptFile(
            path,
            f"of sha256 {file.sha256[:12]}…",
            f"its content has {found[:12]}… ({path.stat().st_size} bytes, expected {file.size})",
            do=f"Delete it, then run `workbench data fetch {name}`.",
        )
    return path


def _places(name: str, file: SourceFile) -> list[Path]:
    folders = [folder for folder in (mirror_folder(), cache_folder()) if folder is not None]
    return [folder / name / file.name for folder in folders]


def path(name: str, file: str | None = None) -> Path:
    """Where a verified file of a set is: mirror first, then cache. No network.

    Raises UnknownName for a set or file there is not, MissingData when it is in neither place, CorruptFile when its sha256 is wrong.
    """
    wanted = source(name).file(file)
    places = _places(name, wanted)
    for place in places:
        if place.is_file():
            return _check(place, wanted, name)
    raise MissingData(name, [str(place) for place in places])


def available(name: str) -> bool:
    """Whether every file of a set is mirrored or cached (a file that is there but wrong raises CorruptFile)."""
    try:
        for file in source(name).files:
            path(name, file.name)
    except MissingData:
        return False
    return True


def verify(name: str) -> list[Path]:
    """Hash every file of a set again, whatever is remembered, and return where they are. Raises as ``path`` does."""
    return [_check(path(name, file.name), file, name, again=True) for file in source(name).files]


def read_text(name: str, file: str | None = None) -> str:
    """A verified UTF-8 file, byte for byte (line ends are kept)."""
    return path(name, file).read_bytes().decode()


def fetch(name: str, progress: Progress = silent) -> list[Path]:
    """Download a set into the cache and return its paths; files already there and right are left alone.

    A file is written under a temporary name, its size and sha256 checked, then renamed: under its own name it is whole or absent.
    Raises MissingData when the network cannot give it, CorruptFile when what came is not it.
    """
    wanted = source(name)
    total = sum(file.size for file in wanted.files)
    done, paths = 0, []
    for file in wanted.files:
        place = cache_folder() / name / file.name
        if not (place.is_file() and _is_right(place, file)):
            _download(name, file, place, lambda got, before=done, words=file.name: progress(before + got, total, words))
        done += file.size
        progress(done, total, file.name)
        paths.append(place)
    return paths


def _is_right(place: Path, file: SourceFile) -> bool:
    try:
        return _sha256(place, file) == file.sha256
    except CorruptFile:
        return False


def _download(name: str, file: SourceFile, place: Path, heard: Callable[[int], None]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if file.members:
        _pack(name, file, place, heard)
        return
    handle, temporary = tempfile.mkstemp(dir=place.parent, prefix=f".{file.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as out:
            size, found = _copy(name, file, out, heard)
        if size != file.size or found != file.sha256:
            what = f"{size} bytes of sha256 {found[:12]}… came" if size >= file.size else f"only {size} bytes came"
            raise CorruptFile(file.url, f"{file.size} bytes of sha256 {file.sha256[:12]}…", what, do="Nothing was kept; try again.")
        os.replace(temporary, place)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _pack(name: str, file: SourceFile, place: Path, heard: Callable[[int], None]) -> None:
    """Download the archive, pack the chosen members under a temporary name, check what is in the pack, and rename it."""
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{file.name}.", suffix=".part") as folder:
        archive, made = Path(folder) / "archive.zip", Path(folder) / file.name
        with archive.open("wb") as out:
            _copy(name, replace(file, size=_ARCHIVE * file.size), out, heard)
        try:
            with zipfile.ZipFile(archive) as given, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as pack:
                chosen = [m for m in given.infolist() if any(fnmatch.fnmatchcase(m.filename, glob) for glob in file.members)]
                if sum(member.file_size for member in chosen) > file.size:
                    raise CorruptFile(file.url, f"an archive with {file.size} bytes of what is wanted", "it holds more")
                for member in chosen:
                    pack.writestr(member.filename.rsplit("/", 1)[-1], given.read(member))
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise CorruptFile(file.url, "a zip file", f"it is not ({error})", do="Nothing was kept; try again.") from None
        found = _packed_sha256(made, file)
        if found != file.sha256:
            raise CorruptFile(
                file.url,
                f"an archive whose chosen members have sha256 {file.sha256[:12]}…",
                f"they have {found[:12]}…",
                do="Nothing was kept.",
            )
        os.replace(made, place)


def _copy(name: str, file: SourceFile, out: BinaryIO, heard: Callable[[int], None]) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(file.url, timeout=TIMEOUT_S) as answer:
            while size <= file.size and (chunk := answer.read(_CHUNK)):  # an endless answer ends here too
                out.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                heard(min(size, file.size))
    except http.client.IncompleteRead as error:
        size += len(error.partial)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise MissingData(name, [file.url], reason=str(getattr(error, "reason", error))) from None
    return size, digest.hexdigest()
