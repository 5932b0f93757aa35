"""``workbench curve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.group import new_app
from workbench.cli.output import show, table

app = new_app("Score a finished evaluation in every reasonable way.")


@app.command()
def curve(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run with results of a suite that can be scored in several ways.")],
    suite: Annotated[str, typer.Option(help="The result, where the run has several that can.")] = "",
    level: Annotated[float, typer.Option(min=0.5, max=0.999, help="Level of the intervals.")] = 0.95,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write a chart of each question there, as SVG.")] = None,
) -> None:
    """The reasonable scorings of RUN's suite side by side, from its stored answers: no model is asked. How much of what is found is
    choice?"""
    from workbench.lab.curves import curves_of
    from workbench.store.runs import Store

    with Store.open(create=False) as store:
        found = curves_of(run, suite, store=store, level=level, out=out)
    lines: list[str] = []
    for one in found:
        lines += [one.summary, *table(one.rows, one.header), f"  {one.finding.verdict}: {one.finding.claim}, because {one.finding.because}"]
        lines += [f"  chart: {one.chart}"] if one.chart else []
    show({"run": found[0].run, "curves": [one.document() for one in found]}, lines)
