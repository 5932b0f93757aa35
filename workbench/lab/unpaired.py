"""Two runs of one suite that were asked different samples: their means side by side, as those of different items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.core.errors import BadValue
from workbench.core.finding import Denominators, Interval
from workbench.core.stats.unpaired import unpaired_interval
from workbench.lab.compare import Comparison, Difference, Kept, Numbers, numbers_of

Record = Mapping[str, Any]


def unpaired(first: Kept, second: Kept, *, level: float = 0.95) -> Comparison:
    """Every number that all scored samples of both runs have. Denominators count both runs together."""
    a, b = ([r for _, r in sorted(one.records.items())] for one in (first, second))
    reasons: dict[str, int] = {}
    for record in (*a, *b):
        if record["unscored"]:
            reasons[record["unscored"]] = reasons.get(record["unscored"], 0) + 1
    kept_a, kept_b = ([r for r in side if not r["unscored"]] for side in (a, b))
    asked = Denominators(run=len(a) + len(b), scored=len(kept_a) + len(kept_b), unscored=reasons)
    sides = _Side.of(kept_a), _Side.of(kept_b)
    differences = tuple(_difference(value, *sides, level) for value in _shared(*sides))
    return Comparison(first.name, first.run, second.run, asked, differences, ())


@dataclass(frozen=True)
class _Side:
    """The scored samples of one run: their numbers by name, and their clusters."""

    numbers: list[Numbers]
    clusters: list[str]

    @classmethod
    def of(cls, kept: Sequence[Record]) -> _Side:
        return cls([numbers_of(r["values"]) for r in kept], [str(r.get("cluster") or r["sample"]) for r in kept])


def _shared(a: _Side, b: _Side) -> list[str]:
    """The names whose value is a number, or true or false, in every scored sample of both."""
    return sorted(set.intersection(*(set(one) for one in (*a.numbers, *b.numbers)))) if a.numbers and b.numbers else []


def _difference(value: str, a: _Side, b: _Side, level: float) -> Difference:
    x, y = ([float(one[value]) for one in side.numbers] for side in (a, b))
    means = sum(x) / len(x), sum(y) / len(y)
    interval: Interval | None = None
    note = ""
    try:
        interval = unpaired_interval(y, x, clusters_a=b.clusters, clusters_b=a.clusters, level=level)
    except BadValue as error:
        flat = len(set(x)) == len(set(y)) == 1
        note = f"no interval: {'neither side has any spread' if flat else str(error).split('. ')[0].rstrip('.')}"
    return Difference(
        value, *means, means[1] - means[0], interval, None, len(x) + len(y), len(set(a.clusters)) + len(set(b.clusters)), note
    )
