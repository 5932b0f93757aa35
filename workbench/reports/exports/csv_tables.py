"""A run as CSV (RFC 4180) for spreadsheets: ``findings.csv``, and ``samples-SUITE.csv`` with a row a sample and a column a number.

A cell of text that a spreadsheet would take for a formula begins with an apostrophe, and characters that are not seen are shown as symbols.
Numbers are written so that they read back to the same bits.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from workbench.core.finding import Finding
from workbench.reports import phrases
from workbench.reports.exports.evaluated import Evaluated, Files, Part, names_of, slug

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What begins a formula, also in full width."""
FINDING = (
    "source", "claim", "subject", "measure", "effect", "unit", "low", "high", "level", "null", "null_value", "run", "scored", "excluded",
    "verdict", "because", "detectable", "card", "status",
)  # fmt: skip
FIXED = ("sample", "epoch", "group", "cluster", "unscored")


def files(run: Evaluated) -> Files:
    """The tables. Equal runs, equal bytes."""
    out = {"findings.csv": _table(FINDING, map(_finding, run.findings))}
    for part in run.parts:
        names = names_of(part.rows)
        out[f"samples-{slug(part.name)}.csv"] = _table((*FIXED, *names), _samples(part, names))
    return out


def _finding(one: Finding) -> Sequence[Any]:
    low, high, level = (one.interval.low, one.interval.high, one.interval.level) if one.interval is not None else (None, None, None)
    null, value = (one.null.name, one.null.value) if one.null is not None else ("", None)
    counts = (one.denominators.run, one.denominators.scored, one.denominators.excluded) if one.denominators is not None else (None,) * 3
    return (
        one.source, one.claim, one.subject, one.measure, one.effect, one.unit, low, high, level, null, value, *counts, one.verdict.value,
        one.because, one.detectable, one.card_words, one.status,
    )  # fmt: skip


def _samples(part: Part, names: Sequence[str]) -> Iterable[Sequence[Any]]:
    for row in part.rows:
        numbers = row.numbers()
        yield (row.sample, row.epoch, row.group, row.cluster, row.unscored, *(numbers.get(name) for name in names))


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([cell(name) for name in header])
    writer.writerows([cell(value) for value in row] for row in rows)
    return out.getvalue().encode("utf-8")


def cell(value: Any) -> str:
    """What stands in a cell: nothing for None, a number as Python reads it, a text that is no formula."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return repr(value)
    shown = phrases.visible(value)
    return f"'{shown}" if value.lstrip(" ").startswith(FORMULA) or shown.startswith(FORMULA) else shown
