"""Work in another process, with a status file anybody can read: two trainings side by side, or a run a page started.

The status file has one JSON object a line: ``start`` (pid), ``progress`` (done, total, words; at most five a second), then ``done``
(value) or ``failed`` (error, sentence, exit code). A half-written last line is not read. The function is named
``module:function``, takes JSON values and a ``progress``, and returns JSON values: nothing is pickled.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from workbench.core.errors import EXIT_ERROR, EXIT_INTERRUPTED, AssayError, BadValue
from workbench.lab.silence import silence

if TYPE_CHECKING:  # it would import torch, which a reader of a status file has no use for
    from workbench.core.protocol import Progress

State = Literal["starting", "running", "done", "failed", "cancelled", "lost"]
TRUSTED = ("workbench.", "tests.")
_EVERY_S = 0.2


@dataclass(frozen=True)
class Status:
    """How a job stands. *lost*: its process is gone without a last word. ``words`` is the progress text or the error."""

    state: State
    pid: int = 0
    done: int = 0
    total: int = 0
    words: str = ""
    value: Any = None
    exit_code: int = 0

    @property
    def over(self) -> bool:
        return self.state in ("done", "failed", "cancelled", "lost")


@dataclass
class Job:
    """A job that was started: ``folder`` holds ``status.jsonl`` and ``log.txt``."""

    folder: Path
    target: str
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def status(self) -> Status:
        """How it stands now."""
        if self.process is not None:
            self.process.poll()
        found = read_status(self.folder)
        if found.over and self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):  # its last word is said: it is about to end
                self.process.wait(30)
        return found

    def cancel(self) -> None:
        """Ask it to stop as Ctrl-C would, so that its run can be resumed."""
        cancel(self.folder)

    def wait(self, timeout_s: float | None = None) -> Status:
        """Its last status. Raises TimeoutError."""
        return wait([self], timeout_s=timeout_s)[0]


def start(target: str, arguments: Mapping[str, Any], folder: Path, *, threads: int = 0, outlive: bool = False) -> Job:
    """Call ``module:function(progress=…, **arguments)`` in a new process and return at once.

    ``threads`` bounds the numeric libraries' threads (0: as they like). Unless ``outlive``, it stops when this process ends.
    """
    if target.count(":") != 1 or not target.startswith(TRUSTED):
        raise BadValue("the job", target, f"'module:function' in one of {', '.join(TRUSTED)}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "status.jsonl").write_text("")
    environment = dict(os.environ)
    silence(environment)
    if threads:
        environment |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    told = json.dumps({"target": target, "arguments": dict(arguments), "folder": str(folder), "parent": 0 if outlive else os.getpid()})
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "workbench.lab.jobs"], stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment,
            start_new_session=True,  # a Ctrl-C of the terminal reaches the parent alone, which then cancels its jobs
        )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(told.encode())
    process.stdin.close()
    return Job(folder, target, process)


def wait(jobs: Sequence[Job], *, progress: Progress | None = None, timeout_s: float | None = None) -> list[Status]:
    """Wait for all jobs, with their progress added up. Ctrl-C cancels them and is raised again once they have stopped."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    try:
        while True:
            statuses = [job.status() for job in jobs]
            if all(status.over for status in statuses):
                return statuses
            known = [s for s in statuses if s.total]
            if known and progress is not None:
                words = " · ".join(s.words for s in known if s.words and not s.over)
                progress(sum(s.done for s in known), sum(s.total for s in known), words)
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"{sum(not s.over for s in statuses)} of {len(jobs)} jobs were not over after {timeout_s:g} s")
            time.sleep(0.25)
    except KeyboardInterrupt:
        for job in jobs:
            job.cancel()
        wait(jobs, timeout_s=60)
        raise


def read_status(folder: Path) -> Status:
    """The status of the job in ``folder``, also from another process than the one that started it."""
    status = Status("starting")
    try:
        lines = (folder / "status.jsonl").read_text().split("\n")[:-1]  # the last piece is empty or not yet whole
    except FileNotFoundError:
        return Status("lost", words="it was never started")
    for line in lines if len(lines) < 4 else [lines[0], *lines[-2:]]:  # the process id, the last count, and what came of it
        event = json.loads(line)
        kind = event.pop("event")
        states: dict[str, State] = {"start": "running", "progress": "running", "done": "done", "failed": "failed", "cancelled": "cancelled"}
        status = Status(states[kind], **({"pid": status.pid, "done": status.done, "total": status.total} | event))
    if status.state == "running" and not _lives(status.pid):
        again = (folder / "status.jsonl").read_text().split("\n")[:-1]
        if len(again) != len(lines):
            return read_status(folder)  # it ended between the two looks
        return Status("lost", status.pid, status.done, status.total, "its process ended without a word", exit_code=EXIT_ERROR)
    return status


def cancel(folder: Path) -> None:
    """Ask the job in ``folder`` to stop. Nothing happens if it is over."""
    status = read_status(folder)
    deadline = time.monotonic() + 20
    while status.state == "starting" and time.monotonic() < deadline:  # it has no process id to be asked by yet
        time.sleep(0.05)
        status = read_status(folder)
    if status.state == "running":
        try:
            os.kill(status.pid, signal.SIGTERM)
        except ProcessLookupError:
            return


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return not Path(f"/proc/{pid}/stat").is_file() or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (ProcessLookupError, FileNotFoundError):
        return False
    except PermissionError:
        return True


# --- inside the process -------------------------------------------------------------------------------------


class _Writer:
    """Appends events; one write a line, so that a reader sees whole lines."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last = 0.0

    def say(self, event: str, **facts: Any) -> None:
        self._out.write(json.dumps({"event": event, **facts}, allow_nan=False) + "\n")
        self._out.flush()

    def progress(self, done: int, total: int, words: str = "") -> None:
        now = time.monotonic()
        if done >= total or now - self._last >= _EVERY_S:
            self._last = now
            self.say("progress", done=done, total=total, words=words)


def _stop_with(parent: int) -> None:
    """End this process, as Ctrl-C would, once ``parent`` is gone: nobody would read what it does."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _run_told() -> int:
    told = json.loads(sys.stdin.buffer.read())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with (Path(told["folder"]) / "status.jsonl").open("a", encoding="utf-8") as out:
        writer = _Writer(out)
        try:
            writer.say("start", pid=os.getpid())
            if told["parent"]:
                _stop_with(told["parent"])
            module, _, name = told["target"].partition(":")
            value = getattr(importlib.import_module(module), name)(progress=writer.progress, **told["arguments"])
            writer.say("done", value=value)
        except KeyboardInterrupt as stop:
            writer.say("cancelled", words=str(stop), exit_code=EXIT_INTERRUPTED)
            return EXIT_INTERRUPTED
        except AssayError as error:
            writer.say("failed", words=str(error), exit_code=error.exit_code)
            return error.exit_code
        except Exception as error:
            writer.say("failed", words=f"{type(error).__name__}: {error}", exit_code=EXIT_ERROR)
            raise
    return 0


if __name__ == "__main__":
    sys.exit(_run_told())
