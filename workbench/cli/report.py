"""``workbench report``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.group import new_app
from workbench.cli.progress import bar
from workbench.cli.writing import can_be_written, write_and_show
from workbench.core.errors import UsageError

if TYPE_CHECKING:
    from workbench.lab.audit import Audit

LAST = ["last"]
app = new_app("Write the report of a finished run, or of several side by side.")


@app.command()
def report(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN…", help="An audit's id, its beginning, or 'last'; several: side by side.")
    ] = LAST,
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Copy report.html and report.json there.")] = "",
    bundle: Annotated[str, typer.Option(metavar="FILE", help="Write the evidence bundle there, for `workbench verify`.")] = "",
    key: Annotated[str, typer.Option(metavar="NAME", help="Sign the bundle with this key of yours (a name or a file).")] = "",
    pdf: Annotated[str, typer.Option(metavar="FILE", help="Write it as a tagged PDF there.")] = "",
    card: Annotated[str, typer.Option(metavar="FILE", help="Write it as a Markdown model card there.")] = "",
    bom: Annotated[str, typer.Option(metavar="FILE", help="Write the model as a CycloneDX ML-BOM there.")] = "",
    language: Annotated[str, typer.Option(metavar="NAME", help="The language of what is written: en or zh.")] = "en",
) -> None:
    """Show where an audit's report lies, after checking it, copy it or write it in another form; `last` is the newest audit.

    With several RUNs (audits or evaluations) their report side by side is written, which is a run of its own.
    """
    can_be_written(bundle, key)
    if len(runs) > 1 and (own := next((name for name, file in (("card", card), ("bom", bom)) if file), "")):
        raise UsageError(
            f"--{own} is about one model, and this report is about the models of {len(runs)} runs. Write it of each audit by itself: "
            f"`workbench report RUN --{own} FILE`."
        )
    write_and_show(_found(runs), {"pdf": pdf, "card": card, "bom": bom}, out=out, language=language, bundle=bundle, key=key)


def _found(runs: Sequence[str]) -> Audit:
    """The stored report of one run, or one that is made now of several."""
    from workbench.lab.comparison_report import compare_runs
    from workbench.lab.reporting import stored_report

    if len(runs) == 1:
        return stored_report(runs[0])
    with bar() as progress:
        return compare_runs(runs, progress=progress)
