"""What the job tests run in another process."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.core.errors import BadValue
from workbench.lab.silence import loud

if TYPE_CHECKING:
    from workbench.core.protocol import Progress


def add(a: int, b: int, progress: Progress) -> dict[str, Any]:
    for n in range(1, 4):
        progress(n, 3, "adding")
    return {"sum": a + b, "threads": os.environ.get("OMP_NUM_THREADS"), "telemetry": loud()}


def fail_knowingly(progress: Progress) -> None:
    raise BadValue("steps", 0, "at least 1")


def fail_otherwise(progress: Progress) -> None:
    print(1 / 0)


def wait_long(mark: str, progress: Progress) -> None:
    try:
        Path(mark).write_text("begun")
        time.sleep(60)
    except KeyboardInterrupt:
        Path(mark).write_text("interrupted")
        raise


def count_slowly(progress: Progress) -> None:
    for n in range(600):
        progress(n, 600, "counting")
        time.sleep(0.1)


def chatter(progress: Progress) -> None:
    for n in range(10_001):
        progress(n, 10_000, "")
