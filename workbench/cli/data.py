"""``workbench data``."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.cli.group import new_app
from workbench.cli.output import show, table
from workbench.cli.progress import bar

app = new_app("List, fetch and verify public data sets.")
Names = Annotated[list[str], typer.Argument(metavar="NAME…", help="Data sets; `workbench data list` shows them.")]


@app.command("list")
def list_data() -> None:
    """List the public data sets, whether they are here, and under what licence."""
    from workbench.lab.datasets import listed

    found = listed()
    rows = [(one["name"], one["state"], one["items"], one["licence"]) for one in found]
    warnings = [f"{one['name']} contains {one['warning']}." for one in found if one["warning"]]
    show({"data": found}, [*table(rows, ("data set", "state", "items", "licence")), *([""] if warnings else []), *warnings])


@app.command()
def fetch(names: Names) -> None:
    """Download data sets into the cache and verify them. Sets that are already there and right are left alone."""
    from workbench.lab.datasets import fetch as download

    with bar() as progress:
        found = download(names, progress=progress)
    show({"data": found}, [f"{name}: {place}" for name, places in found.items() for place in places])


@app.command()
def verify(names: Annotated[list[str], typer.Argument(metavar="[NAME…]", help="Data sets; none: all that are here.")] = []) -> None:  # noqa: B006
    """Hash the files of data sets again and compare with what they must be."""
    from workbench.lab.datasets import verify as check

    found = check(names)
    lines = [f"{name}: right ({len(places)} file{'s' if len(places) > 1 else ''})" for name, places in found.items()]
    show({"verified": found}, lines or "No data set is here, so there is nothing to verify.")
