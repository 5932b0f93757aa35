"""``workbench audit``."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.cli.group import new_app
from workbench.cli.options import Resume, Settings
from workbench.cli.output import show
from workbench.cli.progress import bar
from workbench.core.errors import UsageError

app = new_app("The whole audit.")


@app.command()
def audit(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="A shipped plan's name, or a YAML file.")] = "",
    model: Annotated[str, typer.Option("--model", "-m", metavar="REF", help="Audit this model by the default plan.")] = "",
    reference: Annotated[str, typer.Option(metavar="REF", help="The model it is compared with ('none': no comparison).")] = "",
    settings: Settings = [],  # noqa: B006 - the parser makes a list of its own
    add: Annotated[list[str], typer.Option(metavar="NAME", help="Ask this suite or instrument too; what it finds is exploratory.")] = [],  # noqa: B006
    resume: Resume = "",
) -> None:
    """Train or load a model and its reference, ask both the same questions, and write the report.

    Without PLAN and --model it audits the shipped organism against its clean twin, which needs nothing but this program.
    """
    from workbench.lab.audit import audit as carry_out
    from workbench.lab.plan import DEFAULT
    from workbench.lab.refs import reference_of
    from workbench.lab.settings import read_settings

    if plan and model:
        raise UsageError("Give a PLAN or --model, not both. A plan's model is changed with `--set model=REF`.")
    changed = read_settings(settings)
    if model:
        changed = {"model": reference_of(model), "reference": None, **changed}
    if reference:
        changed["reference"] = None if reference == "none" else reference_of(reference)
    with bar() as progress:
        done = carry_out(plan or DEFAULT, settings=changed, progress=progress, resume=resume, added=add)
    findings = [finding.model_dump(mode="json") for finding in done.findings]
    show({"run": done.run, "report": str(done.html), "json": str(done.json), "findings": findings}, done.lines())
