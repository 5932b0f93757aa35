"""``workbench sites``."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.cli.group import new_app
from workbench.cli.output import show, table
from workbench.cli.progress import bar

app = new_app("List every activation site of a model with its axes.")


@app.command()
def sites(
    ref: Annotated[str, typer.Argument(metavar="REF", help="A checkpoint folder, run:ID, organism:NAME, or family:NAME.")],
    select: Annotated[list[str], typer.Option(help="Only sites of this name or glob; may be given again.")] = [],  # noqa: B006
) -> None:
    """List every activation site of a model with its axes, in the order a run passes them."""
    from workbench.lab.models import sites_of

    with bar() as progress:
        found = sites_of(ref, progress=progress)
    chosen = found.select(select) if select else tuple(found.values())
    rows = [(site.name, " ".join(site.axes)) for site in chosen]
    document = {"ref": ref, "additive": found.additive, "sites": [{"name": s.name, "axes": s.axes} for s in chosen]}
    stream = "adds up" if found.additive else "does not add up (a norm follows the add)"
    show(document, [*table(rows, ("site", "axes")), f"{len(rows)} sites; the residual stream {stream}"])
