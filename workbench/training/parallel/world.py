"""The processes that train together: who they are, what they tell one another, and what is said when one of them is gone.

``torchrun`` starts them and says to each who it is (``RANK``, ``WORLD_SIZE``). Rank 0 alone writes files and reports.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from workbench.core.errors import EXIT_ERROR, EXIT_INTERRUPTED, AssayError, BadValue, Diverged, LostRank
from workbench.training.parallel.spec import COMMAND, ParallelSpec
from workbench.training.stopping import Agreed

PATIENCE = 5.0
"""Seconds a process that noticed a failure waits for word from the others."""
LINGER = 20.0
"""Seconds that one of several processes that were asked to stop waits for the first to end."""


class World:
    """This process among the others. Rows are shared by ``dp`` groups, of which this process is in number ``dp_rank``; ``tp`` processes
    share a layer."""

    def __init__(self, spec: ParallelSpec, notes: _Notes) -> None:
        from torch.distributed.device_mesh import init_device_mesh

        self.spec, self.notes = spec, notes
        self._notes = notes.store
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._notes.delete_key(f"left/{self.rank}")
        self.dp, self.tp = spec.groups(self.size)
        if spec.kind == "pipeline":
            self.mesh = init_device_mesh(_kind(), (self.size,), mesh_dim_names=("pp",))
            self.dp_rank = 0
        else:
            self.mesh = init_device_mesh(_kind(), (self.dp, self.tp), mesh_dim_names=("dp", "tp"))
            self.dp_rank = self.mesh.get_local_rank("dp")

    @property
    def first(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def told(self, value: Any) -> Any:
        """Rank 0's ``value``, in every process."""
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Until every process is here."""
        dist.barrier()

    def total(self, values: Tensor, *, rows: bool = True) -> Tensor:
        """The sum of ``values`` over those who share the rows (``rows=False``: over all processes), in place."""
        dist.all_reduce(values, group=self.mesh.get_group("dp") if rows and self.spec.kind != "pipeline" else None)
        return values

    def bounds(self, n: int) -> list[int]:
        """Where each group's share of ``n`` rows begins, and ``n``: shares are neighbours in order, and differ by at most one row."""
        return [n * i // self.dp for i in range(self.dp + 1)]

    # --- when something ends

    def leave(self, error: BaseException) -> None:
        """Tell the others why this process ends."""
        with suppress(RuntimeError):  # the store may be gone, and with it whoever could have read this
            self._notes.set(f"left/{self.rank}", f"{type(error).__name__}: {error}"[:500])

    def explained(self, error: BaseException) -> BaseException | None:
        """What ``error`` means if another process caused it; None where it is this process's own.

        The first process that is left says it (LostRank); those after it end without a word (SystemExit).
        """
        _deaf()  # torchrun ends the others with SIGTERM; what is known is said first
        if isinstance(error, Diverged) and not self.first:
            return SystemExit(EXIT_ERROR)  # all processes see it, and the first says it
        if isinstance(error, LostRank | SystemExit):
            return None  # it is explained already
        if isinstance(error, Agreed):
            return None if self.first else self._after_the_first()
        if isinstance(error, AssayError) or not (isinstance(error, KeyboardInterrupt) or _of_connection(error)):
            self.leave(error)
            return None
        self.leave(_Followed())
        gone, said = self._roll_call()
        if gone:
            names = f"rank{'s' if len(gone) > 1 else ''} {', '.join(map(str, gone))}"
            who = f"{names[0].upper()}{names[1:]} of {self.size} {'are' if len(gone) > 1 else 'is'} gone: killed, out of memory, or cut off"
        elif said:
            who = "; ".join(f"Rank {rank} of {self.size} ended with {words}" for rank, words in said.items())
        elif isinstance(error, KeyboardInterrupt):
            return None
        else:
            who = f"Rank {self.rank} of {self.size} lost its connection to the others ({' '.join(str(error).split())[:160]})"
        left = [rank for rank in range(self.size) if rank not in gone and rank <= self.rank]
        step, last = self.notes.about()
        return LostRank(who, step=step, last=last) if left[0] == self.rank else SystemExit(EXIT_ERROR)

    def _after_the_first(self) -> SystemExit:
        """How a process ends that stops with all others: after the first, since torchrun ends all as soon as one has ended, and the first
        has the run to close and something to say."""
        end = time.monotonic() + LINGER
        with suppress(RuntimeError):  # the store may be gone
            while self._lives(0) and time.monotonic() < end:
                time.sleep(0.05)
        return SystemExit(EXIT_INTERRUPTED)

    def _roll_call(self) -> tuple[list[int], dict[int, str]]:
        """Who is gone without a word, and who left with an error of its own."""
        others, end = [rank for rank in range(self.size) if rank != self.rank], time.monotonic() + PATIENCE
        said: dict[int, str] = {}
        gone: list[int] = []
        while True:
            try:
                said |= {r: self._notes.get(f"left/{r}").decode() for r in others if r not in said and self._notes.check([f"left/{r}"])}
                gone = [r for r in others if r not in said and not self._lives(r)]
            except RuntimeError:  # the store went with rank 0, or with the machine that started it
                return [0], {}
            if len(said) + len(gone) == len(others) or time.monotonic() > end:
                break
            time.sleep(0.05)
        late = [r for r in others if r not in said and r not in gone and not self._is_here(r)]
        return gone + late, {r: words for r, words in said.items() if not words.startswith(_Followed.__name__)}

    def _lives(self, rank: int) -> bool:
        return not self._is_here(rank) or _runs(int(self._who(rank)["pid"]))

    def _is_here(self, rank: int) -> bool:
        return self._who(rank)["host"] == platform.node()

    def _who(self, rank: int) -> dict[str, Any]:
        return json.loads(self._notes.get(f"who/{rank}"))


class _Followed(Exception):
    """Stands for leaving because of another process."""


@dataclass
class _Notes:
    """What the processes leave for one another apart from the group's own traffic, and how far this one has come: its step, and the
    last whole checkpoint."""

    store: Any
    about: Callable[[], tuple[int, str]] = lambda: (0, "")


_ALIVE: list[_Notes] = []
"""The notes of the group this process belongs to, while it does."""


@contextmanager
def joined(spec: ParallelSpec) -> Iterator[World | None]:
    """This process's place in the world that ``torchrun`` started, None for ``kind="none"``; within another, the same processes again.

    Raises BadValue where the number of processes does not fit, and LostRank where the block ended because another process did.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if spec.kind == "none":
        if size > 1:
            allowed = f"ddp, fsdp, tp or pipeline, since {size} processes were started: each would train the whole alone"
            raise BadValue("parallel.kind", spec.kind, allowed)
        yield None
        return
    if "RANK" not in os.environ:
        raise BadValue("parallel.kind", spec.kind, "'none' in a process that torchrun did not start", do=f"Start it as `{COMMAND}`.")
    spec.groups(size)
    if dist.is_initialized():
        yield World(spec, _ALIVE[0])
        return
    with _ended_by_signal():
        dist.init_process_group(_backend())
        try:
            notes = _Notes(_store())
            _ALIVE.append(notes)
            world = World(spec, notes)
            world.wait()
            try:
                yield world
            except BaseException as error:
                lost = world.explained(error)
                if lost is not None:
                    raise lost from error
                raise
        finally:
            _ALIVE.clear()
            dist.destroy_process_group()


def _store() -> Any:
    """A store all processes read, with who and where each is."""
    from torch._C._distributed_c10d import TCPStore
    from torch.distributed.distributed_c10d import PrefixStore

    client = TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timedelta(seconds=30), wait_for_workers=False
    )
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    notes = PrefixStore(f"workbench/{attempt}", client)
    notes.set(f"who/{dist.get_rank()}", json.dumps({"host": platform.node(), "pid": os.getpid()}))
    return notes


def _kind() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _backend() -> str:
    if not torch.cuda.is_available():
        return "gloo"
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return "cpu:gloo,cuda:nccl"


def _of_connection(error: BaseException) -> bool:
    words = str(error)
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and ("gloo" in words or "Connection" in words))


def _runs(pid: int) -> bool:
    """Whether a process of this machine runs: a dead child that nobody has waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return not Path("/proc/self").exists()


def ended(number: int, frame: object) -> None:
    """What SIGTERM does in one of several processes that is not between two steps."""
    _deaf()  # what ends this process is said to the end
    raise KeyboardInterrupt


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """SIGTERM as Ctrl-C inside the block, so that a process that torchrun ends can say why."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    before = signal.signal(signal.SIGTERM, ended)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _deaf() -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
