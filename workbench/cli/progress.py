"""The progress bar: on stderr, with the time left, and silent when nobody watches a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Report = Callable[[int, int, str], None]


@contextmanager
def bar() -> Iterator[Report]:
    """A ``core.protocol.Progress`` that draws one line at a time, with a bar, the time gone and the time left."""
    if not sys.stderr.isatty():
        yield lambda done, total, words="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left", markup=False), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=8, transient=True) as drawing:
        yield _Line(drawing)


class _Line:
    """One task of a ``rich.progress.Progress``; it begins again when the count falls or another total is named."""

    def __init__(self, drawing: Any) -> None:
        self._drawing = drawing
        self._task: Any = None
        self._done = self._total = 0

    def __call__(self, done: int, total: int, words: str = "") -> None:
        if self._task is None or total != self._total or done < self._done:
            if self._task is not None:
                self._drawing.remove_task(self._task)
            self._task = self._drawing.add_task(words, total=total)
        self._done, self._total = done, total
        self._drawing.update(self._task, completed=done, description=words)
