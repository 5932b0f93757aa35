"""``workbench calibrate``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer

from workbench.cli.group import new_app
from workbench.cli.output import show, table
from workbench.cli.progress import bar
from workbench.core.errors import StoreError, UsageError

app = new_app("Score instruments on models whose truth was planted, and write their cards.")


@app.command()
def calibrate(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Instruments or suites; none: all that the exam takes.")] = [],  # noqa: B006
    exam: Annotated[str, typer.Option(metavar="EXAM", help="How they are scored; --list names the exams.")] = "places",
    family: Annotated[list[str], typer.Option(metavar="FAMILY", help="On models of this family; may be given again.")] = [],  # noqa: B006
    quick: Annotated[bool, typer.Option("--quick", help="A few models only; the card is shown and not kept.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Measure current cards anew too.")] = False,
    page: Annotated[str, typer.Option("--page", metavar="FILE", help="With --list: write all cards as Markdown tables into FILE.")] = "",
    listing: Annotated[bool, typer.Option("--list", help="List exams and every card there is, and stop.")] = False,
) -> None:
    """Examine NAMEs on planted models and clean twins and write a card for each. Cards whose code and conditions are unchanged are left
    alone; an interrupted call goes on where it stopped."""
    from workbench.lab import calibrate as lab
    from workbench.store.runs import Store

    if listing:
        with suppress(StoreError), Store.open(create=False) as store:  # looking makes nothing
            _list(lab.listed(store), page)
            return
        _list(lab.listed(), page)
        return
    if page:
        raise UsageError("--page goes with --list: it writes the cards there are.")
    with Store.open() as store, bar() as progress:
        done = lab.calibrate(
            names, exam=exam, families=family, grid="quick" if quick else None, again=again, store=store, progress=progress
        )
    current = [f"{tool} on {fam}: its card is current" for fam, tool in done.current]
    document = {"run": done.run, "cards": [card.model_dump(mode="json") for card in done.cards], "current": current}
    show(document, [*_lines(done.cards), *current, *([f"run {done.run}"] if done.run else [])])


def _list(cards: Sequence[Any], page: str) -> None:
    from workbench.lab.calibrate import rows_of, written
    from workbench.lab.catalogs import exams as listed

    if page:
        written(page, cards)
    exams = [{"name": name, "words": entry.words} for name, entry in listed().items()]
    lines = [*table([(one["name"], one["words"]) for one in exams], ("exam", "what it asks")), ""]
    rows, header = rows_of(cards)
    show({"exams": exams, "cards": [card.model_dump(mode="json") for card in cards]}, [*lines, *table(rows, header)])


def _lines(cards: Sequence[Any]) -> list[str]:
    from workbench.lab.calibrate import in_words

    return [line for card in cards for line in (f"{card.of} on {card.family}: {card.conditions}", *(f"  {w}" for w in in_words(card)))]
