"""``workbench train``."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.cli.group import new_app
from workbench.cli.options import Resume, Settings
from workbench.cli.output import note, show, table
from workbench.cli.progress import bar
from workbench.core.errors import UsageError

app = new_app("Train a model by a recipe.")


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name, or a YAML file.")] = "",
    settings: Settings = [],  # noqa: B006 - the parser makes a list of its own
    resume: Resume = "",
    from_step: Annotated[
        int | None, typer.Option("--from", min=0, metavar="STEP", help="With --resume: go back to the checkpoint of that step first.")
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the shipped recipes and stop.")] = False,
) -> None:
    """Train a model by RECIPE; afterwards it is called run:ID. --set train.steps=500 changes one field."""
    from workbench.lab import recipe as recipes
    from workbench.lab.record import unfinished
    from workbench.lab.run import follows
    from workbench.lab.run import train as run_training
    from workbench.lab.settings import read_settings
    from workbench.lab.trainings import recipe_of
    from workbench.store.runs import Store

    if listing:
        show({"recipes": recipes.shipped()}, table(list(recipes.shipped().items()), ("recipe", "what it trains")))
        return
    if not recipe and resume in ("", "auto"):
        raise UsageError(
            f"Which recipe? Shipped are {', '.join(recipes.shipped())}; a path to a YAML file works too, and --resume RUN alone goes on "
            "with that run by its own recipe."
        )
    wanted = recipes.read(recipe or recipe_of(resume), read_settings(settings))
    if follows():  # one of several processes that torchrun started: the first alone keeps the store and speaks
        run_training(wanted)
        return
    with Store.open() as store:
        if not resume and (waiting := unfinished(store, "train", recipes.plan_of(wanted), f"recipe:{wanted.name}")):
            note(f"Run {waiting[0].id} of this recipe was not finished; `--resume {waiting[0].id}` goes on with it. This is a new run.")
        if resume == "auto" and not unfinished(store, "train", recipes.plan_of(wanted), f"recipe:{wanted.name}"):
            note("No unfinished run has exactly this spec: this is a new run.")
        with bar() as progress:
            done = run_training(wanted, store=store, progress=progress, resume=resume, from_step=from_step, remark=note)
    found = {"run": done.run, "model": f"run:{done.run}", "folder": str(done.folder), "digest": done.model.digest()}
    worth = [str(one) for one in done.measures.measures()] if done.measures is not None else []
    watched = done.watched.summary().splitlines() if done.watched is not None else []
    lines = [done.history.summary(), *worth, *watched, f"model   run:{done.run}", f"folder  {done.folder}", f"digest  {found['digest']}"]
    show({**found, "summary": lines[0], "measures": worth, "watched": watched}, lines)
