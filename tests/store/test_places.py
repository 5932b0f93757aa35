"""Where a store may lie, and what is said when it cannot."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.core.errors import BadValue, CorruptFile, MissingFile, StoreError
from workbench.store.artifacts import Artifacts
from workbench.store.runs import Store, new_id


def test_the_default_home_is_beside_and_the_environment_moves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORKBENCH_HOME", raising=False)
    monkeypatch.delenv("WORKBENCH_STORE", raising=False)
    with pytest.raises(StoreError, match="there is none at 'assay-runs' yet"):
        Store.open(create=False)
    assert list(tmp_path.iterdir()) == []
    assert Store.open().home == Path("assay-runs")
    assert (tmp_path / "assay-runs" / "store.sqlite").is_file()
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "Zwei"))
    assert Store.open().home == tmp_path / "Zwei"
    monkeypatch.setenv("WORKBENCH_STORE", f"sqlite:///{tmp_path}/elsewhere.db")
    Store.open().close()
    assert (tmp_path / "elsewhere.db").is_file()


def test_an_old_store_opens_with_its_runs(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        run = store.runs.create("eval", {"n": 1})
    with Store.open(tmp_path, create=False) as store:
        assert store.runs.get(run).spec == {"n": 1}
        assert store.folder(run) == tmp_path / "runs" / run


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for home in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match=r"could not be made.*Choose one you may write to with WORKBENCH_HOME"):
            Store.open(home)


VISITOR = """
import os, sys
from workbench.store.runs import Store
Store.open(sys.argv[1]).runs.list()  # everything is imported before rights are given up
if os.getuid() == 0:  # root may write anywhere
    os.setgid(65534), os.setuid(65534)
store = Store.open(sys.argv[1])
print(len(store.runs.list()))
store.runs.create("eval", {})
"""


def test_a_home_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Store.open(home) as store:
        store.runs.create("eval", {})
    for parent in (tmp_path, *tmp_path.parents[:3]):  # under several processes, one folder more
        parent.chmod(0o755)
    for path in (*home.rglob("*"), home):
        path.chmod(0o555 if path.is_dir() else 0o444)
    said = subprocess.run([sys.executable, "-c", VISITOR, str(home)], capture_output=True, text=True, timeout=60)
    home.chmod(0o755)
    assert said.returncode == 1
    assert re.search(r"StoreError: The store could not be (opened|written): .*Choose a folder you may write to", said.stderr), said.stderr


@pytest.mark.parametrize("content", [b"this is not a database" * 50, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_corrupt_database_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "store.sqlite").write_bytes(content)
    with pytest.raises(StoreError, match=r"not be (opened|written).*(not a database|malformed).*Move the file away"):
        Store.open(tmp_path).runs.create("eval", {})


def test_a_database_damaged_in_the_middle_is_named(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        for _ in range(12):
            store.runs.create("eval", {"n": "x" * 8000})
        file = tmp_path / "store.sqlite"
        content = bytearray(file.read_bytes())
        content[8192:-4096] = b"\xee" * (len(content) - 12288)
        file.write_bytes(content)
        with pytest.raises(StoreError, match="malformed"):
            store.runs.list()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://localhost/x", "must be sqlite or postgresql"),
        ("://", "of the form"),
        ("nonsense://user:secret@host:port/x", "of the form"),
    ],
)
def test_an_impossible_url_is_refused_without_its_password(url: str, words: str) -> None:
    with pytest.raises(BadValue, match=words) as error:
        Store.open(url)
    assert "secret" not in str(error.value)


def test_an_unreachable_server_is_named_without_the_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError, match="could not be opened") as error:
        Store.open(f"postgresql+psycopg://me:secret@/x?host={tmp_path}")
    assert "secret" not in str(error.value)


def test_ids_are_short_and_sort_as_they_were_made() -> None:
    ids = [new_id() for _ in range(3000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 3000
    assert {len(one) for one in ids} == {13}


# --- artifacts -------------------------------------------------------------------------------------------------


def test_an_artifact_is_named_by_its_content_and_kept_once(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "a")
    digest = artifacts.put(b"abc")
    assert digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # the standard's own example
    (tmp_path / "file").write_bytes(b"abc")
    assert artifacts.put(tmp_path / "file") == digest
    assert artifacts.path(digest) == tmp_path / "a" / "ba" / "78" / digest
    assert artifacts.read(digest) == b"abc"
    assert artifacts.put(b"") in artifacts
    assert "0" * 64 not in artifacts
    assert "../../x" not in artifacts
    assert sorted(artifacts) == list(artifacts)
    assert len(list(artifacts)) == 2
    assert not [p for p in (tmp_path / "a").iterdir() if p.is_file()]  # no temporary file is left


def test_a_changed_or_missing_artifact_is_noticed_on_reading(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    digest = artifacts.put(b"abc")
    artifacts.path(digest).write_bytes(b"abd")
    with pytest.raises(CorruptFile, match=f"should be of sha256 {digest[:12]}"):
        artifacts.read(digest)
    with pytest.raises(MissingFile, match="No artifact 000000000000"):
        artifacts.read("0" * 64)
    with pytest.raises(BadValue, match="64 hexadecimal digits"):
        artifacts.read("../../etc/passwd")
    with pytest.raises(MissingFile, match="No file to store"):
        artifacts.put(tmp_path / "nothing")


def test_an_artifact_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("in the way")
    with pytest.raises(StoreError, match="could not be written"):
        Artifacts(tmp_path / "a").put(b"abc")


def test_the_store_never_names_pickle() -> None:
    folder = Path(__file__).parents[2] / "workbench" / "store"
    files = sorted(folder.glob("*.py"))
    assert files
    for file in files:
        words = re.sub(r'""".*?"""', "", file.read_text(), flags=re.DOTALL)
        assert not re.search(r"pickle|PickleType|marshal|shelve", words, re.IGNORECASE), file
        if file.name != "tables.py":
            assert not re.search(r"sqlalchemy|\bSELECT\b|\bINSERT\b|PRAGMA", words), f"{file} knows SQL"
