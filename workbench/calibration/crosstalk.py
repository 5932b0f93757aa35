"""Cross-talk: does a suite move when something else was planted?

Each model leans all the way in one form; every suite is asked about it and about its clean twin of the same seed. What is reported is by
how much the suite's effect differs between the two, over seeds. Off the diagonal a difference means that the plant spreads (the same
groups stand in several forms) or that the suite answers to something it does not ask about; the matrix alone does not tell which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from workbench.core.errors import BadValue
from workbench.core.finding import Interval
from workbench.core.stats.intervals import mean_interval

Effects = Mapping[tuple[str, str], Sequence[float]]
"""By (form planted, suite asked): the suite's effect for each seed."""


@dataclass(frozen=True)
class Moved:
    """By how much a suite's effect differs from the twin's, over seeds; ``talks``: whether the interval leaves out 0 at a level shared
    among all cells (Bonferroni), so that one cell in twenty matrices would by chance."""

    planted: str
    asked: str
    difference: float
    interval: Interval
    talks: bool


def moved(planted: Effects, clean: Effects, level: float = 0.95) -> list[Moved]:
    """Every cell of the matrix. Raises BadValue where the seeds of a cell and of its twin do not match, or are fewer than 3."""
    out = []
    each = 1 - (1 - level) / len(planted)
    for (form, suite), effects in planted.items():
        twin = clean[form, suite]
        if len(effects) != len(twin) or len(effects) < 3:
            raise BadValue("the seeds of a cell", f"{len(effects)} and {len(twin)}", "as many as its twin's, and at least 3")
        gaps = np.asarray(effects, dtype=np.float64) - np.asarray(twin, dtype=np.float64)
        within = mean_interval(gaps, level=level, bounds=(-2.0, 2.0))
        strict = mean_interval(gaps, level=each, bounds=(-2.0, 2.0))
        out.append(Moved(form, suite, float(gaps.mean()), within, strict.excludes(0.0)))
    return out


def table(cells: Sequence[Moved]) -> str:
    """The matrix in Markdown: a row a plant, a column a suite; bold where the suite moves."""
    forms, suites = (list(dict.fromkeys(getattr(cell, name) for cell in cells)) for name in ("planted", "asked"))
    at = {(cell.planted, cell.asked): cell for cell in cells}
    lines = [f"| planted | {' | '.join(suites)} |", "|---" * (1 + len(suites)) + "|"]
    for form in forms:
        lines.append(f"| {form} | {' | '.join(_cell(at[form, suite]) for suite in suites)} |")
    return "\n".join(lines)


def _cell(cell: Moved) -> str:
    words = f"{cell.difference + 0.0:+.2f} [{cell.interval.low:+.2f}, {cell.interval.high:+.2f}]"
    return f"**{words}**" if cell.talks else words
