"""``workbench models``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from workbench.cli.group import new_app
from workbench.cli.output import show, table
from workbench.cli.progress import bar

app = new_app("List models, show one, take published ones in and out, verify a recipe.")


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


@app.command("import")
def import_model(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A folder as transformers writes it: config.json and safetensors.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Where the checkpoint goes; it must not be there yet.")],
) -> None:
    """Turn a published checkpoint into one of ours. A config field that is not handled is refused by name."""
    from workbench.lab.exchange import import_folder

    found = import_folder(folder, out)
    show(found, [f"{name:<12} {value}" for name, value in found.items()])


@app.command("export")
def export_model(
    ref: Annotated[str, typer.Argument(metavar="REF", help="A checkpoint folder, run:ID, or organism:NAME.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Where the folder goes; it must not be there yet.")],
    architecture: Annotated[str, typer.Option(help="The published architecture; default: the first that can hold the model.")] = "",
) -> None:
    """Write a model as a folder that transformers opens."""
    from workbench.lab.exchange import export_folder

    with bar() as progress:
        found = export_folder(ref, out, architecture, progress=progress)
    show(found, [f"{name:<12} {value}" for name, value in found.items()])


@app.command("verify")
def verify_recipe(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe with an expectation.")],
    seed: Annotated[int, typer.Option(help="The seed to train; -1: the first that was not measured.")] = -1,
) -> None:
    """Train one more seed of RECIPE and compare it with its expectation. Exit code 1 where a measure lies outside."""
    from workbench.lab.expect import verify
    from workbench.store.runs import Store

    with Store.open() as store, bar() as progress:
        found = verify(recipe, None if seed < 0 else seed, store=store, progress=progress)
    bounds = {one.name: one for one in found.expectation.measures}
    lines = [f"{recipe}, seed {found.seed} (run:{found.run}), beside {len(found.expectation.seeds)} measured seeds"]
    for one in found.measures:
        expected = bounds[one.name]
        word = "OUTSIDE" if one.name in found.outside else "inside"
        lines.append(f"  {one.name:<24} {one.value:.4f}  {word} [{expected.low:.4f}, {expected.high:.4f}], mean {expected.mean:.4f}")
    measures = {one.name: one.value for one in found.measures}
    show({"recipe": recipe, "seed": found.seed, "run": found.run, "measures": measures, "outside": list(found.outside)}, lines)
    if found.outside:
        raise typer.Exit(1)
