"""``workbench trend``."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.cli.group import new_app
from workbench.cli.options import Settings
from workbench.cli.progress import bar
from workbench.cli.writing import can_be_written, write_and_show
from workbench.core.errors import UsageError

app = new_app("Report a training over its checkpoints.")


@app.command()
def trend(
    training: Annotated[str, typer.Argument(metavar="RUN", help="A training's id, or the beginning of it.")],
    suites: Annotated[list[str], typer.Argument(metavar="SUITE…", help="What every checkpoint is asked.")] = [],  # noqa: B006
    settings: Settings = [],  # noqa: B006 - the parser makes a list of its own
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Copy report.html and report.json there.")] = "",
    pdf: Annotated[str, typer.Option(metavar="FILE", help="Write it as a tagged PDF there.")] = "",
    bundle: Annotated[str, typer.Option(metavar="FILE", help="Write the evidence bundle there, for `workbench verify`.")] = "",
    key: Annotated[str, typer.Option(metavar="NAME", help="Sign the bundle with this key of yours (a name or a file).")] = "",
    language: Annotated[str, typer.Option(metavar="NAME", help="The language of what is written: en or zh.")] = "en",
) -> None:
    """Ask suites of every checkpoint that a training kept, and write how what they find changes, each paired with the one before."""
    from workbench.lab.catalogs import suites as listed
    from workbench.lab.settings import read_settings
    from workbench.lab.trend_report import trend_of

    can_be_written(bundle, key)
    if not suites:
        raise UsageError(f"Which suite? There are {', '.join(listed())}.")
    fields = read_settings(settings)
    with bar() as progress:
        found = trend_of(training, suites, settings=fields, progress=progress)
    write_and_show(found, {"pdf": pdf}, out=out, language=language, bundle=bundle, key=key)
