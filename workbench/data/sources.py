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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from workbench.core.errors import BadValue, CorruptFile, MissingData, UnknownName
from workbench.core.protocol import Progress, silent

MIRROR, HOME = "WORKBENCH_DATA_MIRROR", "WORKBENCH_HOME"
TIMEOUT_S = 30.0
_CHUNK = 1 << 16
_ARCHIVE = 4  # an archive is at most so many times as large as what is taken from it
_RAW = "https://raw.githubusercontent.com"


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


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="crows-pairs",
            files=(
                SourceFile(
                    "crows_pairs_anonymized.csv",
                    f"{_RAW}/nyu-mll/crows-pairs/8aaac11c485473159ec9328a65253a5be9a479dc/data/crows_pairs_anonymized.csv",
                    "dfb36986ce0502abbaf7055b9176da3d08d48e07df1251991b5dfbcbceab9d0c",
                    437_764,
                ),
            ),
            page="https://github.com/nyu-mll/crows-pairs",
            licence="CC BY-SA 4.0",
            citation="Nangia, Vania, Bhalerao and Bowman, CrowS-Pairs: A Challenge Dataset for Measuring Social Biases in "
            "Masked Language Models, EMNLP 2020",
            items="1,508 sentence pairs",
            warning="stereotypes and offensive claims about groups of people",
        ),
        Source(
            name="tinyshakespeare",
            files=(
                SourceFile(
                    "input.txt",
                    f"{_RAW}/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
                    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                    1_115_394,
                ),
            ),
            page="https://github.com/karpathy/char-rnn",
            licence="public-domain text; the repository is MIT",
            citation="Karpathy, char-rnn, 2015",
            items="1,115,394 characters",
        ),
        Source(
            name="wikitext-2",
            files=(
                SourceFile(
                    "valid.txt",
                    f"{_RAW}/pytorch/examples/77f55b912142/word_language_model/data/wikitext-2/valid.txt",
                    "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
                    1_121_681,
                ),
            ),
            page="https://github.com/pytorch/examples/tree/main/word_language_model",
            licence="CC BY-SA 3.0 (Wikipedia text); the repository is BSD-3-Clause",
            citation="Merity, Xiong, Bradbury and Socher, Pointer Sentinel Mixture Models, ICLR 2017",
            items="217,646 tokens (the validation file)",
        ),
        Source(
            name="fsdd",
            files=(
                SourceFile(
                    "recordings.zip",
                    "https://codeload.github.com/Jakobovski/free-spoken-digit-dataset/zip/26eb9aaf76e8",
                    "2d5d3cf850bdf8cc1ded3dc085795ae409a4de5ad0bf5aa52e742d9923b17fb6",
                    13_657_820,
                    members=tuple(f"*/recordings/?_{speaker}_*.wav" for speaker in ("george", "jackson", "nicolas", "theo")),
                ),
            ),
            page="https://github.com/Jakobovski/free-spoken-digit-dataset",
            licence="CC BY-SA 4.0",
            citation="Jackson et al., Free Spoken Digit Dataset, Zenodo, 2018",
            items="2,000 recordings: 4 of its 6 speakers, 10 digits, 50 times each",
            warning="voices of named volunteers",
        ),
        Source(
            name="ud-english-ewt",
            files=(
                SourceFile(
                    "en_ewt-ud-dev.conllu",
                    f"{_RAW}/UniversalDependencies/UD_English-EWT/15d613d8447b/en_ewt-ud-dev.conllu",
                    "531a54ff90d6ab12201c5a50c3e78e6ddac4de69abc4bce5d275d3cd29efe2b6",
                    1_805_545,
                ),
                SourceFile(
                    "en_ewt-ud-test.conllu",
                    f"{_RAW}/UniversalDependencies/UD_English-EWT/15d613d8447b/en_ewt-ud-test.conllu",
                    "e266e515a0a7547657ed3d90d9ba46487d6bd251f27ad4269d4e8a427c8555cd",
                    1_804_515,
                ),
            ),
            page="https://github.com/UniversalDependencies/UD_English-EWT",
            licence="CC BY-SA 4.0",
            citation="Silveira et al., A Gold Standard Dependency Corpus for English, LREC 2014",
            items="2,001 and 2,077 sentences (the dev and the test file)",
            warning="web text as people wrote it",
        ),
        Source(
            name="toxic-spans",
            files=(
                SourceFile(
                    "tsd_train.csv",
                    f"{_RAW}/ipavlopoulos/toxic_spans/beaf170538df/SemEval2021/data/tsd_train.csv",
                    "b538ea2d64ed7c306ff8f010a25a5286bef6ce61d469042482ba64efc1ddd6cd",
                    2_281_497,
                ),
                SourceFile(
                    "tsd_trial.csv",
                    f"{_RAW}/ipavlopoulos/toxic_spans/beaf170538df/SemEval2021/data/tsd_trial.csv",
                    "6bb8e9a16470c0269ac8727fd8bb77df68d8fb27955d9f5ff29ad724505622e8",
                    185_506,
                ),
            ),
            page="https://github.com/ipavlopoulos/toxic_spans",
            licence="CC0 1.0",
            citation="Pavlopoulos, Sorensen, Laugier and Androutsopoulos, SemEval-2021 Task 5: Toxic Spans Detection, SemEval 2021",
            items="7,939 and 690 posts with the places of their toxic characters (the train and the trial file)",
            warning="every post is toxic: hate speech, slurs, profanity",
        ),
    )
}


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
