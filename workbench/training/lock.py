"""One process trains in a folder at a time.

The lock is the system's own (flock) on a file in the folder, so it ends with the process that holds it, however that ends: what a dead
process left behind blocks nobody. What is written in the file only says who holds it.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.core.errors import Occupied, Unwritable

try:
    import fcntl
except ImportError:  # not on this system: there a lock is a courtesy that is not had, since checkpoints are written whole
    fcntl = None

LOCK = ".lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """``folder`` (made if need be), for this process alone inside the block. Raises Occupied, and Unwritable where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise Unwritable("The run", folder, error.strerror or str(error)) from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise Occupied(folder, holder(folder)) from None
                # a file system without locks
        try:
            file.seek(0)
            file.truncate()
            json.dump({"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}, file)
            file.flush()
        except OSError as error:
            raise Unwritable("The run", folder, error.strerror or str(error)) from error
        yield


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until no other process is inside for the same file: two that want one model train it once."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def holder(folder: Path) -> str:
    """Who holds the lock of ``folder``, in words."""
    try:
        facts = json.loads((folder / LOCK).read_text(encoding="utf-8"))
        return f"process {facts['pid']} on {facts['host']} since {facts['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun to say so
        return "another process"
