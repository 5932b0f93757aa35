"""The program, called in this process or as a real one, in a home with one trained model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab.trained import home_with_model
from workbench.cli.main import main


@dataclass(frozen=True)
class Said:
    """What one call of the program said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout; anything else there fails."""
        return json.loads(self.out)


Call = Callable[..., Said]


@pytest.fixture(autouse=True)
def environment_as_it_was() -> Iterator[None]:
    """The program sets switches for its process; tests share one."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """``workbench WORDS…`` in this process."""

    def run(*words: str) -> Said:
        capsys.readouterr()
        code = main(list(words))
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


@pytest.fixture
def process() -> Call:
    """``workbench WORDS…`` as a real process."""

    def run(*words: str, **environment: str) -> Said:
        done = subprocess.run(
            [sys.executable, "-m", "workbench.cli", *words], capture_output=True, text=True, env=os.environ | environment, timeout=300
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment's home, a copy with one trained model."""
    place = tmp_path / "cli-home"
    shutil.copytree(home_with_model()[0], place)
    monkeypatch.setenv("WORKBENCH_HOME", str(place))
    return place


@pytest.fixture
def trained(home: Path) -> str:
    """The reference of that model."""
    return f"run:{home_with_model()[1]}"
