"""``workbench report``."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.cli.group import new_app
from workbench.cli.output import show
from workbench.core.errors import UsageError

app = new_app("Write the report of a finished run.")


@app.command()
def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="An audit's id, the beginning of it, or 'last'.")] = "last",
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Copy report.html and report.json there.")] = "",
    bundle: Annotated[str, typer.Option(metavar="FILE", help="Write the evidence bundle there, for `workbench verify`.")] = "",
    key: Annotated[str, typer.Option(metavar="NAME", help="Sign the bundle with this key of yours (a name or a file).")] = "",
) -> None:
    """Show where an audit's report lies, after checking it, or copy it; `last` is the newest audit."""
    from workbench.lab.evidence import write_bundle
    from workbench.lab.reporting import copied, stored_report

    if key and not bundle:
        raise UsageError("--key signs a bundle. Say where it goes with --bundle FILE.")
    found = stored_report(run)
    if out:
        found = copied(found, out)
    document = {"run": found.run, "report": str(found.html), "json": str(found.json), "digest": found.report.digest(),
                "findings": [finding.model_dump(mode="json") for finding in found.findings]}  # fmt: skip
    if not bundle:
        show(document, found.lines())
        return
    written = write_bundle(found.run, bundle, key=key)
    facts = {
        "file": str(written.place),
        "sha256": written.sha256,
        "bytes": written.size,
        "samples": written.samples,
        "signer": written.signer,
    }
    show(document | {"bundle": facts}, (*found.lines(), *written.lines()))
