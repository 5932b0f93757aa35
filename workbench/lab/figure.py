"""A result's own chart as a file."""

from __future__ import annotations

from pathlib import Path

from workbench.core.charts.svg import to_png, to_svg
from workbench.core.errors import MissingFile, UnknownName, UsageError
from workbench.core.result import Result
from workbench.store.runs import Store

KINDS = (".svg", ".png")


def checked_place(place: str | Path) -> Path:
    """Where a chart can be written. Raises UsageError for another kind of file and MissingFile for a folder that is not there."""
    path = Path(place)
    if path.suffix not in KINDS:
        raise UsageError(f"A chart is written as {' or '.join(KINDS)}, and '{place}' ends in '{path.suffix}'.")
    if not path.parent.is_dir():
        raise MissingFile(path.parent, "folder for the chart")
    return path


def result_of(store: Store, run: str, name: str = "") -> tuple[str, Result]:
    """A run's result of that name, or its only one. Raises UnknownName, and UsageError where a name is needed."""
    record = store.runs.get(run)
    names = list(store.result_digests(record.id))
    if name and name not in names:
        raise UnknownName("result", name, names, where=f"of run {record.id}")
    if not name and len(names) != 1:
        raise UsageError(f"Run {record.id} has {len(names)} results ({', '.join(names)}). Name one with --result.")
    chosen = name or names[0]
    return chosen, store.result(record.id, chosen).result


def draw(result: Result, place: str | Path) -> Path:
    """Write ``result.plot()`` to ``place``. Raises as ``checked_place``, and MissingExtra without the extra that draws."""
    path, chart = checked_place(place), result.plot()
    if path.suffix == ".svg":
        path.write_text(to_svg(chart, desc=result.summary()), encoding="utf-8")
    else:
        path.write_bytes(to_png(chart))
    return path
