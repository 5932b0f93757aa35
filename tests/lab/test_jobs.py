"""Jobs in other processes: their status, their failures, their end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workbench.core.errors import BadValue
from workbench.lab import jobs

HERE = "tests.lab.job_targets"


def _until(holds: Callable[[], Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_two_jobs_run_beside_each_other_and_return_their_values(tmp_path: Path) -> None:
    started = [jobs.start(f"{HERE}:add", {"a": n, "b": 10}, tmp_path / str(n), threads=1) for n in (1, 2)]
    seen: list[tuple[int, int]] = []
    found = jobs.wait(started, progress=lambda done, total, words: seen.append((done, total)), timeout_s=60)
    assert [(s.state, s.value["sum"], s.done, s.total) for s in found] == [("done", 11, 3, 3), ("done", 12, 3, 3)]
    assert found[0].pid != found[1].pid
    assert found[0].value["threads"] == "1"
    assert found[0].value["telemetry"] == []
    assert jobs.read_status(tmp_path / "1") == found[0], "anybody can read it, also later"


def test_a_failing_job_says_why_and_with_which_code(tmp_path: Path) -> None:
    ours = jobs.start(f"{HERE}:fail_knowingly", {}, tmp_path / "a").wait(60)
    assert (ours.state, ours.exit_code) == ("failed", 64)
    assert ours.words == "steps is 0, but it must be at least 1."
    other = jobs.start(f"{HERE}:fail_otherwise", {}, tmp_path / "b").wait(60)
    assert (other.state, other.exit_code, other.words) == ("failed", 3, "ZeroDivisionError: division by zero")
    assert "Traceback" in (tmp_path / "b" / "log.txt").read_text()


def test_a_cancelled_job_stops_like_ctrl_c(tmp_path: Path) -> None:
    job = jobs.start(f"{HERE}:wait_long", {"mark": str(tmp_path / "mark")}, tmp_path / "job")
    _until((tmp_path / "mark").exists)
    job.cancel()
    status = job.wait(60)
    assert (status.state, status.exit_code) == ("cancelled", 130)
    assert (tmp_path / "mark").read_text() == "interrupted"
    job.cancel()  # nothing happens: it is over


def test_a_killed_job_is_lost_and_a_half_written_line_is_not_read(tmp_path: Path) -> None:
    job = jobs.start(f"{HERE}:wait_long", {"mark": str(tmp_path / "mark")}, tmp_path / "job")
    _until((tmp_path / "mark").exists)
    assert job.status().state == "running"
    with (tmp_path / "job" / "status.jsonl").open("a") as out:
        out.write('{"event": "progr')
    assert job.status().state == "running"
    os.kill(job.status().pid, signal.SIGKILL)
    _until(lambda: job.status().over)
    assert job.status().state == "lost"
    assert jobs.read_status(tmp_path / "nowhere").state == "lost"


PARENT = """
import sys, time
from pathlib import Path
from workbench.lab import jobs
jobs.start("tests.lab.job_targets:wait_long", {"mark": sys.argv[1]}, Path(sys.argv[2]), outlive=sys.argv[3] == "True")
print("started", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("outlive", [False, True])
def test_a_job_ends_with_its_parent_unless_it_may_outlive_it(tmp_path: Path, outlive: bool) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, tmp_path / "mark", tmp_path / "job", str(outlive)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    parent.stdout.readline()
    _until((tmp_path / "mark").exists)
    parent.kill()
    parent.communicate()
    if outlive:
        time.sleep(1.2)
        assert jobs.read_status(tmp_path / "job").state == "running"
        jobs.cancel(tmp_path / "job")
    _until(lambda: jobs.read_status(tmp_path / "job").state == "cancelled")


def test_waiting_that_is_interrupted_stops_the_jobs(tmp_path: Path) -> None:
    job = jobs.start(f"{HERE}:count_slowly", {}, tmp_path / "job")

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jobs.wait([job], progress=stop, timeout_s=60)
    assert job.status().state == "cancelled"
    other = jobs.start(f"{HERE}:count_slowly", {}, tmp_path / "other")
    with pytest.raises(TimeoutError, match="1 of 1 jobs were not over"):
        other.wait(0.3)
    other.cancel()
    assert other.wait(60).state == "cancelled"


@pytest.mark.parametrize("target", ["os:system", "workbench.lab.jobs", "subprocess:run"])
def test_only_functions_of_ours_are_called(tmp_path: Path, target: str) -> None:
    with pytest.raises(BadValue, match="module:function"):
        jobs.start(target, {}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_written_at_most_five_times_a_second(tmp_path: Path) -> None:
    jobs.start(f"{HERE}:chatter", {}, tmp_path).wait(60)
    events = [json.loads(line) for line in (tmp_path / "status.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events if e["event"] != "progress"] == ["start", "done"]
    assert 1 <= sum(e["event"] == "progress" for e in events) < 20
    assert events[-2]["done"] == 10_000, "the last one is always written"
