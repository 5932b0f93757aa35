"""One small audit, asked in this process for all tests that need a finished one."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.lab.trained import home_with_model
from workbench.lab import audit as auditing
from workbench.lab import audit_subject, failures
from workbench.lab.audit import audit
from workbench.lab.audit_subject import ask_all
from workbench.lab.jobs import Status
from workbench.store.runs import Store

SETTINGS: dict[str, Any] = {
    "suites": ["trigger", "occupation-pronoun"],
    "instruments": ["head-scores"],
    "settings": {"trigger": {"count": 8}, "occupation-pronoun": {"contexts": 3}},
    "floors": {"occupation-pronoun": 0.0},
    "claims": [{"of": "occupation-pronoun"}],
    "slices": [{"of": "occupation-pronoun", "value": "mass"}],
    "internals": ["occupation-pronoun"],
}


@cache
def home_with_audit() -> tuple[Path, str]:
    """A store's home and the id of the audit in it, of the one small model of ``home_with_model`` and an untrained reference."""
    home = Path(tempfile.mkdtemp(prefix="assay-test-audit-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    shutil.copytree(home_with_model()[0], home, dirs_exist_ok=True)
    with Store.open(home) as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr(auditing.jobs, "start", lambda target, values, *a, **k: values)
        patch.setattr(auditing.jobs, "wait", asked_here)
        patch.setattr(audit_subject, "has_failed", lambda *a: True)  # so that this model's parts are looked at too
        patch.setattr(failures, "CONTEXTS", 14)
        done = audit(
            "town", settings={**SETTINGS, "model": f"run:{home_with_model()[1]}", "reference": None}, store=store, date="2026-01-02"
        )
    return home, done.run


def asked_here(started: Sequence[dict[str, Any]], **_: Any) -> list[Status]:
    return [Status("done", value=ask_all(values["plan"], values["run"], values["part"], values["home"])) for values in started]
