"""``--engine ray``: cards measured on several processes, of this machine or of a Ray cluster, a family of an exam each.

A piece is measured there as it is here, by one thread, and is kept as it comes by the process that measures it. So all of them must have
the same store: its database, and its home, in which cards and models lie.
"""

from __future__ import annotations

import os
import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from workbench.core.errors import Incompatible, StoreError
from workbench.core.protocol import Progress, silent
from workbench.lab.calibrate import Calibrated
from workbench.lab.card_pieces import Piece, Spread, carried_out
from workbench.lab.rays import joined, last_line, parse
from workbench.lab.silence import silence
from workbench.store.runs import Store

STOP_S = 10
"""Seconds that workers are given to say that they were interrupted."""
UNSEEN = "unseen"
"""What a worker says that has not this store."""
SHARED = "a database that every machine reaches (WORKBENCH_STORE) and a home on a disk that all see (WORKBENCH_HOME)"


@contextmanager
def by_rays(engine: str, grid: Literal["quick"] | None, store: Store, progress: Progress = silent) -> Iterator[Spread]:
    """What measures pieces inside the block, as many at once as ``engine`` says (``ray:N``). Raises MissingExtra, BadValue (more workers
    than the cluster has processors), and Incompatible for a store that workers do not share: of a home, once the first of them looks."""
    with joined(engine) as ray, _marked(store.home) as marker:
        _check_database(ray, store)
        task = ray.remote(num_cpus=1, max_retries=0)(_measured)  # what is lost is asked for again by whoever asked for it

        def spread(todo: Sequence[Piece]) -> Iterator[tuple[Piece, Calibrated | str | None]]:
            waiting, running = deque(todo), dict[Any, Piece]()
            try:
                while waiting or running:
                    progress(len(todo) - len(waiting) - len(running), len(todo), "families of an exam")
                    while waiting and len(running) < parse(engine):
                        piece = waiting.popleft()
                        running[task.remote(piece, grid, store.address, marker, os.getcwd())] = piece
                    (ready, *_), _ = ray.wait(list(running), num_returns=1)
                    found = _result(ray, ready)
                    if found == UNSEEN:
                        raise Incompatible("--engine ray", f"the store '{store.where}'", [f"a worker does not see it; it takes {SHARED}"])
                    yield running.pop(ready), found
                progress(len(todo), len(todo), "families of an exam")
            finally:
                _stop(ray, running)

        yield spread


def _measured(piece: Piece, grid: Literal["quick"] | None, address: str, marker: str, folder: str) -> Calibrated | str:
    """What a worker does: the piece, unless its store is another one."""
    silence()
    if Path(folder).is_dir():
        os.chdir(folder)  # the home may be relative
    return carried_out(piece, grid, address) if _sees(address, marker) else UNSEEN


def _sees(address: str, marker: str) -> bool:
    """Whether the store of that address is, from here, the one that was meant."""
    try:
        with Store.open(address, create=False) as store:
            return (store.home / marker).is_file()
    except StoreError:
        return False


def _result(ray: Any, ready: Any) -> Calibrated | str | None:
    try:
        return ray.get(ready)
    except ray.exceptions.RayTaskError as error:  # the worker lives, and could not so much as begin
        return f"a worker failed: {last_line(error)}."
    except ray.exceptions.RayError:
        return None


def _stop(ray: Any, running: dict[Any, Piece]) -> None:
    """Interrupt what still runs, and wait until it has said so."""
    for one in running:
        ray.cancel(one)
    if running:
        ray.wait(list(running), num_returns=len(running), timeout=STOP_S)


@contextmanager
def _marked(home: Path) -> Iterator[str]:
    """A file in the home, inside the block, by which a worker knows that its home is this one."""
    marker = home / f".seen-{secrets.token_hex(8)}"
    marker.touch()
    try:
        yield marker.name
    finally:
        marker.unlink(missing_ok=True)


def _check_database(ray: Any, store: Store) -> None:
    """Raises Incompatible for SQLite on several machines: its processes must be on one, wherever the file lies."""
    machines = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if len(machines) > 1 and "://" not in store.address:
        against = [f"SQLite is for the processes of one machine, and the cluster has {len(machines)}; it takes {SHARED}"]
        raise Incompatible("--engine ray", f"the store '{store.where}'", against)
