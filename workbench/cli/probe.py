"""``workbench probe``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated

import typer

from workbench.cli.group import new_app
from workbench.cli.listing import show_catalog
from workbench.cli.options import Settings
from workbench.cli.output import show, table
from workbench.cli.progress import bar
from workbench.core.errors import UsageError

app = new_app("Ask one instrument about a model.")


@app.command()
def probe(
    instrument: Annotated[str, typer.Argument(metavar="INSTRUMENT", help="Its name; --list shows them.")] = "",
    model: Annotated[str, typer.Option("--model", "-m", metavar="REF", help="The model to look into.")] = "",
    text: Annotated[list[str], typer.Option(help="A text to run; may be given again.")] = [],  # noqa: B006
    target: Annotated[list[str], typer.Option(help='The token asked about, such as " she": one for all texts, or one each.')] = [],  # noqa: B006
    foil: Annotated[list[str], typer.Option(help='The token it is contrasted with, such as " he".')] = [],  # noqa: B006
    settings: Settings = [],  # noqa: B006 - the parser makes a list of its own
    matrix: Annotated[bool, typer.Option("--matrix", help="Which instrument runs on which family, and why not; then stop.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="List the instruments and stop.")] = False,
) -> None:
    """Ask INSTRUMENT about a model. Without --text, a model of a generated world or a task is asked about its own; `--set
    inputs.NAME=VALUE` chooses others. For patching, `--set inputs.corrupt="…"` beside --text is the text's corrupt twin.
    `workbench runs plot last FILE` draws what was found."""
    from workbench.lab import catalogs

    if matrix:
        _matrix(catalogs.matrix())
        return
    if listing:
        show_catalog(catalogs.instruments(), "instruments", "what it tells")
        return
    if not instrument:
        raise UsageError(f"Which instrument? There are {', '.join(catalogs.instruments())}.")
    catalogs.instruments()[instrument]  # a misspelt name costs no time
    if not model:
        raise UsageError("Which model? Give --model with a checkpoint folder, run:ID, or organism:NAME.")
    if (target or foil) and not text:
        raise UsageError("--target and --foil belong to texts. Give the text they follow with --text.")
    from workbench.lab.run import probe as ask
    from workbench.lab.settings import read_settings

    spec = read_settings(settings)
    named = spec.pop("inputs", None)
    twins = named.pop("corrupt", ()) if text and isinstance(named, dict) else ()
    if named is not None and ((text and named) or not isinstance(named, Mapping)):
        raise UsageError("`--set inputs.NAME=VALUE` takes the place of --text, such as `--set inputs.labels=ud-english-ewt`.")
    corrupt = [twins] if isinstance(twins, str) else twins
    inputs = {"texts": text, "targets": target, "foils": foil, "corrupt": corrupt} if text else named
    with bar() as progress:
        found = ask(instrument, model, inputs, progress=progress, **spec)
    run = found.provenance.volatile["run"]
    document = {"run": run, "digest": found.digest(), "summary": found.summary(), "result": json.loads(found.canonical())}
    summary = found.summary()
    after = getattr(found, "next_step", "")
    show(
        document,
        [
            summary,
            *(note for note in found.notes if note not in summary),
            *([after] if after else []),
            found.provenance.volatile.get("card", ""),
            f"run {run}",
        ],
    )


def _matrix(cells: Mapping[str, Mapping[str, list[str]]]) -> None:
    families = list(next(iter(cells.values())))
    rows = [(name, *("no" if row[family] else "yes" for family in families)) for name, row in cells.items()]
    reasons = [f"{name} on {family}: {'; '.join(why)}" for name, row in cells.items() for family, why in row.items() if why]
    document = {name: {family: {"runs": not why, "reasons": why} for family, why in row.items()} for name, row in cells.items()}
    show({"matrix": document}, [*table(rows, ("instrument", *families)), *([""] if reasons else []), *reasons])
