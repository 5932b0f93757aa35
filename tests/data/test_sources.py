"""Files of public sets are used only when they are what their hash says, wherever they come from."""

import hashlib
import http.server
import os
import threading
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
            assert file.url.startswith("https://raw.githubusercontent.com/")
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
        assert path.stat().st_size == file.size


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
