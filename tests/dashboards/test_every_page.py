"""Every page on every store there may be: none, an empty, a filled, a locked one, one that is no store; and a run deleted meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import dashboards
from dashboards import shelf
from tests.dashboards.conftest import Home
from tests.dashboards.pages import opened, settled, unlabelled
from workbench.store.runs import Store

pytestmark = pytest.mark.full
VIEWS = sorted(place.stem for place in (Path(dashboards.__file__).parent / "views").glob("*.py"))
WITHOUT = {"data", "own_task"}
"""Pages that read no store, or none before they are given something."""


def errors(view: str, **query: str) -> str:
    """What a page says went wrong, opened on the store of the environment. It has a title, and each widget a label."""
    page = opened(f"{view}.py", **query)
    assert len(page.title) == 1, view
    assert unlabelled(page) == [], view
    return "\n".join(one.value for one in page.error).replace("\\", "")


@contextmanager
def held(file: Path) -> Iterator[None]:
    """The database in the hands of somebody who lets nobody else at it."""
    with closing(sqlite3.connect(file, isolation_level=None)) as mine:
        mine.execute("PRAGMA locking_mode = EXCLUSIVE")
        mine.execute("BEGIN EXCLUSIVE")
        yield


def test_without_a_store_and_on_an_empty_one_nothing_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "none"))
    assert {view: errors(view) for view in VIEWS} == dict.fromkeys(VIEWS, "")
    assert not (tmp_path / "none").exists(), "looking makes nothing"
    with Store.open(tmp_path / "empty"):
        pass
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "empty"))
    assert {view: errors(view) for view in VIEWS} == dict.fromkeys(VIEWS, "")


def test_on_a_filled_store_nothing_is_wrong(home: Home) -> None:
    assert {view: errors(view) for view in VIEWS} == dict.fromkeys(VIEWS, "")


@pytest.mark.parametrize("state", ["locked", "no database"])
def test_a_store_that_cannot_be_read_is_said_on_every_page(home: Home, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    monkeypatch.setattr(shelf, "BUSY_S", 0)
    file = home.folder / "store.sqlite"
    if state == "locked":
        with held(file):
            said = {view: errors(view) for view in VIEWS}
    else:
        file.write_text("a letter")
        said = {view: errors(view) for view in VIEWS}
    words = "locked" if state == "locked" else "not a database"
    assert {view for view, error in said.items() if words not in error} == WITHOUT
    assert all(error.count(words) == 1 for error in said.values() if error), "said once"


def test_a_run_deleted_while_its_page_is_open_is_named(home: Home) -> None:
    audit, (first, second) = home.audit, home.evaluated
    pages = {
        view: opened(f"{view}.py", **query)
        for view, query in {
            "runs": {"run": audit}, "audit": {"run": audit}, "suites": {"run": first}, "compare": {"first": first, "second": second},
            "lab": {"model": f"run:{home.trained}"},
        }.items()
    }  # fmt: skip
    with closing(sqlite3.connect(home.folder / "store.sqlite")) as store:
        for name in (audit, first, second, home.trained):
            for table in ("samples", "results", "findings", "events"):
                store.execute(f"DELETE FROM {table} WHERE run = ?", (name,))
            store.execute("DELETE FROM runs WHERE id = ?", (name,))
        store.commit()
    gone = {"suites": first, "compare": first, "lab": home.trained}
    for view, page in pages.items():
        said = "\n".join(one.value for one in (*settled(page.run()).error, *page.info, *page.warning)).replace("\\", "")
        assert gone.get(view, audit) in said, view
