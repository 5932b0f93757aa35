"""``workbench compare``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from workbench.cli.group import new_app
from workbench.cli.output import show, table

app = new_app("Compare two runs of one suite, pair by pair.")


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="RUN", help="The run to compare with.")],
    second: Annotated[str, typer.Argument(metavar="RUN", help="The run that is compared.")],
    suite: Annotated[str, typer.Option(help="The suite, where the runs share several.")] = "",
    level: Annotated[float, typer.Option(min=0.5, max=0.9999, help="Level of the intervals.")] = 0.95,
) -> None:
    """Compare the second run with the first on the samples both have: differences with paired intervals, and exact McNemar tests."""
    from workbench.lab.compare import compare as pair_up
    from workbench.reports.phrases import finding_line, percent

    found = pair_up(first, second, suite, level=level)
    d = found.denominators
    document = {
        "suite": found.suite, "first": found.first, "second": found.second, "denominators": d.model_dump(mode="json"),
        "differences": [_plain(one) for one in found.differences],
        "findings": [finding.model_dump(mode="json") for finding in found.findings],
    }  # fmt: skip
    left = "".join(f", {count} {reason}" for reason, count in d.unscored.items())
    header = ("value", "first", "second", "difference", f"{percent(level)} interval", "McNemar p")
    lines = [f"{found.suite}: {d.scored} pairs of {d.run} samples{left}", *table([_row(one) for one in found.differences], header)]
    show(document, [*lines, *map(finding_line, found.findings)])


def _plain(one: Any) -> dict[str, Any]:
    return asdict(one) | {"interval": one.interval.model_dump(mode="json") if one.interval else None}


def _row(one: Any) -> tuple[str, ...]:
    between = f"[{one.interval.low:.4g}, {one.interval.high:.4g}]" if one.interval else one.note
    return (one.value, f"{one.first:.4g}", f"{one.second:.4g}", f"{one.difference:+.4g}", between, "" if one.p is None else f"{one.p:.3g}")
