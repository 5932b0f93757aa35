"""``workbench gate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.group import new_app
from workbench.cli.output import show
from workbench.core.errors import UsageError

app = new_app("Hold a run against a release policy.")


@app.command()
def gate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="An audit or evaluation: its id, its beginning, or 'last'.")] = "",
    policy: Annotated[str, typer.Option(metavar="FILE", help="The policy: a YAML file, or a shipped policy's name.")] = "",
    against: Annotated[str, typer.Option(metavar="RUN", help="The evaluation that non-inferiority compares with.")] = "",
    out: Annotated[
        str, typer.Option(metavar="FOLDER", help="Where gate.json, gate.junit.xml and gate.sarif go (default: the run's).")
    ] = "",
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a policy and do nothing else.")] = False,
) -> int:
    """Decide by confidence bounds whether a model may pass: 0 it passes, 1 it fails, 2 the samples do not decide (and how many would).

    3 is an error (a policy that is none, a rule that finds nothing to decide on) and 64 a mistyped word on this line.
    """
    import json

    from workbench.lab.gating.gate import gate as hold
    from workbench.lab.gating.gate import write
    from workbench.lab.gating.policy import schema as schema_of
    from workbench.store.runs import Store

    if schema:
        found = schema_of()
        show(found, json.dumps(found, indent=2))
        return 0
    if not run or not policy:
        raise UsageError("Say which run and by which policy: `workbench gate RUN --policy FILE`. `--schema` prints what a policy holds.")
    with Store.open(create=False) as store:
        decided = hold(run, policy, against=against, store=store)
        places = write(decided, Path(out) if out else store.folder(decided.run))
    show(decided.document() | {"files": [str(place) for place in places]}, [*decided.lines(), *(f"      {place}" for place in places)])
    return decided.exit_code
