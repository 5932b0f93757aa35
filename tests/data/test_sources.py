"""Files of public sets are used only when they are what their hash says, wherever they come from."""

import hashlib
import http.server
import io
import os
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.core.errors import BadValue, CorruptFile, MissingData, UnknownName
from workbench.data import corpora, sources
from workbench.data.sources import Source, SourceFile

CONTENT = b"one public line\n" * 20_000  # more than one chunk
OTHER = b"another public line\n"


class Handler(http.server.BaseHTTPRequestHandler):
    """/good is CONTENT; /wrong has its length but not its bytes; /short promises more than it sends; /endless never ends."""

    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        body = {"/good": CONTENT, "/other": OTHER, "/wrong": CONTENT[::-1], "/short": CONTENT[:1000]}.get(self.path, CONTENT)
        self.send_response(200)
        if self.path != "/endless":
            self.send_header("Content-Length", str(len(CONTENT) if self.path == "/short" else len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
            while self.path == "/endless":
                self.wfile.write(body)
        except ConnectionError:
            pass  # the client had enough, which is what is tested

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def listed(url: str, content: bytes = CONTENT, name: str = "lines.txt") -> SourceFile:
    return SourceFile(name, url, hashlib.sha256(content).hexdigest(), len(content))


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Put a set named 'toy' into the registry, with a cache and no mirror of its own."""
    monkeypatch.setenv(sources.HOME, str(tmp_path / "home"))
    monkeypatch.delenv(sources.MIRROR, raising=False)
    for variable in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(variable, raising=False)

    def put(*files: SourceFile) -> Path:
        monkeypatch.setitem(sources.SOURCES, "toy", Source("toy", files, "", "CC0", "", "some lines"))
        return tmp_path / "home" / "data" / "toy"

    return put


def left_behind(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []


def test_fetch_downloads_verifies_and_renames(register, address: str):
    folder = register(listed(f"{address}/good"), listed(f"{address}/other", OTHER, "other.txt"))
    heard = []
    paths = sources.fetch("toy", lambda done, total, words: heard.append((done, total, words)))
    assert [p.read_bytes() for p in paths] == [CONTENT, OTHER]
    assert left_behind(folder) == ["lines.txt", "other.txt"]
    whole = len(CONTENT) + len(OTHER)
    assert heard[-1] == (whole, whole, "other.txt")
    assert [d for d, _, _ in heard] == sorted(d for d, _, _ in heard)
    assert sources.path("toy", "lines.txt") == paths[0]
    assert sources.verify("toy") == paths
    assert sources.available("toy")
    before = paths[0].stat().st_mtime_ns
    sources.fetch("toy")
    assert paths[0].stat().st_mtime_ns == before  # right already: left alone


@pytest.mark.parametrize(
    ("place", "says"), [("short", "only 1000 bytes came"), ("wrong", "bytes of sha256"), ("endless", "bytes of sha256")]
)
def test_what_came_wrong_is_not_kept(register, address: str, place: str, says: str):
    folder = register(listed(f"{address}/{place}"))
    with pytest.raises(CorruptFile, match=says) as caught:
        sources.fetch("toy")
    assert f"should be {len(CONTENT)} bytes of sha256" in str(caught.value)
    assert left_behind(folder) == []
    assert not sources.available("toy")


def test_a_network_that_does_not_answer(register, address: str):
    folder = register(listed(f"{address}/missing"))
    with pytest.raises(MissingData, match=r"'toy' was not found in 'http://127.*Not Found.*workbench data fetch toy"):
        sources.fetch("toy")
    register(listed("http://127.0.0.1:9/nobody"))
    with pytest.raises(MissingData, match="refused"):
        sources.fetch("toy")
    assert left_behind(folder) == []


def test_fetch_mends_a_broken_cache(register, address: str):
    folder = register(listed(f"{address}/good"))
    folder.mkdir(parents=True)
    (folder / "lines.txt").write_bytes(b"broken")
    with pytest.raises(CorruptFile, match="workbench data fetch toy"):
        sources.path("toy")
    assert sources.fetch("toy")[0].read_bytes() == CONTENT


def test_an_interrupted_download_leaves_nothing(register, address: str):
    folder = register(listed(f"{address}/good"))

    def interrupt(done: int, total: int, words: str = "") -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sources.fetch("toy", interrupt)
    assert left_behind(folder) == []


def put(folder: Path, content: bytes, name: str = "lines.txt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def test_the_mirror_comes_first(register, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    cached = put(register(listed("http://127.0.0.1:9/")), CONTENT)
    assert sources.path("toy") == cached
    mirrored = put(tmp_path / "mirror" / "toy", CONTENT)
    monkeypatch.setenv(sources.MIRROR, str(tmp_path / "mirror"))
    assert sources.path("toy") == mirrored
    mirrored.unlink()
    assert sources.path("toy") == cached


def test_a_tampered_file_is_refused_even_after_it_was_right(register, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    put(register(listed("http://127.0.0.1:9/")), CONTENT)
    mirrored = put(tmp_path / "mirror" / "toy", CONTENT)
    monkeypatch.setenv(sources.MIRROR, str(tmp_path / "mirror"))
    sources.path("toy")
    mirrored.write_bytes(CONTENT.replace(b"public", b"PUBLIC", 1))
    os.utime(mirrored, ns=(1, 1))
    with pytest.raises(CorruptFile, match=r"mirror.*sha256"):  # and the good one in the cache does not paper over it
        sources.path("toy")
    with pytest.raises(CorruptFile):
        sources.available("toy")


def test_verify_hashes_again_whatever_is_remembered(register):
    file = put(register(listed("http://127.0.0.1:9/")), CONTENT)
    sources.path("toy")
    state = file.stat()
    file.write_bytes(b"X" + CONTENT[1:])
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))  # same size, same time: only hashing tells
    with pytest.raises(CorruptFile):
        sources.verify("toy")


def test_a_file_is_hashed_once_while_unchanged(register, monkeypatch: pytest.MonkeyPatch):
    put(register(listed("http://127.0.0.1:9/")), CONTENT)
    sources.path("toy")
    monkeypatch.setattr(sources.hashlib, "file_digest", lambda *_: pytest.fail("hashed twice"))
    sources.path("toy")


# --- files packed from an archive


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as pack:
        for name, content in members.items():
            pack.writestr(name, content)
    return out.getvalue()


WANTED = {"2_ann.txt": b"two", "1_ann.txt": b"one"}
ARCHIVE = {"set-1/README": b"read me", "set-1/data/1_ann.txt": b"one", "set-1/data/1_bob.txt": b"uno", "set-1/data/2_ann.txt": b"two"}


def packed(url: str, wanted: dict[str, bytes] | None = None) -> SourceFile:
    lines = [f"{name} {hashlib.sha256(content).hexdigest()}\n" for name, content in sorted((wanted or WANTED).items())]
    size = sum(map(len, (wanted or WANTED).values()))
    return SourceFile("pack.zip", url, hashlib.sha256("".join(lines).encode()).hexdigest(), size, ("*/data/*_ann.txt",))


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch):
    """Let /good answer with other bytes."""
    return lambda content: monkeypatch.setitem(globals(), "CONTENT", content)


def test_a_pack_is_made_of_the_chosen_members_and_known_by_what_is_in_it(register, served, address: str, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(sources, "_ARCHIVE", 1000)
    served(zipped(ARCHIVE))
    folder = register(packed(f"{address}/good"))
    place = sources.fetch("toy")[0]
    with zipfile.ZipFile(place) as pack:
        assert {name: pack.read(name) for name in pack.namelist()} == WANTED
    assert left_behind(folder) == ["pack.zip"]
    mirrored = put(tmp_path / "mirror" / "toy", zipped(WANTED), "pack.zip")  # packed in another order, by another hand
    monkeypatch.setenv(sources.MIRROR, str(tmp_path / "mirror"))
    assert sources.path("toy") == mirrored
    mirrored.write_bytes(zipped({**WANTED, "1_ann.txt": b"eno"}))
    with pytest.raises(CorruptFile, match="sha256"):
        sources.path("toy")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no zip at all", "a zip file, but it is not"),
        (zipped({**ARCHIVE, "set-1/data/1_ann.txt": b"eno"}), "an archive whose chosen members have sha256"),
        (zipped({**ARCHIVE, "set-1/data/3_ann.txt": b"three"}), "it holds more"),
        (zipped({"set-1/README": b"read me"}), "an archive whose chosen members have sha256"),
    ],
    ids=["no zip", "changed", "too much", "nothing"],
)
def test_an_archive_that_is_not_it_leaves_nothing(register, served, address: str, monkeypatch, content: bytes, says: str):
    monkeypatch.setattr(sources, "_ARCHIVE", 1000)
    served(content)
    folder = register(packed(f"{address}/good"))
    with pytest.raises(CorruptFile, match=says):
        sources.fetch("toy")
    assert left_behind(folder) == []


def test_a_mirrored_pack_that_is_none_is_refused(register):
    folder = register(packed("http://127.0.0.1:9/"))
    put(folder, b"no zip at all", "pack.zip")
    with pytest.raises(CorruptFile, match="a zip file, but it is not"):
        sources.path("toy")
    put(folder, zipped({**WANTED, "3_ann.txt": b"x" * 100}), "pack.zip")
    with pytest.raises(CorruptFile, match="a zip of 6 bytes in all, but it holds 106"):
        sources.path("toy")


def test_names_and_what_is_missing(register, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = register(listed("http://127.0.0.1:9/"), listed("http://127.0.0.1:9/", OTHER, "other.txt"))
    monkeypatch.setenv(sources.MIRROR, str(tmp_path / "mirror"))
    with pytest.raises(MissingData, match=r"mirror.*and.*home") as caught:
        sources.path("toy", "lines.txt")
    assert str(folder / "lines.txt") in str(caught.value)
    with pytest.raises(UnknownName, match="no data set 'crows-pair'. Did you mean 'crows-pairs'"):
        sources.path("crows-pair")
    with pytest.raises(UnknownName, match="no file 'linse.txt' in the data set 'toy'"):
        sources.path("toy", "linse.txt")
    with pytest.raises(BadValue, match=r"one of lines.txt, other.txt"):
        sources.path("toy")


def test_the_cache_follows_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv(sources.HOME)
    monkeypatch.setattr(sources.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert sources.cache_folder() == tmp_path / "assay" / "data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(sources.Path, "home", lambda: tmp_path)
    assert sources.cache_folder() == tmp_path / ".cache" / "assay" / "data"
    monkeypatch.setattr(sources.sys, "platform", "darwin")
    assert sources.cache_folder() == tmp_path / "Library" / "Caches" / "assay" / "data"
    monkeypatch.setattr(sources.sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert sources.cache_folder() == tmp_path / "local" / "assay" / "data"


def test_the_registry_is_whole():
    for name, source in sources.SOURCES.items():
        assert name == source.name
        assert source.licence
        assert source.citation
        assert source.items
        for file in source.files:
            assert file.url.startswith("https://codeload.github.com/" if file.members else "https://raw.githubusercontent.com/")
            assert len(file.sha256) == 64
            assert file.size > 0
    assert sources.SOURCES["crows-pairs"].warning


def needs(name: str) -> None:
    if not sources.available(name):
        pytest.skip(f"the data set '{name}' is neither mirrored ({sources.MIRROR}) nor cached")


@pytest.mark.parametrize("name", sources.SOURCES)
def test_the_real_files_are_what_the_registry_says(name: str):
    needs(name)
    for path, file in zip(sources.verify(name), sources.SOURCES[name].files, strict=True):
        if not file.members:
            assert path.stat().st_size == file.size
            continue
        with zipfile.ZipFile(path) as pack:
            assert sum(member.file_size for member in pack.infolist()) == file.size


def test_tinyshakespeare_is_cut_where_the_published_figures_cut_it():
    needs("tinyshakespeare")
    parts = corpora.tinyshakespeare()
    assert {k: len(v) for k, v in parts.items()} == {"train": 1_003_854, "validation": 111_540}
    assert len(set(parts["train"])) == 65


def test_wikitext_articles_are_split_without_loss():
    needs("wikitext-2")
    articles, parts = corpora.wikitext_articles(), corpora.wikitext2()
    assert len(articles) == 60
    assert {k: len(v) for k, v in parts.items()} == {"train": 48, "validation": 6, "test": 6}
    assert sorted(a for part in parts.values() for a in part) == sorted(articles)
    assert all(a.startswith(" = ") and len(a) > 1000 for a in articles)


def test_spoken_digits_are_whole_and_split_by_recording_and_by_speaker():
    needs("fsdd")
    recordings = corpora.spoken_digits()
    assert {(r.speaker, r.digit, r.number) for r in recordings} == {
        (s, d, n) for s in ("george", "jackson", "nicolas", "theo") for d in range(10) for n in range(50)
    }
    assert {r.rate for r in recordings} == {8000}
    assert sum(len(r.wave) for r in recordings) == (13_657_820 - 44 * 2000) // 2  # two bytes a sample, after a header of 44
    known = corpora.by_recording(recordings)
    assert {k: len(v) for k, v in known.items()} == {"train": 1800, "test": 200}
    assert {r.number for r in known["test"]} == set(range(5))
    new = corpora.by_speaker(recordings, "theo")
    assert {k: len(v) for k, v in new.items()} == {"train": 1500, "test": 500}
    assert {r.speaker for r in new["test"]} == {"theo"} != {r.speaker for r in new["train"]}
    with pytest.raises(UnknownName, match="no speaker 'leo' in these recordings. Did you mean 'theo'"):
        corpora.by_speaker(recordings, "leo")
    rows = corpora.digit_rows(known["test"])
    batch = rows.batch(range(200))
    assert (batch.tokens == corpora.BEGIN).all()
    assert batch.targets is not None
    assert batch.targets[:, 0].tolist() == [r.digit for r in known["test"]]
    assert rows.positions <= 50
    with pytest.raises(BadValue, match="mel.rate is 16000, but it must be 8000"):
        corpora.digit_rows(recordings[:1], corpora.DIGITS.model_copy(update={"rate": 16_000}))


def test_a_pack_with_a_broken_recording_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for members, says in (({"0_ann_0.wav": b"RIFF"}, "0_ann_0.wav"), ({"notes.txt": b"hello"}, "it holds 'notes.txt'")):
        place = put(tmp_path, zipped(members), "recordings.zip")
        monkeypatch.setattr(corpora, "path", lambda *_, place=place: place)
        with pytest.raises(CorruptFile, match=says):
            corpora.spoken_digits()
