"""Reports of several runs that a page begins, each in a process of its own: of runs side by side, of a training over its checkpoints."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evals import SUITES
from workbench.core.protocol import Progress
from workbench.lab import comparison_report, jobs, trend_report
from workbench.lab.settings import read_settings
from workbench.lab.started import words_of
from workbench.store.records import RunRecord
from workbench.store.runs import Store

KINDS = (comparison_report.KIND, trend_report.KIND)
TARGET = "workbench.lab.reports_begun"


def written(store: Store) -> tuple[RunRecord, ...]:
    """The runs that hold such a report, newest first."""
    return tuple(one for one in store.runs.list(status="done") if one.kind in KINDS)


def begin_comparison(store: Store, runs: Sequence[str]) -> Path:
    """Write the report of runs side by side; the folder of its job."""
    return _begun(store, "comparison_told", {"runs": list(runs)})


def begin_trend(store: Store, training: str, suite: str, settings: str) -> Path:
    """Ask a suite of every checkpoint of a training. Raises UsageError for what cannot be meant, BadValue for too few checkpoints."""
    changes = words_of(settings)
    SUITES.load(suite).spec.parse(read_settings(changes), what=f"suite '{suite}'")
    trend_report.checkpoints(store, training)
    return _begun(store, "trend_told", {"training": training, "suite": suite, "settings": changes})


def _begun(store: Store, name: str, told: dict[str, Any]) -> Path:
    folder = store.home / "jobs" / f"report-{secrets.token_hex(6)}"
    jobs.start(f"{TARGET}:{name}", {"address": store.address, **told}, folder, outlive=True)
    return folder


def comparison_told(progress: Progress, address: str, runs: Sequence[str]) -> dict[str, Any]:
    """What the process of a comparison does."""
    with Store.open(address) as store:
        return {"run": comparison_report.compare_runs(runs, store=store, progress=progress).run}


def trend_told(progress: Progress, address: str, training: str, suite: str, settings: Sequence[str] = ()) -> dict[str, Any]:
    """What the process of a trend does."""
    with Store.open(address) as store:
        fields = read_settings(list(settings))
        return {"run": trend_report.trend_of(training, [suite], settings=fields, store=store, progress=progress).run}
