"""``workbench calibrate``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from workbench.cli.group import new_app
from workbench.cli.output import note, show, table
from workbench.cli.progress import bar
from workbench.core.catalog import STANDINGS
from workbench.core.errors import StoreError, UsageError

app = new_app("Score instruments on models whose truth was planted, and write their cards.")


@dataclass
class _Spread:
    """Who measures, in this call of the program."""

    engine: str = "local"


_SPREAD = _Spread()


def _remember_engine(value: str) -> None:
    _SPREAD.engine = value


def _spread(
    engine: Annotated[
        str,
        typer.Option(
            metavar="ENGINE",
            callback=_remember_engine,
            help="local, or ray:N for N worker processes, a family of an exam each: the same cards.",
        ),
    ] = "local",
) -> None:
    """How the work is shared out, which is no part of what is asked."""


class _Command(TyperCommand):
    """The command with the options of ``_spread``, which are remembered and not passed to it, as those are that every command has."""

    def __init__(self, *given: Any, params: list[Any], **rest: Any) -> None:
        beside = typer.Typer(add_completion=False)
        beside.command()(_spread)
        options = [option for option in get_command(beside).params if "--help" not in option.opts]
        for option in options:
            option.expose_value = False
        super().__init__(*given, params=[*params, *options], **rest)


@app.command(cls=_Command)
def calibrate(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Instruments, suites (with --model: plans); none: all.")] = [],  # noqa: B006
    exam: Annotated[
        str,
        typer.Option(
            metavar="EXAM",
            help="How they are scored; --list names the exams. 'headline', 'standard', 'experimental': all, for what stands so or higher.",
        ),
    ] = "places",
    family: Annotated[list[str], typer.Option(metavar="FAMILY", help="On models of this family; may be given again.")] = [],  # noqa: B006
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="REF", help="Plant known doses into copies of this model; its cards stand beside it.")
    ] = "",
    data: Annotated[str, typer.Option(metavar="TEXT", help="With --model: own, a public text, or a file with one text a line.")] = "own",
    blind: Annotated[
        int, typer.Option(metavar="N", help="Make N sealed models, audit each by the suites that have cards, then open the truth.")
    ] = 0,
    how: Annotated[
        bool | None,
        typer.Option("--quick/--again", help="A few models only, shown and not kept; or the full grid, current cards too."),
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="List exams, every card there is, and what has none, and stop.")] = False,
) -> None:
    """Examine NAMEs on planted models and clean twins and write a card for each. Cards whose code and conditions are unchanged are left
    alone; an interrupted call goes on where it stopped. With --model, known doses are planted into copies of that model, and the cards
    hold for it."""
    from workbench.lab import calibrate as lab
    from workbench.store.runs import Store

    if listing:
        with suppress(StoreError), Store.open(create=False) as store:  # looking makes nothing
            _list(lab.listed(store))
            return
        _list(lab.listed())
        return
    if blind:
        if names or model or family or how is not None or _SPREAD.engine != "local":
            raise UsageError("--blind takes every suite that has a card: leave names and the other options out.")
        _blind(blind)
        return
    if model and (family or exam != "places"):
        raise UsageError("--model plants into the model itself: leave --exam and --family out.")
    if exam in STANDINGS and (names or family):
        raise UsageError(f"--exam {exam} takes every entry from that standing up, in every family: leave names and --family out.")
    if data != "own" and not model:
        raise UsageError("--data goes with --model: the exams bring their own inputs.")
    engine = _SPREAD.engine
    if engine != "local" and model:
        raise UsageError("--engine shares out the families of exams, and --model is one model: leave one of them out.")
    small = "quick" if how else None
    with Store.open() as store, bar() as progress:
        if model:
            from workbench.lab.spike import spike_in

            resume = "" if how is False else "auto"
            done = spike_in(model, names, data=data, grid=small, store=store, progress=progress, resume=resume)
        elif exam in STANDINGS or engine != "local":
            from workbench.lab.card_pieces import pieces, pieces_of
            from workbench.lab.every_card import cards_of, every_card

            asked = pieces(exam) if exam in STANDINGS else pieces_of(exam, names, family)
            done = cards_of(every_card(asked, engine=engine, grid=small, again=how is False, store=store, progress=progress))
        else:
            done = lab.calibrate(names, exam=exam, families=family, grid=small, again=how is False, store=store, progress=progress)
    current = [f"{tool} on {fam}: its card is current" for fam, tool in done.current]
    for words in done.left_out:
        note(f"Left out: {words}.")
    for words in done.under_floor:
        note(f"{words}; its card says so and is no recommendation.")
    cards = [card.model_dump(mode="json") for card in done.cards]
    document = {"run": done.run, "cards": cards, "current": current, "under_floor": list(done.under_floor), "left_out": list(done.left_out)}
    show(document, [*_lines(done.cards), *current, *([f"run {done.run}"] if done.run else [])])


def _blind(count: int) -> None:
    """Hold a blind trial and show what the opening shows."""
    from workbench.lab import blind
    from workbench.store.runs import Store

    with Store.open() as store, bar() as progress:
        done = blind.trial(count, store=store, progress=progress)
    lines = [f"trial {done.number}, committed to {done.committed}", *blind.in_words(done.outcome), f"everything is in {done.folder}"]
    show(done.document, lines)


def _list(cards: Sequence[Any]) -> None:
    from workbench.lab.calibrate import NOT_SAID, UNCARDED, rows_of, uncarded, uncarded_words
    from workbench.lab.catalogs import exams as listed
    from workbench.lab.catalogs import spikes

    exams = [{"name": name, "words": entry.words} for name, entry in listed().items()]
    planted = [{"name": name, "words": entry.words, "asks": entry.load().asks} for name, entry in spikes().items()]
    lines = [*table([(one["name"], one["words"]) for one in exams], ("exam", "what it asks")), ""]
    lines += [*table([(one["words"], one["asks"]) for one in planted], ("with --model, in copies of it", "asked of")), ""]
    rows, header = rows_of(cards)
    left = [{"name": name, "kind": kind, "status": status} for name, kind, status in uncarded(cards)]
    said = ["", f"{UNCARDED}. {NOT_SAID}", *(f"  {line}" for line in uncarded_words(cards))] if left else []
    document = {"exams": exams, "spikes": planted, "cards": [card.model_dump(mode="json") for card in cards], "uncarded": left}
    show(document, [*lines, *table(rows, header), *said])


def _lines(cards: Sequence[Any]) -> list[str]:
    from workbench.lab.calibrate import in_words

    return [line for card in cards for line in (f"{card.of} on {card.family}: {card.conditions}", *(f"  {w}" for w in in_words(card)))]
