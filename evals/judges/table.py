"""Where a judge of text is wrong: by set, subgroup and function, with intervals, and the worst by name.

Rows of one function share templates and those of one post a writer, which the intervals do not know of: they are of these items, and
narrower than of others like them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evals.judges.toxicity import Floats
from workbench.core.errors import BadValue
from workbench.core.finding import Interval
from workbench.core.stats.counts import RankAUC, rank_auc
from workbench.core.stats.intervals import wilson
from workbench.data.worlds.mentions import Mention

FEWEST = 10
"""Of fewer items of a label no rate is named the worst."""


@dataclass(frozen=True)
class Rate:
    """``k`` of ``n`` with its interval (Wilson, 95 %)."""

    k: int
    n: int

    @property
    def value(self) -> float:
        return self.k / self.n

    @property
    def interval(self) -> Interval:
        return wilson(self.k, self.n)

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.interval.low:.2f}, {self.interval.high:.2f}]"


@dataclass(frozen=True)
class Row:
    """One slice: how often toxic texts are flagged, how often harmless ones are (None where there are none), and how well the score tells
    them apart (None where one label is missing)."""

    kind: str
    name: str
    hits: Rate | None
    alarms: Rate | None
    area: RankAUC | None

    @classmethod
    def of(cls, kind: str, name: str, margins: Floats, toxic: NDArray[np.bool_]) -> Row:
        """From log-odds and truth ``[text]``. Raises BadValue for no texts."""
        if not len(margins) or len(margins) != len(toxic):
            raise BadValue(f"the texts of '{name}'", (len(margins), len(toxic)), "at least one, and a label for each")
        called, yes, no = margins > 0, int(toxic.sum()), int((~toxic).sum())
        hits = Rate(int((called & toxic).sum()), yes) if yes else None
        alarms = Rate(int((called & ~toxic).sum()), no) if no else None
        return cls(kind, name, hits, alarms, rank_auc(margins[toxic], margins[~toxic]) if yes and no else None)

    def cells(self) -> tuple[str, ...]:
        """For a table: name, items, AUROC, hits, false alarms."""
        count = sum(rate.n for rate in (self.hits, self.alarms) if rate)
        shown = "" if self.area is None else f"{self.area.value:.3f} [{self.area.interval.low:.3f}, {self.area.interval.high:.3f}]"
        return self.name, str(count), shown, str(self.hits or ""), str(self.alarms or "")


def rows(kind: str, names: Sequence[str], margins: Floats, toxic: NDArray[np.bool_]) -> Iterator[Row]:
    """A row for each of the names, in the order they are first met."""
    places = np.array(names)
    for name in dict.fromkeys(names):
        yield Row.of(kind, name, margins[places == name], toxic[places == name])


def case_rows(cases: Sequence[Mention], margins: Floats) -> list[Row]:
    """Functional cases: all, by function, and by the group they name."""
    toxic = np.array([one.toxic for one in cases])
    named = np.array([bool(one.group) for one in cases])
    return [
        Row.of("cases", "all functional cases", margins, toxic),
        *rows("function", [one.function for one in cases], margins, toxic),
        *rows("group", [one.group for one in cases if one.group], margins[named], toxic[named]),
    ]


def worst(found: Sequence[Row]) -> dict[str, Row]:
    """By what is wrong: the slice with the most false alarms, and the one with the fewest hits, among those with enough items."""
    alarms = [row for row in found if row.alarms and row.alarms.n >= FEWEST]
    hits = [row for row in found if row.hits and row.hits.n >= FEWEST]
    out: dict[str, Row] = {}
    if alarms:
        out["most false alarms"] = max(alarms, key=lambda row: row.alarms.value if row.alarms else 0.0)
    if hits:
        out["fewest hits"] = min(hits, key=lambda row: row.hits.value if row.hits else 1.0)
    return out


def turned(cases: Sequence[Mention], margins: Floats) -> Rate:
    """Of all forms that name a group: those whose verdict is not the same for every group. Raises BadValue where no case names one."""
    verdicts: dict[str, set[bool]] = {}
    for one, margin in zip(cases, margins, strict=True):
        if one.group:
            form = one.text.casefold().replace(one.group.casefold(), "{}")
            verdicts.setdefault(f"{one.function}: {form}", set()).add(bool(margin > 0))
    if not verdicts:
        raise BadValue("the cases", "none names a group", "some that do")
    return Rate(sum(len(said) > 1 for said in verdicts.values()), len(verdicts))
