"""Calibration: tools examined on planted models and their clean twins, card by card, so that it can be stopped and taken up again.

Every model is made by its reference (``organism:NAME@dose=…,seed=…``) and kept like any other; every tool's answer about every model is
committed as it comes. A card is written into the home's folder ``cards``, from where audits in that home read it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from workbench.calibration.atlas import NOT_SAID, UNCARDED, in_words, page, rows_of, titles, uncarded, uncarded_words
from workbench.calibration.cards import FOLDER, dump, is_stale, measured, scope_of, shipped
from workbench.calibration.code import code_digest
from workbench.calibration.drawing import limits, responses
from workbench.calibration.exam import Exam, Grid, Row
from workbench.calibration.exams import EXAMS
from workbench.calibration.scoring import card_of, conditions
from workbench.core.errors import UnknownName, UsageError
from workbench.core.finding import Card
from workbench.core.protocol import Progress, silent
from workbench.engine.threads import one_thread
from workbench.lab import encoders  # noqa: F401 (makes the encoders that judges read with known to them)
from workbench.lab.record import recorded
from workbench.lab.refs import load
from workbench.organisms import ORGANISMS
from workbench.store.runs import Store

__all__ = [
    "NOT_SAID", "UNCARDED", "Calibrated", "calibrate", "in_words", "limits", "listed", "page", "responses", "rows_of", "titles",
    "uncarded", "uncarded_words",
]  # fmt: skip


Source = Callable[[str, str, float, int], tuple[Any, Any]]
"""The model of an organism (or family, where one model is spiked) at a dose and seed, as the exam of a tool has it, with its recipe."""


Found = tuple[dict[tuple[str, str], list[Row]], dict[str, dict[str, Any]]]
"""What an exam found: all rows by (family, tool), and each family's profile."""


@dataclass(frozen=True)
class Calibrated:
    """The run, the cards that were measured, and the tools (with family) left alone because their cards are current."""

    run: str
    cards: tuple[Card, ...]
    current: tuple[tuple[str, str], ...]


def calibrate(
    tools: Sequence[str] = (), *, exam: str = "places", families: Sequence[str] = (), again: bool = False,
    grid: Mapping[str, Any] | Literal["quick"] | None = None, store: Store | None = None, progress: Progress = silent, resume: str = "auto",
) -> Calibrated:  # fmt: skip
    """Examine ``tools`` (default: all that the exam takes) on ``families`` (default: all of the exam's).

    Cards that are current (same code, same conditions) are left alone unless ``again``. ``grid``: ``"quick"``, the exam's small one, or
    fields that differ from its full one; cards of another than the full grid are shown and not kept. Goes on with an interrupted
    calibration of the same plan. Raises UsageError and UnknownName before anything is trained.
    """
    chosen: Exam = EXAMS.load(exam)
    wanted_grid = grid_of(chosen, grid)
    store = store if store is not None else Store.open()
    asked = _asked(chosen, tools, families)
    known = (*measured(store.home), *shipped()) if wanted_grid == chosen.grid and not again else ()
    todo = [pair for pair in asked if not _is_current(chosen, *pair, wanted_grid, known)]
    plan = {"exam": exam, "cards": [list(pair) for pair in todo], "grid": wanted_grid.model_dump(mode="json"),
            "code": {tool: code_digest(tool) for tool in sorted({tool for _, tool in todo})}}  # fmt: skip
    if not todo:
        return Calibrated("", (), tuple(asked))
    with recorded(store, "calibrate", plan, "", resume=resume, provenance={}) as run:

        def source(family: str, tool: str, dose: float, seed: int) -> tuple[Any, Any]:
            name, options = chosen.organism(family, tool), chosen.options(tool, dose, seed)
            told = ",".join(f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in options.items())
            return load(f"organism:{name}@{told}", store=store), ORGANISMS.load(name).configure(options)

        found = examined(chosen, wanted_grid, todo, run, source, store=store, progress=progress)
        cards = kept(chosen, wanted_grid, found, run, store=store, stem=exam)
    return Calibrated(run, cards, tuple(pair for pair in asked if pair not in todo))


def grid_of(exam: Exam, grid: Mapping[str, Any] | Literal["quick"] | None) -> Grid:
    """The exam's full grid, its quick one, or the full one with other fields."""
    full = exam.quick if grid == "quick" else exam.grid
    return Grid.parse({**full.model_dump(), **(grid if isinstance(grid, Mapping) else {})}, what=f"the grid of '{exam.name}'")


def kept(exam: Exam, grid: Grid, found: Found, run: str, *, store: Store, stem: str, words: str = "", about: str = "") -> tuple[Card, ...]:
    """A card for each tool and family, written into the run's folder; and, if measured on the exam's full grid, into the home's under names
    that begin with ``stem``. ``words`` are added to the conditions; ``about`` is the digest of the one model that the cards are about."""
    rows, profiles = found
    cards = []
    for (family, tool), own in rows.items():
        card = card_of(exam, tool, family, grid, own, profiles[family], code_digest(tool))
        facts = {**card.provenance, "model": about} if about else card.provenance
        cards.append(card.model_copy(update={"conditions": card.conditions + words, "provenance": facts}))
        places = [store.folder(run) / f"{family}-{tool}.json"]
        if grid == exam.grid:
            (store.home / FOLDER).mkdir(parents=True, exist_ok=True)
            places.append(store.home / FOLDER / f"{stem}-{family}-{tool}.json")
        for place in places:
            place.write_text(dump(cards[-1:]), encoding="utf-8")
    return tuple(cards)


def _asked(exam: Exam, tools: Sequence[str], families: Sequence[str]) -> list[tuple[str, str]]:
    """(family, tool) of every card asked for."""
    for family in families:
        if family not in exam.families:
            raise UnknownName("family of the exam", family, exam.families)
    chosen = [family for family in exam.families if not families or family in families]
    offered = {tool for family in chosen for tool in exam.tools(family)}
    for tool in tools:
        if tool not in offered:
            raise UnknownName("tool of the exam", tool, sorted(offered), hint=f"The exam '{exam.name}' asks: {exam.question}")
    pairs = [(family, tool) for family in chosen for tool in exam.tools(family) if not tools or tool in tools]
    if not pairs:
        raise UsageError(f"The exam '{exam.name}' has nothing to ask of {', '.join(chosen)}.")
    return pairs


def _is_current(exam: Exam, family: str, tool: str, grid: Grid, cards: Sequence[Card]) -> bool:
    own = [card for card in cards if (card.exam, card.family, card.of) == (exam.name, family, tool)]
    return any(card.conditions == conditions(exam, family, grid, tool) and not is_stale(card) for card in own)


def examined(
    exam: Exam, grid: Grid, todo: Sequence[tuple[str, str]], run: str, source: Source, *, store: Store, progress: Progress = silent
) -> Found:
    """All rows by (family, tool), and each family's profile; ``source`` makes the models. What the run has already is not asked again.
    By one thread, so that a card does not depend on how many the machine has."""
    sink = store.sink(run, exam.name)
    done = {sample for sample, _ in sink.done()}
    models, at = grid.models(), 0
    total = len(models) * len(todo)
    profiles: dict[str, dict[str, Any]] = {}
    for family, organism in dict.fromkeys((family, exam.organism(family, tool)) for family, tool in todo):
        own = [tool for f, tool in todo if (f, exam.organism(f, tool)) == (family, organism)]
        for dose, seed in models:
            left = [tool for tool in own if _key(family, tool, dose, seed) not in done]
            at += len(own) - len(left)
            if not left and family in profiles:
                continue
            progress(at, total, f"{organism} at dose {dose:g}, seed {seed}")
            with one_thread():
                model, made = source(family, own[0], dose, seed)
                behaviour = exam.behaviour(model, made) if left else 0.0
            profiles.setdefault(family, scope_of(model, exam.domain))
            sets = grid.sets if dose > 0 else grid.clean_sets
            for tool in left:
                with one_thread():
                    started = time.perf_counter()
                    readings = tuple(exam.read(tool, model, made, sets, grid.items))
                    spent = (time.perf_counter() - started) / (sets * grid.items)
                sink.put([Row(dose, seed, behaviour, readings, spent).record(_key(family, tool, dose, seed))])
                at += 1
                progress(at, total, f"{tool} on {family} at dose {dose:g}, seed {seed}")
    found: dict[tuple[str, str], list[Row]] = {pair: [] for pair in todo}
    for record in sink.read():
        family, tool = record["sample"].split("/")[:2]
        found[family, tool].append(Row.of(record))
    return found, profiles


def _key(family: str, tool: str, dose: float, seed: int) -> str:
    return f"{family}/{tool}/{dose:g}/{seed}"


def listed(store: Store | None = None) -> tuple[Card, ...]:
    """Every card there is: measured in this home, then shipped ones of what was not measured here."""
    own = measured(store.home) if store is not None else ()
    seen = {(card.exam, card.family, card.of) for card in own}
    return (*own, *(card for card in shipped() if (card.exam, card.family, card.of) not in seen))
