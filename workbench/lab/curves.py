"""Specification curves of a stored result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.specification import WAYS, SpecificationResult, curves, finding
from workbench.core.charts.svg import to_svg
from workbench.core.errors import UnknownName, UsageError
from workbench.core.finding import Finding
from workbench.lab.samples import suite_named
from workbench.store.runs import Store

SHOWN = 6
"""So many ways from either end are listed."""


@dataclass(frozen=True)
class ShownCurve:
    """One question's curve in words and rows, with where its chart was written ('' where none was asked)."""

    run: str
    result: SpecificationResult
    finding: Finding
    chart: str = ""

    @property
    def summary(self) -> str:
        return self.result.summary()

    @property
    def header(self) -> tuple[str, ...]:
        return ("value", "interval", *self._choices())

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The lowest and the highest ways."""
        frame = self.result.to_frame().sort_values("value", kind="stable")
        ends = frame if len(frame) <= 2 * SHOWN else frame.iloc[[*range(SHOWN), *range(len(frame) - SHOWN, len(frame))]]
        return [
            (f"{row['value']:.4g}", f"[{row['low']:.4g}, {row['high']:.4g}]", *(str(row[f"choice: {name}"]) for name in self._choices()))
            for row in ends.to_dict("records")
        ]

    def document(self) -> dict[str, Any]:
        rows = self.result.to_frame().drop(columns="specification").to_dict("records")
        return {"summary": self.summary, "finding": self.finding.model_dump(mode="json"), "ways": rows, "chart": self.chart}

    def _choices(self) -> list[str]:
        return [str(name).removeprefix("choice: ") for name in self.result.values.coords if str(name).startswith("choice: ")]


def can_be_scored(run: str, result: str, *, store: Store) -> bool:
    """Whether a run has that result, and its suite has several ways."""
    return suite_named(result) in WAYS and result in store.result_digests(run)


def curves_of(
    run: str, suite: str = "", *, store: Store | None = None, level: float = 0.95, out: Path | None = None
) -> Sequence[ShownCurve]:
    """The curves of a run's result of ``suite`` (needed where it has several that can be scored in several ways).

    Raises UnknownName for a run or result there is not, UsageError where no result or more than one will do, and BadValue for too few
    items."""
    store = store if store is not None else Store.open(create=False)
    record = store.runs.get(run)
    stored = {name: store.result(record.id, name).result for name in store.result_digests(record.id)}
    able = [name for name, result in stored.items() if result.kind in WAYS]
    if suite and suite not in stored:
        raise UnknownName("result", suite, stored, where=f"in run {record.id}")
    chosen = [suite] if suite else able
    if len(chosen) != 1:
        has = f"it has {', '.join(able)}. Name one with --suite" if able else f"it has none of {', '.join(WAYS)}"
        raise UsageError(f"Run {record.id} has not exactly one result that can be scored in several ways: {has}.")
    result = stored[chosen[0]]
    out_names = []
    found = curves(result, level=level)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(found, start=1):
        path = "" if out is None else str(out / f"{result.kind}-{number}.svg")
        if path:
            Path(path).write_text(to_svg(one.plot()), encoding="utf-8")
        out_names.append(path)
    subject = result.provenance.model
    return tuple(ShownCurve(record.id, one, finding(one, subject=subject), path) for one, path in zip(found, out_names, strict=True))
