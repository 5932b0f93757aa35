"""Two runs of one suite that were asked different samples: their means side by side, as those of different items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.core.errors import BadValue
from workbench.core.finding import Denominators, Interval
from workbench.core.stats.unpaired import unpaired_interval
from workbench.lab.compare import Comparison, Difference, records
from workbench.store.runs import Store

Record = Mapping[str, Any]


def unpaired(store: Store, first: tuple[str, str], second: tuple[str, str], *, level: float = 0.95) -> Comparison:
    """Every number that all scored samples of both runs have, each run given by (run, name). Denominators count both runs together."""
    a, b = ([r for _, r in sorted(records(store, *one).items())] for one in (first, second))
    reasons: dict[str, int] = {}
    for record in (*a, *b):
        if record["unscored"]:
            reasons[record["unscored"]] = reasons.get(record["unscored"], 0) + 1
    kept_a, kept_b = ([r for r in side if not r["unscored"]] for side in (a, b))
    asked = Denominators(run=len(a) + len(b), scored=len(kept_a) + len(kept_b), unscored=reasons)
    differences = tuple(_difference(value, kept_a, kept_b, level) for value in _values(kept_a, kept_b))
    return Comparison(first[1], first[0], second[0], asked, differences, ())


def _values(a: Sequence[Record], b: Sequence[Record]) -> list[str]:
    """The names whose value is a number, or true or false, in every scored sample of both."""
    if not a or not b:
        return []
    return sorted(set.intersection(*({n for n, v in r["values"].items() if isinstance(v, bool | int | float)} for r in (*a, *b))))


def _difference(value: str, a: Sequence[Record], b: Sequence[Record], level: float) -> Difference:
    x, y = ([float(r["values"][value]) for r in side] for side in (a, b))
    of_x, of_y = ([str(r.get("cluster") or r["sample"]) for r in side] for side in (a, b))
    means = sum(x) / len(x), sum(y) / len(y)
    interval: Interval | None = None
    note = ""
    try:
        interval = unpaired_interval(y, x, clusters_a=of_y, clusters_b=of_x, level=level)
    except BadValue as error:
        note = f"no interval: {str(error).split('. ')[0].rstrip('.')}"
    return Difference(value, *means, means[1] - means[0], interval, None, len(x) + len(y), len(set(of_x)) + len(set(of_y)), note)
