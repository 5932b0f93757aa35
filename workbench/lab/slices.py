"""Subgroups: the mean of one value of a suite's samples in each of its groups, with its interval. Descriptive: a slice claims nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.core.errors import BadValue
from workbench.core.finding import Interval, Plan
from workbench.core.stats.intervals import wilson
from workbench.core.stats.resampling import bootstrap, fewest
from workbench.lab.compare import numbers_of

Record = Mapping[str, Any]
Read = Callable[[str], Iterable[Record]]
"""The sample records of one suite on one model, by ``NAME.PART``."""


@dataclass(frozen=True)
class Group:
    """One subgroup: how many samples were scored and how many not, their mean, and its interval or why there is none."""

    name: str
    n: int
    unscored: int
    mean: float | None
    interval: Interval | None
    note: str = ""


@dataclass(frozen=True)
class Sliced:
    """A declared slice on one model, its groups in the order of their names; ``note``: why there are none."""

    of: str
    value: str
    part: str
    groups: tuple[Group, ...]
    note: str = ""


def number_in(values: Mapping[str, Any], path: str) -> bool | int | float | None:
    """The number, or true or false, under a dotted name; None where there is none."""
    found: Any = values
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, bool | int | float) else None


def sliced(plan: Plan, labels: Iterable[str], read: Read) -> list[Sliced]:
    """Every declared slice on every model that was asked its suite."""
    out: list[Sliced] = []
    there = set(labels)
    for one in plan.slices:
        for part in sorted({label.rpartition(".")[2] for label in there}):
            if (label := f"{one.of}.{part}") in there:
                records = sorted(read(label), key=lambda record: (str(record["sample"]), int(record["epoch"])))
                note = _nothing(records, one.value)
                out.append(Sliced(one.of, one.value, part, () if note else _groups(records, one.value, plan.level), note))
    return out


def _nothing(records: Sequence[Record], value: str) -> str:
    """Why there is nothing to slice, or ''."""
    if any(number_in(record["values"], value) is not None for record in records):
        return ""
    known = sorted({name for record in records for name in numbers_of(record["values"])})
    return f"No sample has a number '{value}'. There are {', '.join(known) or 'none'}."


def _groups(records: Sequence[Record], value: str, level: float) -> tuple[Group, ...]:
    """Each group's mean. Of a value that is true or false it is a share, and its interval lies within 0 and 1; a number that happens to be
    0 or 1 may be a count, which has no such bounds."""
    names = sorted({str(record["group"]) for record in records})
    return tuple(_group(name, [r for r in records if str(r["group"]) == name], value, level) for name in names)


def _group(name: str, records: Sequence[Record], value: str, level: float) -> Group:
    scored = [(number_in(r["values"], value), str(r["cluster"] or r["sample"])) for r in records if not r["unscored"]]
    kept = [(v, c) for v, c in scored if v is not None]
    missing = len(records) - len(kept)
    if not kept:
        return Group(name, 0, missing, None, None, "nothing was scored")
    numbers, clusters = [float(v) for v, _ in kept], [c for _, c in kept]
    mean, share = sum(numbers) / len(numbers), all(isinstance(v, bool) for v, _ in kept)
    if share and len(set(clusters)) == len(clusters):
        return Group(name, len(kept), missing, mean, wilson(int(sum(numbers)), len(numbers), level))
    if (units := len(set(clusters))) < fewest(level):
        return Group(name, len(kept), missing, mean, None, f"too few for an interval: {units} cluster{'s' if units > 1 else ''}")
    try:
        bounds = (0.0, 1.0) if share else None
        return Group(name, len(kept), missing, mean, bootstrap(numbers, clusters=clusters, level=level, bounds=bounds).interval)
    except BadValue:
        return Group(name, len(kept), missing, mean, None, "every cluster has this mean, so nothing says how far others would lie from it")
