"""Real processes on one store: two that write at once, one that is killed while it writes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from workbench.store.runs import Store

WRITER = """
import sys
from workbench.store.runs import Store
url, run, first, batches, size, step = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
store = Store.open(url)
sink = store.sink(run, "pairs")
done = sink.done()
print("ready", flush=True)
for batch in range(first, batches):
    records = [{"sample": f"{batch * step + i:06d}", "epoch": 0, "value": batch} for i in range(size)]
    sink.put([r for r in records if (r["sample"], 0) not in done])
    print(batch, flush=True)
"""

BEGINNER = """
import sys
from workbench.store.runs import Store
sys.stdin.readline()
store = Store.open(sys.argv[1])
print(*[store.runs.create("eval", {}) for _ in range(30)])
"""

IDLER = """
import sys, time
from workbench.store.runs import Store
print(Store.open(sys.argv[1]).runs.create("eval", {}), flush=True)
time.sleep(60)
"""


def _start(script: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_many_processes_may_open_a_new_store_at_once(store_url: str) -> None:
    starting = [_start(BEGINNER, store_url) for _ in range(3)]
    for one in starting:
        assert one.stdin
        one.stdin.write("go\n")
        one.stdin.flush()
    ids = [run for one in starting for run in one.communicate(timeout=60)[0].split()]
    assert [one.returncode for one in starting] == [0] * 3
    assert len(set(ids)) == 90
    with Store.open(store_url) as store:
        assert {record.id for record in store.runs.list()} == set(ids)


@pytest.mark.slow
def test_two_processes_write_overlapping_samples_and_none_is_lost_or_doubled(store: Store, store_url: str) -> None:
    run = store.runs.create("eval", {})
    # batches of 30 that overlap by 10, written by both
    writing = [_start(WRITER, store_url, run, 0, 40, 30, 20) for _ in range(2)]
    assert [one.wait(60) for one in writing if one.communicate(timeout=60)] == [0, 0]
    samples = [record["sample"] for record in store.sink(run, "pairs").read()]
    assert samples == [f"{n:06d}" for n in range(39 * 20 + 30)]


def _kill_while_writing(store: Store, url: str, seed: int) -> None:
    """SIGKILL at a random moment, then again from there: whole batches only, and in the end all of them once."""
    chance, batches, size = random.Random(seed), 150, 16
    run = store.runs.create("eval", {})
    for _ in range(2):
        writer = _start(WRITER, url, run, 0, batches, size, size)
        assert writer.stdout
        assert writer.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.25))
        os.kill(writer.pid, signal.SIGKILL)
        said = [int(line) for line in writer.communicate(timeout=60)[0].split()]
        records = store.sink(run, "pairs").read()
        counts = {batch: sum(r["value"] == batch for r in records) for batch in {r["value"] for r in records}}
        assert set(counts.values()) <= {size}, "half a batch was committed"
        assert counts.keys() >= set(said), "a batch that was reported as written is gone"
        assert sorted(counts) == list(range(len(counts)))
    writer = _start(WRITER, url, run, 0, batches, size, size)
    writer.communicate(timeout=60)
    assert writer.returncode == 0
    assert [r["sample"] for r in store.sink(run, "pairs").read()] == [f"{n:06d}" for n in range(batches * size)]


@pytest.mark.full
def test_a_writer_killed_at_random_leaves_whole_batches(store: Store, store_url: str) -> None:
    _kill_while_writing(store, store_url, seed=1)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(2, 8))
def test_writers_killed_at_many_moments_leave_whole_batches(store: Store, store_url: str, seed: int) -> None:
    _kill_while_writing(store, store_url, seed)


def test_the_run_of_a_killed_process_counts_as_interrupted_and_can_be_resumed(store: Store, store_url: str) -> None:
    working = _start(IDLER, store_url)
    assert working.stdout
    run = working.stdout.readline().strip()
    assert store.runs.get(run).status == "running"
    os.kill(working.pid, signal.SIGKILL)
    _wait_until(lambda: store.runs.get(run).status == "interrupted")  # already before it is waited for: a zombie does not work
    working.communicate()
    assert [r.id for r in store.runs.list(status="interrupted")] == [run]
    assert store.runs.resume(run).status == "running"


def _wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_put_waits_for_another_writer_instead_of_failing(tmp_path: Path) -> None:
    """A transaction that holds SQLite's write lock for a second must only delay us."""
    store = Store.open(tmp_path)
    run = store.runs.create("eval", {})
    holder = _start(
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN IMMEDIATE');"
        " print('held', flush=True); time.sleep(1); c.execute('COMMIT')",
        tmp_path / "store.sqlite",
    )
    assert holder.stdout
    holder.stdout.readline()
    began = time.monotonic()
    store.sink(run, "pairs").put([{"sample": "a", "epoch": 0}])
    assert time.monotonic() - began > 0.5
    assert store.sink(run, "pairs").done() == {("a", 0)}
    holder.communicate()
