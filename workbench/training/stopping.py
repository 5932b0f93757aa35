"""Ctrl-C and SIGTERM between two steps: the step is finished and its checkpoint written, so nothing that was computed is lost.

Of several processes one that is asked asks the others with the sums of its step, and all end after the same one.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

GRACE = 2.0
"""Seconds in which several processes take a second signal for the same one: what starts them passes on what a terminal sent already."""


class Agreed(KeyboardInterrupt):
    """All processes end after the same step, and each knows it."""


class Asked:
    """Whether this process was asked to stop. ``grace``: seconds in which being asked again says nothing new."""

    def __init__(self, grace: float = 0.0) -> None:
        self.stop, self._grace, self._since = False, grace, 0.0

    def __call__(self, number: int, frame: Any) -> None:
        if not self.stop:
            self.stop, self._since = True, time.monotonic()
        elif time.monotonic() - self._since >= self._grace:  # asked twice: now
            raise KeyboardInterrupt


@contextmanager
def stopping(*instead: Callable[[int, Any], Any], grace: float = 0.0) -> Iterator[Asked]:
    """Inside the block the first SIGINT or SIGTERM only sets ``stop``, and a second one (after ``grace`` seconds) raises KeyboardInterrupt.

    Only signals that would raise it anyway are taken over, as those do whose handler is one of ``instead``: what a program has made of a
    signal stays.
    """
    asked = Asked(grace)
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    raising = (signal.default_int_handler, *instead)
    taken = {one: before for one in (signal.SIGINT, signal.SIGTERM) if (before := signal.getsignal(one)) in raising}
    for one in taken:
        signal.signal(one, asked)
    try:
        yield asked
    finally:
        for one, before in taken.items():
            if signal.getsignal(one) is asked:
                signal.signal(one, before)
    if asked.stop:  # it was asked too late to stop anything in the block, and is not forgotten
        raise KeyboardInterrupt
