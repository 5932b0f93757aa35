"""A store with one trained model in it, copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import toy_exam
from tests.lab.trained import home_with_model
from workbench.store.runs import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An open store, also the environment's, with one training run."""
    home = tmp_path / "lab-home"
    shutil.copytree(home_with_model()[0], home)
    monkeypatch.setenv("WORKBENCH_HOME", str(home))
    with Store.open(home) as opened:
        yield opened


@pytest.fixture
def trained() -> str:
    """The reference of the model in ``store``."""
    return f"run:{home_with_model()[1]}"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> toy_exam.Toy:
    """The exam of places is a toy."""
    return toy_exam.put(monkeypatch)
