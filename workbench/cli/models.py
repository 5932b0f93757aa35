"""``workbench models``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from workbench.cli.group import new_app
from workbench.cli.output import show, table
from workbench.cli.progress import bar

app = new_app("List models, show one.")


@app.command("list")
def list_models() -> None:
    """List what a model reference may name here: organisms, trained runs, and the families there are."""
    from workbench.lab.models import known

    found = known()
    lines = table([(one["ref"], one["family"], one["words"]) for one in found], ("reference", "family", "what it is"))
    show({"models": found}, lines)


@app.command("show")
def show_model(ref: Annotated[str, typer.Argument(metavar="REF", help="A checkpoint folder, run:ID, or organism:NAME.")]) -> None:
    """Show one model: family, config, number of parameters, digest. An organism that is not there yet is trained first."""
    from workbench.lab.models import described

    with bar() as progress:
        found: dict[str, Any] = described(ref, progress=progress)
    config = [f"  {name:<16} {value}" for name, value in found["config"].items()]
    facts = [f"{name:<12} {found[name]}" for name in ("ref", "family", "parameters", "digest", "tokenizer", "abilities") if found[name]]
    show(found, [*facts, "config", *config])
