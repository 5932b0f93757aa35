"""Ctrl-C and SIGTERM between two steps: the step is finished and its checkpoint written, so nothing that was computed is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Asked:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self.stop = False

    def __call__(self, number: int, frame: Any) -> None:
        if self.stop:  # asked twice: now
            raise KeyboardInterrupt
        self.stop = True


@contextmanager
def stopping() -> Iterator[Asked]:
    """Inside the block the first SIGINT or SIGTERM only sets ``stop``, and a second one raises KeyboardInterrupt.

    Only signals that would raise it anyway are taken over: what a program has made of a signal stays.
    """
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    taken = [one for one in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(one) is signal.default_int_handler]
    for one in taken:
        signal.signal(one, asked)
    try:
        yield asked
    finally:
        for one in taken:
            signal.signal(one, signal.default_int_handler)
    if asked.stop:  # it was asked too late to stop anything in the block, and is not forgotten
        raise KeyboardInterrupt
