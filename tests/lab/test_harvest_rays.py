"""A harvest on several processes leaves the bytes of one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.engine.models import wordy
from workbench.core.errors import AssayError, BadValue, Incompatible, UnknownName
from workbench.lab import harvest_rays
from workbench.lab.harvest_rays import harvested_on
from workbench.lab.harvesting import harvested
from workbench.lab.rays import cluster
from workbench.store.runs import Store
from workbench.training.checkpoint import write

FIELDS: dict[str, Any] = {"sites": ["blocks.*.hook_resid_post"], "items_a_shard": 2}


@pytest.fixture
def texts(tmp_path: Path) -> str:
    place = tmp_path / "texts.txt"
    place.write_text("\n".join("the boat by the market " * (1 + n % 3) for n in range(9)))
    return str(place)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def model(tmp_path: Path) -> str:
    write(tmp_path / "model", wordy())
    return str(tmp_path / "model")


def content(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in sorted(folder.iterdir())}


def test_what_cannot_be_spread_is_refused(tmp_path: Path, store: Store, texts: str) -> None:
    with pytest.raises(BadValue, match="local, ray, or ray:N"):
        harvested_on("rays", "family:gpt", tmp_path / "out", {"data": texts}, store=store)
    with pytest.raises(Incompatible, match="a model in memory.*save it"):
        harvested_on("ray", "memory:abc", tmp_path / "out", {"data": texts}, store=store)
    with pytest.raises(UnknownName, match="no setting 'itemsashard'"):
        harvested_on("ray", "family:gpt", tmp_path / "out", {"data": texts, "itemsashard": 3}, store=store)
    assert not (tmp_path / "out").exists()


def test_one_process_needs_no_workers(tmp_path: Path, store: Store, texts: str, model: str) -> None:
    one = harvested_on("local", model, tmp_path / "one", {"data": texts, **FIELDS}, store=store)
    assert one.digest() == harvested(model, tmp_path / "two", {"data": texts, **FIELDS}, store=store).digest()


def test_a_part_says_its_error_in_a_sentence(tmp_path: Path, store: Store, texts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = ("family:nothing", store.address, str(tmp_path / "out"), {"data": texts, **FIELDS}, (0, 2), 1, str(tmp_path))
    assert "nothing" in harvest_rays._part(*given)


@pytest.mark.full
def test_workers_leave_the_bytes_of_one_process_also_where_one_is_killed(
    tmp_path: Path, store: Store, texts: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed; pip install 'assay-workbench[ray]'")
    settings = {"data": texts, **FIELDS}
    harvested(model, tmp_path / "one", settings, store=store)
    real, mark = harvest_rays._part, tmp_path / "mark"

    def dies_once(*given: Any) -> str:
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given)

    with cluster():
        harvested_on("ray:2", model, tmp_path / "many", settings, store=store)
        assert content(tmp_path / "many") == content(tmp_path / "one")
        for name in ("shard-00001.safetensors", "shard-00001.json"):
            (tmp_path / "many" / name).unlink()
        monkeypatch.setattr(harvest_rays, "_part", dies_once)
        harvested_on("ray:2", model, tmp_path / "many", settings, store=store)
        assert mark.exists()
        assert content(tmp_path / "many") == content(tmp_path / "one")
        with pytest.raises(AssayError, match="was started with another spec"):
            harvested_on("ray:2", model, tmp_path / "many", {**settings, "items_a_shard": 3}, store=store)
