"""Memory that a pass frees is used by the next one.

glibc hands freed memory back to the system, and each page of it that is asked for again costs a fault: some 40,000 of them while 400
sentences were scored on the machine of the benchmarks, which took 0.62 and 0.63 s with them and 0.58 and 0.61 without, about 5 %
(docs/engine.md). Here the process is told to keep some of it. The setting is the process's, not a pass's: it holds for whatever else runs
there, and for good.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

KEPT = 256 << 20
"""Bytes of freed memory kept at most at the top of each arena (glibc's threads may have one each): no bound of the process as a whole."""
BLOCK = 32 << 20
"""Blocks up to this many bytes are taken from what is kept; larger ones always come from the system and go back to it."""
_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_WORDS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@cache
def keep_freed() -> bool:
    """Tell the allocator once, for the whole process; whether it was told. It is not where somebody chose by the environment, nor where
    the C library has no such word."""
    tell = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if tell is None or any(word in os.environ for word in _WORDS):
        return False
    return bool(tell(_MMAP, BLOCK)) and bool(tell(_TRIM, KEPT))
