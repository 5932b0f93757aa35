"""The doctor sees what is wrong, and telemetry is off."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from workbench.lab import doctor, silence


def test_every_check_says_something_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silence.silence()
    checks = doctor.examine()
    assert all(check.found for check in checks)
    assert len({check.name for check in checks}) == len(checks)
    assert not any(check.mark == "bad" for check in checks), [c for c in checks if c.mark == "bad"]
    assert all(check.do for check in checks if check.mark == "note" and check.name != "store")
    assert list(tmp_path.iterdir()) == []


def test_another_package_of_our_name_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"evals": ["assay-workbench", "evals"], "probes": ["assay-workbench"]})
    assert doctor._names().mark == "note"
    assert doctor._names().found == "evals uses one of workbench, probes, evals, dashboards too"


def test_a_broken_store_data_set_and_mirror_are_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path))
    (tmp_path / "store.sqlite").write_bytes(b"rubbish" * 1000)
    (tmp_path / "data" / "crows-pairs").mkdir(parents=True)
    (tmp_path / "data" / "crows-pairs" / "crows_pairs_anonymized.csv").write_text("changed")
    monkeypatch.setenv("WORKBENCH_DATA_MIRROR", str(tmp_path / "nowhere"))
    data = {check.name: check for check in doctor._data()}
    assert doctor._store().mark == data["data crows-pairs"].mark == data["data mirror"].mark == "bad"
    assert "should be of sha256" in data["data crows-pairs"].found


def test_a_switch_that_is_on_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    silence.silence()
    assert silence.loud() == []
    assert doctor._telemetry().mark == "good"
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "0")
    assert silence.loud() == ["HF_HUB_DISABLE_TELEMETRY"]
    assert doctor._telemetry().mark == "bad"


def test_a_missing_package_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "NEEDED", ("torch", "no-such-package"))
    assert list(doctor._versions())[-1] == doctor.Check("bad", "no-such-package", "not installed", "Run `pip install no-such-package`.")
