"""What the page of audits asks: plans, runs, and the processes that carry them out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dashboards import reads, shelf
from workbench.core.finding import Plan
from workbench.core.spec import canonical_json
from workbench.lab import audits, jobs
from workbench.lab.gating import policy
from workbench.lab.gating.gate import gate
from workbench.reports.exports import junit
from workbench.reports.gate import Gate
from workbench.store.records import RunRecord
from workbench.store.runs import Store


def runs() -> tuple[RunRecord, ...]:
    """All audits, newest first."""
    return shelf.store().runs.list(kind="audit")


def plans() -> list[str]:
    """The shipped plans, the default first."""
    return audits.plans()


def field(plan: Plan, name: str) -> Any:
    """A field of a plan as a form gives it back."""
    value = getattr(plan, name)
    return list(value) if isinstance(value, tuple) else value


def offered() -> tuple[dict[str, str], dict[str, str]]:
    """Suites and instruments with their words."""
    return audits.offered()


def models() -> list[str]:
    """What can be audited by name."""
    return audits.known_models([choice.ref for choice in reads.models()])


def planned(shipped: str, changes: Mapping[str, Any], settings: str = "") -> Plan:
    """A plan made of a shipped one. Raises UsageError."""
    found = shelf.store_if_any()
    return audits.planned(shipped, changes, settings, found.home if found is not None else None)


def written(plan: Plan) -> str:
    """The plan as a file."""
    return audits.in_words(plan)


def begin(plan: Plan) -> str:
    """Start it; the folder of its job. Makes the store where there is none yet."""
    with Store.open() as made:
        return str(audits.begin(made, plan))


def begun(folder: str) -> tuple[jobs.Status, str]:
    """How a job that was started here stands, and its run."""
    return audits.run_of(shelf.store(), Path(folder))


def can_stop(record: RunRecord) -> bool:
    """Whether a run can be asked to stop from here."""
    return audits.pid_of(shelf.store(), record) > 0


def stop(record: RunRecord) -> None:
    """Ask it to stop."""
    audits.stop(shelf.store(), record)


def go_on(record: RunRecord) -> str:
    """Take it up again; the folder of its job."""
    return str(audits.go_on(shelf.store(), record))


def again(record: RunRecord) -> str:
    """The command that goes on with it."""
    return audits.again(record)


# --- what a finished one leaves -------------------------------------------------------------------------------


def policies() -> list[str]:
    """The shipped policies."""
    return policy.names()


def held(run: str, chosen: str | Mapping[str, Any]) -> Gate:
    """A finished audit held against a policy, shipped or as values. Raises CorruptFile, UsageError, and AssayError where a rule finds
    nothing to decide on."""
    return gate(run, chosen, store=shelf.store())


def decisions(found: Gate) -> pd.DataFrame:
    """One row a decision."""
    rows = [
        (one.state, one.rule, one.source, one.measure, one.effect, one.low, one.high, one.allowed, one.because) for one in found.decisions
    ]
    names = ["state", "rule", "of", "measure", "seen", "low", "high", "allowed", "because"]
    return pd.DataFrame(rows, columns=pd.Index(names))


def gate_files(found: Gate) -> dict[str, tuple[bytes, str]]:
    """The gate as files by name, each with its type."""
    return {
        "gate.json": ((canonical_json(found.document()) + "\n").encode(), "application/json"),
        "gate.junit.xml": (junit.render(found).encode(), "application/xml"),
    }
