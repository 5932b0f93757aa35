"""Which process is working on a run, and whether it still lives.

A process that was killed leaves its run marked *running*. The owner written beside it (host, process id and the
process's start, since ids are used again) tells such a run from one that is still being worked on.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def owner_here() -> dict[str, Any]:
    """The owner that this process is."""
    return {"host": platform.node(), "pid": os.getpid(), "started": _started(os.getpid())}


def is_alive(owner: Mapping[str, Any]) -> bool:
    """Whether the owner may still be working: true for another machine, which cannot be asked."""
    if owner.get("host") != platform.node():
        return True
    pid = int(owner["pid"])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it lives and belongs to somebody else
    return _started(pid) == owner["started"]


def _started(pid: int) -> str:
    """When a process began, in clock ticks since boot; '' where the system does not say so, '0' for a dead child not yet waited for."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()  # the name before may hold spaces and brackets
    return "0" if fields[0] in "ZX" else fields[19]
