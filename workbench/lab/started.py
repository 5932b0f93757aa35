"""Trainings that a page starts, stops and takes up again: each a process of its own, which outlives the page."""

from __future__ import annotations

import os
import secrets
import shlex
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from workbench.core.errors import BadValue
from workbench.core.protocol import Progress
from workbench.lab import jobs
from workbench.lab.recipe import read
from workbench.lab.run import train
from workbench.lab.settings import read_settings
from workbench.lab.trainings import Course, course
from workbench.lab.watch.follow import check_watch
from workbench.store.runs import Store

TARGET = "workbench.lab.started:train_told"


def begin(store: Store, recipe: str, settings: str) -> Path:
    """Start a training by a shipped recipe in a process of its own; the folder of its job, in the store's home.

    ``settings``: as after ``--set``, with spaces between them. Raises UsageError and Incompatible before anything is started.
    """
    changed = words_of(settings)
    check_watch(read(recipe, read_settings(changed)))
    folder = store.home / "jobs" / f"train-{secrets.token_hex(6)}"
    jobs.start(TARGET, {"address": store.address, "recipe": recipe, "settings": changed}, folder, outlive=True)
    return folder


def go_on(store: Store, found: Course) -> Path:
    """Take up a stopped training again, by its own stored recipe. Raises BadValue for one that runs or is finished."""
    if found.record.status not in ("interrupted", "failed"):
        raise BadValue("the training", found.record.status, "stopped or failed: only such a one can be taken up again")
    folder = store.home / "jobs" / f"resume-{found.record.id}-{secrets.token_hex(3)}"
    jobs.start(TARGET, {"address": store.address, "recipe": dict(found.record.spec), "resume": found.record.id}, folder, outlive=True)
    return folder


def stop(found: Course) -> None:
    """Ask a running training of this machine to stop, as Ctrl-C would. Raises BadValue for one that cannot be asked from here."""
    if found.record.status != "running" or not found.here:
        raise BadValue("the training", found.record.status, "running, on this machine", do="Stop it where it was started, with Ctrl-C.")
    with suppress(ProcessLookupError):
        os.kill(found.pid, signal.SIGINT)


def run_of(store: Store, folder: Path) -> tuple[jobs.Status, str]:
    """How a job of ``begin`` or ``go_on`` stands, and the run it works on ('' while that has not begun)."""
    status = jobs.read_status(folder)
    if status.state == "done":
        return status, str(status.value["run"])
    running = (record.id for record in store.runs.list(kind="train", status="running"))
    return status, next((run for run in running if status.pid and course(store, run).pid == status.pid), "")


def words_of(settings: str) -> list[str]:
    """Settings typed in one line. Raises BadValue for a quote that is not closed."""
    try:
        return shlex.split(settings)
    except ValueError:
        raise BadValue("the settings", settings, "name=value, with spaces between them", do="A quote is not closed.") from None


def train_told(progress: Progress, address: str, recipe: Any, settings: Sequence[str] = (), resume: str = "") -> dict[str, Any]:
    """What the process does."""
    with Store.open(address) as store:
        done = train(recipe, settings=read_settings(settings), store=store, progress=progress, resume=resume)
    return {"run": done.run, "folder": str(done.folder)}
