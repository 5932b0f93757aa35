"""Set-up for every test: shapes checked by beartype, telemetry off, one thread count, a home of its own."""

import os
import socket
from pathlib import Path

import pytest

for name, value in {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "WANDB_MODE": "disabled",
    "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(name, value)

# Tests hold small models: on a machine with other work, two threads that wait for each other are many times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if os.environ.get("WORKBENCH_CHECK_SHAPES", "1") == "1":
    from tests.shape_checks import install

    # Every annotated tensor function of these packages has its shapes and dtypes checked at each call in the tests.
    CHECKED = ["workbench.blocks", "workbench.families", "workbench.engine", "workbench.organisms", "probes"]
    install(CHECKED)


@pytest.fixture(autouse=True)
def home_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's runs."""
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WORKBENCH_STORE", raising=False)


@pytest.fixture(autouse=True)
def only_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection to another machine fails the test that made it."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and str(address[0]) not in ("127.0.0.1", "::1", "localhost"):  # type: ignore[index]  # an INET address is a tuple
            raise AssertionError(f"a test tried to reach {address!r}")
        return connect(self, address)  # type: ignore[arg-type]  # passed through unchanged

    monkeypatch.setattr(socket.socket, "connect", guarded)
