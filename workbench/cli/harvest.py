"""``workbench harvest``."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.cli.group import new_app
from workbench.cli.options import Settings
from workbench.cli.output import show, table
from workbench.cli.progress import bar
from workbench.core.errors import UsageError

app = new_app("Keep a model's activations on a corpus, in shards that can be read back.")


@app.command()
def harvest(
    ref: Annotated[str, typer.Argument(metavar="REF", help="A checkpoint folder, run:ID, organism:NAME, hf:NAME or family:NAME.")],
    data: Annotated[str, typer.Option(metavar="NAME", help="'own', a public text, or a file with one text a line.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="A new folder, or one to go on in.")],
    sites: Annotated[list[str], typer.Option(help="A site's name or glob; may be given again.")] = ["blocks.*.hook_resid_post"],  # noqa: B006
    settings: Settings = [],  # noqa: B006 - the parser makes a list of its own
    part: Annotated[str, typer.Option(metavar="K/N", help="Make every N-th shard, from K (counted from 0) on.")] = "0/1",
    engine: Annotated[str, typer.Option(metavar="ENGINE", help="local, or ray:N for N worker processes: the same bytes.")] = "local",
) -> None:
    """Run the texts of --data through REF and keep what stands at --sites, row by row. The same command goes on with what was interrupted.
    `--set length=128 --set cut=true` reads the beginning of longer texts; `--set count=1000`, `split`, `control`, `bos`, `dtype`,
    `items_a_shard` and `tokens_a_pass` are the others."""
    from workbench.lab.harvest_rays import harvested_on
    from workbench.lab.harvesting import described, harvested
    from workbench.lab.settings import read_settings

    k, sign, n = part.partition("/")
    if not (sign and k.isdigit() and n.isdigit() and int(k) < int(n)):
        raise UsageError(f"--part is '{part}', but it must be K/N with K from 0 to N - 1, such as 0/4.")
    if engine != "local" and part != "0/1":
        raise UsageError("--engine divides the shards itself, so --part cannot be given beside it.")
    given = {**read_settings(settings), "data": data, "sites": sites}
    with bar() as progress:
        if engine == "local":
            made = harvested(ref, out, given, part=(int(k), int(n)), progress=progress)
        else:
            made = harvested_on(engine, ref, out, given, progress=progress)
    found = described(made)
    rows = [(one["site"], one["rows"], " ".join(map(str, one["shape"])), one["dtype"]) for one in found["sites"]]
    cut = f"; {found['cut']} were cut" if found["cut"] else ""
    said = f"{found['items']} items, {found['shards']} of {found['of']} shards, in {out}{cut}"
    show(found, [*table(rows, ("site", "rows", "shape", "dtype")), said, f"digest  {found['digest']}"])
