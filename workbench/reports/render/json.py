"""The report as JSON: the same content as the page, with its format and digest, for machines."""

from __future__ import annotations

from workbench.reports.report import Report


def render(report: Report) -> str:
    """The report as canonical JSON in one line and a final line feed; ``Report.from_json`` is the inverse."""
    return report.to_json() + "\n"
