"""``workbench eval``."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.cli.group import new_app
from workbench.cli.listing import show_catalog
from workbench.cli.options import Resume, Settings
from workbench.cli.output import note, show
from workbench.cli.progress import bar
from workbench.core.errors import UsageError

app = new_app("Run evaluation suites on a model.")


@app.command("eval")
def evaluate(
    suites: Annotated[list[str], typer.Argument(metavar="SUITE…", help="Names of suites; --list shows them.")] = [],  # noqa: B006
    model: Annotated[str, typer.Option("--model", "-m", metavar="REF", help="The model to evaluate.")] = "",
    settings: Settings = [],  # noqa: B006 - the parser makes a list of its own
    resume: Resume = "",
    batch: Annotated[int, typer.Option(min=1, help="Samples computed and committed together.")] = 64,
    engine: Annotated[str, typer.Option(metavar="ENGINE", help="local, or ray:N for N worker processes: the same numbers.")] = "local",
    listing: Annotated[bool, typer.Option("--list", help="List the suites and stop.")] = False,
) -> None:
    """Run one or more SUITEs on a model and store every sample. With several, settings are written --set SUITE.field=value."""
    from workbench.lab.catalogs import suites as listed

    if listing:
        show_catalog(listed(), "suites", "what it asks")
        return
    if not suites:
        raise UsageError(f"Which suite? There are {', '.join(listed())}.")
    for name in suites:
        listed()[name]  # a misspelt name costs no time
    if not model:
        raise UsageError("Which model? Give --model with a checkpoint folder, run:ID, or organism:NAME.")
    from workbench.lab.run import evaluate as run_suites
    from workbench.lab.run import unfinished_evaluation
    from workbench.lab.settings import read_settings
    from workbench.reports.phrases import finding_line
    from workbench.store.runs import Store

    fields = read_settings(settings)
    with Store.open() as store:
        if not resume and (waiting := unfinished_evaluation(suites, model, store=store, batch=batch, **fields)):
            note(f"Run {waiting} of these suites was not finished; `--resume {waiting}` goes on with it. This is a new run.")
        with bar() as progress:
            done = run_suites(suites, model, store=store, progress=progress, resume=resume, batch=batch, engine=engine, **fields)
        digests = store.result_digests(done.run)
    results = {name: {"summary": one.summary(), "digest": digests[name], "notes": list(one.notes)} for name, one in done.results.items()}
    findings = [finding.model_dump(mode="json") for finding in done.findings]
    lines = [f"{name}: {result.summary()}" for name, result in done.results.items()]
    lines += [f"  {finding_line(f)}" for f in done.findings]
    show({"run": done.run, "model": model, "results": results, "findings": findings}, [*lines, f"run {done.run}"])
