"""Ctrl-C as a terminal's, whatever this run of the tests was started with: a shell starts what is in the background with SIGINT ignored,
and a process hands on what it ignores to those it starts."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heard() -> Iterator[None]:
    """Inside the block SIGINT raises KeyboardInterrupt here, and SIGINT and SIGTERM end processes that are started in it."""
    assert threading.current_thread() is threading.main_thread(), "signals are the main thread's"
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if before[signal.SIGTERM] is signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
