"""Audits that a page starts, stops and takes up again: each a process of its own, which outlives the page."""

from __future__ import annotations

import os
import platform
import secrets
import shlex
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from evals import SUITES
from probes import INSTRUMENTS
from workbench.core.errors import BadValue
from workbench.core.finding import Plan
from workbench.core.protocol import Progress
from workbench.lab import jobs, plan
from workbench.lab.allowed import check_reference, check_settings
from workbench.lab.audit import audit
from workbench.lab.settings import read_settings
from workbench.lab.started import words_of
from workbench.store.records import RunRecord
from workbench.store.runs import Store

TARGET = "workbench.lab.audits:audit_told"
STOPPED = ("interrupted", "failed")
MARKS = ("changed", "file")
"""Fields of a plan that say how it differs from its file."""


def plans() -> list[str]:
    """The shipped plans, the default first."""
    return sorted(plan.names(), key=lambda name: name != plan.DEFAULT)


def offered() -> tuple[dict[str, str], dict[str, str]]:
    """All suites and all instruments with their words."""
    suites, instruments = (
        {name: f"{name} ({entry.status}): {entry.words}" for name, entry in one.items()} for one in (SUITES, INSTRUMENTS)
    )
    return suites, instruments


def planned(shipped: str, changes: Mapping[str, Any], settings: str = "", home: Path | None = None) -> Plan:
    """The shipped plan with ``changes`` (fields of a plan) and ``settings`` (as after ``--set``, with spaces between them) laid over it.
    What it says of a suite or an instrument that is not asked any more goes with that.

    Raises UsageError for what cannot be meant, and BadValue for a reference or a file that the page may not reach.
    """
    typed = read_settings(words_of(settings))
    check_settings(typed, home)
    base = plan.read_plan(shipped)
    made = plan.read_plan(_asked_about(base, changes), {**changes, "settings": typed} if typed else changes)
    other = tuple(sorted(name for name in Plan.model_fields if name not in MARKS and getattr(made, name) != getattr(base, name)))
    made = made.model_copy(update={"changed": other, "file": base.digest() if other else ""})
    for ref in (made.model, made.reference):
        if ref:
            check_reference(ref, home)
    return made


def _asked_about(base: Plan, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a plan, less what they say of the suites and instruments that ``changes`` leaves out."""
    asked = {*changes.get("suites", base.suites), *changes.get("instruments", base.instruments)}
    values = base.model_dump(mode="json")
    values |= {name: [one for one in values[name] if one["of"] in asked] for name in ("claims", "slices") if name in values}
    values |= {
        name: {where: value for where, value in values[name].items() if where.partition(".")[0] in asked}
        for name in ("margins", "floors", "settings")
        if name in values
    }
    if "internals" in values:
        values["internals"] = [name for name in values["internals"] if name in asked]
    return values


def in_words(made: Plan) -> str:
    """The plan as it would stand in a file."""
    return yaml.safe_dump(made.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def begin(store: Store, made: Plan) -> Path:
    """Start the audit in a process of its own; the folder of its job, in the store's home."""
    folder = store.home / "jobs" / f"audit-{secrets.token_hex(6)}"
    jobs.start(TARGET, {"address": store.address, "plan": made.model_dump(mode="json")}, folder, outlive=True)
    return folder


def go_on(store: Store, record: RunRecord) -> Path:
    """Take up a stopped audit again, by its own stored plan. Raises BadValue for one that runs or is finished."""
    if record.kind != "audit" or record.status not in STOPPED:
        raise BadValue("the audit", record.status, "stopped or failed: only such a one can be taken up again")
    folder = store.home / "jobs" / f"audit-{record.id}-{secrets.token_hex(3)}"
    jobs.start(TARGET, {"address": store.address, "plan": dict(record.spec), "resume": record.id}, folder, outlive=True)
    return folder


def again(record: RunRecord) -> str:
    """The command that goes on with a stopped audit, where its plan is a shipped one as it is; else how to write it down first."""
    for name in plans():
        if plan.read_plan(name).model_dump(mode="json") == dict(record.spec):
            return shlex.join(["workbench", "audit", name, "--resume", record.id])
    return shlex.join(["workbench", "audit", f"{record.id}.yaml", "--resume", record.id])


def stop(store: Store, record: RunRecord) -> None:
    """Ask a running audit of this machine to stop, as Ctrl-C would. Raises BadValue for one that cannot be asked from here."""
    pid = pid_of(store, record)
    if record.status != "running" or not pid:
        raise BadValue("the audit", record.status, "running, on this machine", do="Stop it where it was started, with Ctrl-C.")
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)


def pid_of(store: Store, record: RunRecord) -> int:
    """The process that works on a run, or 0 where it is not of this machine, is gone, or is this very process."""
    owner = store.runs.owner(record.id)
    if owner.get("host") != platform.node() or record.status != "running":
        return 0
    pid = int(owner["pid"])
    return pid if pid != os.getpid() else 0


def run_of(store: Store, folder: Path) -> tuple[jobs.Status, str]:
    """How a job of ``begin`` or ``go_on`` stands, and the run it works on ('' while that has not begun)."""
    status = jobs.read_status(folder)
    if status.state == "done":
        return status, str(status.value["run"])
    running = store.runs.list(kind="audit", status="running")
    return status, next((record.id for record in running if status.pid and pid_of(store, record) == status.pid), "")


def audit_told(progress: Progress, address: str, plan: Mapping[str, Any], resume: str = "") -> dict[str, Any]:
    """What the process does."""
    with Store.open(address) as store:
        done = audit(plan, store=store, progress=progress, resume=resume)
    return {"run": done.run, "findings": len(done.findings)}


def known_models(choices: Sequence[str]) -> list[str]:
    """What can be audited: the shipped plan's own models first, then those that are here."""
    shipped = [ref for name in plans() for ref in (plan.read_plan(name).model, plan.read_plan(name).reference) if ref]
    return list(dict.fromkeys([*shipped, *choices]))
