"""Every page where there is no store, on an empty and on a filled one."""

from __future__ import annotations

from pathlib import Path

import pytest

import dashboards
from tests.dashboards.conftest import Home
from tests.dashboards.pages import opened, unlabelled
from workbench.store.runs import Store

pytestmark = pytest.mark.full
VIEWS = sorted(place.stem for place in (Path(dashboards.__file__).parent / "views").glob("*.py"))


def errors(view: str, **query: str) -> str:
    """What a page says went wrong, opened on the store of the environment. It has a title, and each widget a label."""
    page = opened(f"{view}.py", **query)
    assert len(page.title) == 1, view
    assert unlabelled(page) == [], view
    return "\n".join(one.value for one in page.error).replace("\\", "")


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
