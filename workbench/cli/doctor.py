"""``workbench doctor``."""

from __future__ import annotations

import typer

from workbench.cli.group import new_app
from workbench.cli.output import show, table
from workbench.core.errors import EXIT_ERROR

app = new_app("Check this installation.")


@app.command()
def doctor() -> None:
    """Check this installation: versions, data sets, store, threads, telemetry, and names that another package uses too.

    Exit code 3 if something needs mending, else 0.
    """
    from workbench.lab.doctor import examine

    checks = examine()
    lines = table([(check.mark, check.name, check.found) for check in checks], ("", "what", "found"))
    bad = [check for check in checks if check.mark == "bad"]
    advice = [f"{check.name}: {check.do}" for check in checks if check.do]
    show({"ok": not bad, "checks": [vars(check) for check in checks]}, [*lines, *([""] if advice else []), *advice])
    if bad:
        raise typer.Exit(EXIT_ERROR)
