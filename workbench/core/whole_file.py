"""Writing a file so that a reader, and a process that dies, finds it whole: as it was, or as it is."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_whole(place: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a file beside ``place``, which then takes its name. What ``write`` raises leaves ``place`` as it was."""
    unfinished = place.with_name(f".writing-{secrets.token_hex(4)}-{place.name}.part")
    try:
        with unfinished.open("wb") as out:
            write(out)
            out.flush()
            os.fsync(out.fileno())
        os.replace(unfinished, place)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
