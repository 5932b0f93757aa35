"""``workbench verify``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from workbench.cli.group import new_app
from workbench.cli.output import show
from workbench.cli.progress import bar

app = new_app("Check an evidence bundle.")


@app.command()
def verify(
    file: Annotated[str, typer.Argument(metavar="BUNDLE", help="An evidence bundle, as `workbench report RUN --bundle` writes it.")],
    key: Annotated[str, typer.Option(metavar="FILE", help="The public key it must be signed by (default: those you trust).")] = "",
    model: Annotated[str, typer.Option("--model", "-m", metavar="REF", help="Ask this model some of the samples again.")] = "",
    samples: Annotated[int, typer.Option(min=1, help="How many samples of each suite are asked again.")] = 20,
    seed: Annotated[int, typer.Option(help="Which samples those are; -1: by chance.")] = -1,
) -> int:
    """Check every byte, hash and signature of a bundle, and derive every statistic of its report again from the samples.

    Needs no network, and no model unless --model names one. Exit code 0: everything holds and the signer is trusted. 1: something does
    not hold, and it is named. 2: nothing is broken, but something could not be checked: it is not signed, or the signer is unknown.
    """
    from workbench.lab.verifying import verify as examine

    with bar() as progress:
        found = examine(file, key=key, model=model, count=samples, seed=None if seed < 0 else seed, progress=progress)
    document = {
        "verdict": found.verdict,
        "signer": found.signer,
        "remarks": list(found.remarks),
        "checks": [asdict(c) for c in found.checks],
    }
    show(document, [*(line for one in found.checks for line in one.lines()), *found.remarks, found.verdict])
    return found.exit_code
