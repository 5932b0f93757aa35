"""Findings as a table and as forest plots: the report and the dashboard draw them with these same functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from workbench.core.charts.lines import forest
from workbench.core.finding import Finding
from workbench.reports import phrases

COLUMNS = ("verdict", "claim", "subject", "measure", "effect", "unit", "interval", "null", "scored", "of", "planted", "calibration")


def findings_frame(findings: Sequence[Finding]) -> pd.DataFrame:
    """One row a finding in words, in the order given: the columns are ``COLUMNS``."""
    rows = []
    for finding in findings:
        places, counts, null = phrases.places_of(finding), finding.denominators, finding.null
        rows.append(
            (
                phrases.decided_words(finding),
                finding.claim,
                finding.subject,
                finding.measure,
                phrases.number(finding.effect, places),
                finding.unit,
                phrases.bounds_words(finding.interval, places),
                phrases.null_words(null, places),
                counts.scored if counts else None,
                counts.run + counts.excluded if counts else None,
                "" if finding.planted is None else phrases.given(finding.planted, places),
                phrases.card_mark(finding),
            )
        )
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({"scored": "Int64", "of": "Int64"})


MOST_LABEL = 160
"""Characters of a label beside a mark."""


@dataclass(frozen=True)
class Forest:
    """Findings measured in one way, so that they share an axis; ``chart`` is an Altair chart and ``frame`` its numbers."""

    title: str
    chart: Any
    frame: pd.DataFrame


def forests(findings: Sequence[Finding]) -> list[Forest]:
    """One forest plot for each measure and unit that some finding with an effect has, in the order of first appearance.

    A line stands at the null where all rows of a plot share its value. Findings without an effect are in no plot.
    """
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        if finding.effect is not None:
            groups.setdefault((finding.measure, finding.unit), []).append(finding)
    return [_forest(measure, unit, group) for (measure, unit), group in groups.items()]


def _forest(measure: str, unit: str, group: Sequence[Finding]) -> Forest:
    nan = float("nan")
    bounds = [finding.interval if _holds(finding) else None for finding in group]
    frame = pd.DataFrame(
        {
            "finding": _labels(group),
            "effect": [finding.effect for finding in group],
            "low": [interval.low if interval else nan for interval in bounds],
            "high": [interval.high if interval else nan for interval in bounds],
            "verdict": [finding.verdict.value for finding in group],
        }
    )
    nulls = {finding.null.value if finding.null else None for finding in group}
    null = nulls.pop() if len(nulls) == 1 else None
    title = phrases.visible(measure[:1].upper() + measure[1:])
    titles = {"title": title, "effect": f"{measure}, {unit}" if unit else measure}
    chart = forest(frame, "finding", "effect", "low", "high", null=null, verdict="verdict", titles=titles)
    return Forest(title, chart, frame)


def _holds(finding: Finding) -> bool:
    """Whether the interval holds its own estimate; a bias-corrected one may not, and its bar would then be read as the estimate's."""
    interval, effect = finding.interval, finding.effect
    return interval is not None and effect is not None and interval.low <= effect <= interval.high


def _labels(group: Sequence[Finding]) -> list[str]:
    """A different, short label for each: its subject where all subjects differ, else its claim, with subject and number if need be."""
    choices = ([f.subject for f in group], [f.claim for f in group], [f"{f.subject}: {f.claim}" for f in group])
    chosen = next((labels for labels in choices if len(set(labels)) == len(group)), choices[-1])
    if len(group) == 1:
        chosen = choices[1]
    plain = [phrases.visible(label if len(label) <= MOST_LABEL else label[:MOST_LABEL] + "…") for label in chosen]
    numbered = [f"{label} ({plain[: i + 1].count(label)})" if plain.count(label) > 1 else label for i, label in enumerate(plain)]
    odd = " (interval beside its estimate: see the table)"
    return [label + ("" if f.interval is None or _holds(f) else odd) for label, f in zip(numbered, group, strict=True)]
