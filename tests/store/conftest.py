"""Every store test that takes ``store_at`` runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.store import postgres
from workbench.store.runs import Store


@pytest.fixture(scope="session")
def postgres_admin() -> Iterator[str]:
    try:
        starting = postgres.server()
        admin = starting.__enter__()
    except (RuntimeError, KeyError, OSError) as reason:
        pytest.skip(f"no PostgreSQL: {reason}")
    try:
        yield admin
    finally:
        starting.__exit__(None, None, None)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def store_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What ``Store.open`` is given: a folder, or the URL of a new database (then the home is a folder of the test)."""
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WORKBENCH_STORE", raising=False)
    if request.param == "sqlite":
        yield str(tmp_path / "home")
        return
    with postgres.database(request.getfixturevalue("postgres_admin")) as url:
        yield url


@pytest.fixture
def store_at(store_url: str) -> Iterator[Callable[[], Store]]:
    """Opens the test's store, as often as asked."""
    opened: list[Store] = []

    def at() -> Store:
        opened.append(Store.open(store_url))
        return opened[-1]

    yield at
    for store in opened:
        store.close()


@pytest.fixture
def store(store_at: Callable[[], Store]) -> Store:
    return store_at()
