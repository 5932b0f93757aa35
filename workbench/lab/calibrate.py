"""Calibration: tools examined on planted models and their clean twins, card by card, so that it can be stopped and taken up again.

Every model is made by its reference (``organism:NAME@dose=…,seed=…``) and kept like any other; every tool's answer about every model is
committed as it comes, and an interrupted call is gone on with by the same tools, exam and torch alone. A card is written into the home's
folder ``cards``, whole or not at all, from where audits in that home read it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from workbench.calibration.atlas import NOT_SAID, UNCARDED, in_words, page, rows_of, titles, uncarded, uncarded_words
from workbench.calibration.cards import FOLDER, dump, is_stale, measured, scope_of, shipped
from workbench.calibration.code import code_digest, exam_digest
from workbench.calibration.drawing import limits, responses
from workbench.calibration.exam import Exam, Grid, Row
from workbench.calibration.exams import EXAMS
from workbench.calibration.scoring import card_of, conditions
from workbench.core.errors import UnknownName, UsageError
from workbench.core.finding import Card
from workbench.core.protocol import Progress, silent
from workbench.core.result import Provenance
from workbench.core.spec import digest_of
from workbench.core.whole_file import write_whole
from workbench.engine.threads import one_thread
from workbench.lab import encoders  # noqa: F401 (makes the encoders that judges read with known to them)
from workbench.lab.record import RESUMABLE, recorded
from workbench.lab.refs import load
from workbench.organisms import ORGANISMS
from workbench.store.runs import Store
from workbench.training.lock import alone

__all__ = [
    "NOT_SAID", "UNCARDED", "Calibrated", "calibrate", "in_words", "limits", "listed", "page", "responses", "rows_of", "titles",
    "uncarded", "uncarded_words",
]  # fmt: skip


Source = Callable[[str, str, float, int], tuple[Any, Any]]
"""The model of an organism (or family, where one model is spiked) at a dose and seed, as the exam of a tool has it, with its recipe."""


Found = tuple[dict[tuple[str, str], list[Row]], dict[str, dict[str, Any]]]
"""What an exam found: all rows by (family, tool), and each family's profile."""

Asked = Sequence[tuple[str, str]]
"""(family, tool) of each card that is asked for."""

KIND = "calibrate"


@dataclass(frozen=True)
class Calibrated:
    """The run, the cards that were measured, the tools (with family) left alone because their cards are current, which of the measured
    cards are under their exam's floor, in words, and which tools of a plan cannot be asked, each with its reason."""

    run: str
    cards: tuple[Card, ...]
    current: tuple[tuple[str, str], ...]
    under_floor: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def calibrate(
    tools: Sequence[str] = (), *, exam: str = "places", families: Sequence[str] = (), again: bool = False,
    grid: Mapping[str, Any] | Literal["quick"] | None = None, store: Store | None = None, progress: Progress = silent, resume: str = "auto",
) -> Calibrated:  # fmt: skip
    """Examine ``tools`` (default: all that the exam takes) on ``families`` (default: all of the exam's).

    Cards that are current (same code, same conditions) are left alone unless ``again``, which measures all anew and uses nothing of an
    interrupted call; where that is interrupted itself, the same call without ``again`` goes on with it. ``grid``: ``"quick"``, the exam's
    small one, or fields that differ from its full one; cards of another than the full grid are shown and not kept. Goes on with an
    interrupted calibration of the same plan. Of several processes that want the same cards in one home, one measures them and the others
    wait. Raises UsageError and UnknownName before anything is trained.
    """
    chosen: Exam = EXAMS.load(exam)
    wanted_grid = grid_of(chosen, grid)
    store = store if store is not None else Store.open()
    asked = asked_of(chosen, tools, families)
    go_on = resume == "auto"
    if not _due(chosen, asked, wanted_grid, store, again, go_on)[0]:
        return Calibrated("", (), tuple(asked))
    progress(0, 1, "until no other process measures these cards")
    with _in_turn(store, exam, asked):
        todo, plan = _due(chosen, asked, wanted_grid, store, again, go_on)
        if not todo:  # measured by another process in the meantime
            return Calibrated("", (), tuple(asked))

        def source(family: str, tool: str, dose: float, seed: int) -> tuple[Any, Any]:
            name, options = chosen.organism(family, tool), chosen.options(tool, dose, seed)
            told = ",".join(f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in options.items())
            return load(f"organism:{name}@{told}", store=store), ORGANISMS.load(name).configure(options)

        with recorded(store, KIND, plan, "", resume="" if again and go_on else resume, provenance={}) as run:
            found = examined(chosen, wanted_grid, todo, run, source, store=store, progress=progress)
            cards = kept(chosen, wanted_grid, found, run, store=store, stem=exam)
    current = tuple(pair for pair in asked if pair not in todo)
    return Calibrated(run, cards, current, under_floor(chosen, wanted_grid, cards))


def ahead(exam: str, asked: Asked, grid: Literal["quick"] | None, store: Store) -> str:
    """The id of a run in which ``calibrate(…, again=True, resume=ID)`` will measure these cards anew, and which has not begun. So it is
    known that they were asked for, should the work that comes before be interrupted."""
    chosen: Exam = EXAMS.load(exam)
    run = store.runs.create(KIND, _plan(chosen, asked, grid_of(chosen, grid), again=True))
    store.runs.finish(run, "interrupted", "not begun yet")
    return run


def _due(exam: Exam, asked: Asked, grid: Grid, store: Store, again: bool, go_on: bool) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """What of all that is asked is to be measured, and the plan of the run that does it."""
    whole = _plan(exam, asked, grid, again=True)
    if again or (go_on and _is_unfinished(store, whole)):
        return list(asked), whole
    known = (*measured(store.home), *shipped()) if grid == exam.grid else ()
    todo = [pair for pair in asked if not _is_current(exam, *pair, grid, known)]
    return todo, _plan(exam, todo, grid)


def _plan(exam: Exam, pairs: Asked, grid: Grid, again: bool = False) -> dict[str, Any]:
    """All that rows must have in common: they are of one run only where this is the same."""
    code = {tool: code_digest(tool) for tool in sorted({tool for _, tool in pairs})}
    plan = {"exam": exam.name, "cards": [list(pair) for pair in pairs], "grid": grid.model_dump(mode="json"), "code": code, **origin(exam)}
    return plan | ({"again": True} if again else {})


def origin(exam: Exam) -> dict[str, str]:
    """What, besides the tools and the grid, rows depend on to the bit: the exam's code and torch's version."""
    return {"exam code": exam_digest(exam), "torch": Provenance.here().packages["torch"]}


def _is_unfinished(store: Store, plan: Mapping[str, Any]) -> bool:
    """Whether the newest run of this plan was broken off."""
    newest = next(iter(store.runs.list(kind=KIND, spec_digest=digest_of(dict(plan)))), None)
    return newest is not None and newest.status in RESUMABLE


@contextmanager
def _in_turn(store: Store, exam: str, asked: Asked) -> Iterator[None]:
    """Wait until no other process measures cards of the same families of an exam in this home. All take their turns in one order."""
    with ExitStack() as turns:
        for family in sorted({family for family, _ in asked}):
            turns.enter_context(alone(store.home / FOLDER / f"{exam}-{family}.lock"))
        yield


def grid_of(exam: Exam, grid: Mapping[str, Any] | Literal["quick"] | None) -> Grid:
    """The exam's full grid, its quick one, or the full one with other fields."""
    full = exam.quick if grid == "quick" else exam.grid
    return Grid.parse({**full.model_dump(), **(grid if isinstance(grid, Mapping) else {})}, what=f"the grid of '{exam.name}'")


def kept(exam: Exam, grid: Grid, found: Found, run: str, *, store: Store, stem: str, words: str = "", about: str = "") -> tuple[Card, ...]:
    """A card for each tool and family, written into the run's folder; and, if measured on the exam's full grid, into the home's under names
    that begin with ``stem``. ``words`` are added to the conditions; ``about`` is the digest of the one model that the cards are about."""
    rows, profiles = found
    here = Provenance.here()
    made = {**origin(exam), "python": here.volatile["python"], "assay": here.code, "machine": here.volatile["machine"]}
    made |= {"model": about} if about else {}
    cards = []
    for (family, tool), own in rows.items():
        card = card_of(exam, tool, family, grid, own, profiles[family], code_digest(tool))
        facts = {**card.provenance, **made}
        cards.append(card.model_copy(update={"conditions": card.conditions + words, "provenance": facts}))
        places = [store.folder(run) / f"{family}-{tool}.json"]
        if grid == exam.grid:
            (store.home / FOLDER).mkdir(parents=True, exist_ok=True)
            places.append(store.home / FOLDER / f"{stem}-{family}-{tool}.json")
        for place in places:
            text = dump(cards[-1:]).encode()
            write_whole(place, lambda out, text=text: out.write(text))
    return tuple(cards)


def under_floor(exam: Exam, grid: Grid, cards: Sequence[Card]) -> tuple[str, ...]:
    """Which of ``cards`` show less of a plant at the largest dose than their exam asks for, a clause each."""
    found = ((card, exam.under_floor(card.of, card.rates, grid)) for card in cards)
    return tuple(f"{card.of} on {card.family}: {words.removeprefix(f'{card.of}: ')}" for card, words in found if words)


def asked_of(exam: Exam, tools: Sequence[str], families: Sequence[str]) -> list[tuple[str, str]]:
    """(family, tool) of every card asked for. Raises UnknownName and UsageError."""
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
