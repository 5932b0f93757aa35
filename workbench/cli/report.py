"""``workbench report``."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.cli.group import new_app
from workbench.cli.output import show

app = new_app("Write the report of a finished run.")


@app.command()
def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="An audit's id, the beginning of it, or 'last'.")] = "last",
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Copy report.html and report.json there.")] = "",
) -> None:
    """Show where an audit's report lies, after checking it, or copy it; `last` is the newest audit."""
    from workbench.lab.reporting import copied, stored_report

    found = stored_report(run)
    if out:
        found = copied(found, out)
    document = {"run": found.run, "report": str(found.html), "json": str(found.json), "digest": found.report.digest(),
                "findings": [finding.model_dump(mode="json") for finding in found.findings]}  # fmt: skip
    show(document, found.lines())
