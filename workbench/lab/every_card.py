"""Every card of the catalogue's entries of a standing, over all exams, on all processors: so that the whole atlas is one command.

A family of an exam is one piece of work, done by one process as ``lab.calibrate`` does it, with one thread; so no number depends on how
many processes there are. Pieces are stopped and taken up again like any calibration, and what is current is left alone.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from signal import SIG_IGN, SIGINT, signal
from threading import Thread
from typing import Any, Literal

from evals import SUITES
from probes import INSTRUMENTS
from workbench.calibration.exam import Exam
from workbench.calibration.exams import EXAMS
from workbench.core.catalog import STANDINGS
from workbench.core.errors import EXIT_INTERRUPTED, AssayError
from workbench.core.protocol import Progress, silent
from workbench.engine.threads import processors
from workbench.lab.calibrate import Calibrated, calibrate
from workbench.lab.record import Interrupted
from workbench.lab.silence import silence
from workbench.store.runs import Store

LOOK_S = 0.5
TRIES = 3
"""Pools of processes in which a piece may be lost."""
KEPT = "What was finished is kept. Go on with the same command; with --again everything is measured anew."


@dataclass(frozen=True)
class Piece:
    """One family of an exam, and what is asked about it."""

    exam: str
    family: str
    tools: tuple[str, ...]


def pieces(standing: str) -> tuple[Piece, ...]:
    """All work that the cards of a standing are: what makes most models first, so that no processor is left alone with it."""
    statuses, found = STANDINGS[standing], []
    for name in EXAMS:
        exam: Exam = EXAMS.load(name)
        for family in exam.families:
            if tools := tuple(tool for tool in exam.tools(family) if _status(tool) in statuses):
                found.append(Piece(name, family, tools))
    return tuple(sorted(found, key=_models, reverse=True))


def _models(piece: Piece) -> int:
    """How many models a piece makes."""
    exam: Exam = EXAMS.load(piece.exam)
    return len({exam.organism(piece.family, tool) for tool in piece.tools}) * len(exam.grid.models())


def every_card(
    standing: str, *, grid: Literal["quick"] | None = None, again: bool = False, processes: int = 0,
    store: Store, progress: Progress = silent,
) -> tuple[Calibrated, ...]:  # fmt: skip
    """The cards of all entries of a ``standing`` (``core.catalog.STANDINGS``) by as many ``processes`` (0: one for each processor that this
    one may use). Where a process dies, others go on with its work; a piece whose processes died ``TRIES`` times, or that ended in an error,
    is told once all else is done, as AssayError. Raises Interrupted for Ctrl-C. What was finished is kept either way."""
    todo, done, failed = list(pieces(standing)), list[Calibrated](), list[str]()
    asked = len(todo)
    count = min(processes or processors(), len(todo))
    for _ in range(TRIES):
        lost: list[Piece] = []
        for piece, found in _by_pool(todo, count, store.address, grid, again, progress):
            if found is None:
                lost.append(piece)
            elif isinstance(found, str):
                failed.append(f"{piece.exam} on {piece.family}: {found}")
            else:
                done.append(found)
        if not (todo := lost):
            break
    failed += [f"{piece.exam} on {piece.family}: its process ended {TRIES} times (killed, or out of memory)." for piece in todo]
    if failed:
        raise AssayError(f"{len(failed)} of {asked} pieces were not measured: {' '.join(failed)} {KEPT}")
    return tuple(done)


# --- this process -----------------------------------------------------------------------------------------


def _by_pool(
    todo: Sequence[Piece], count: int, address: str, grid: Literal["quick"] | None, again: bool, progress: Progress
) -> Iterator[tuple[Piece, Calibrated | str | None]]:
    """Each piece with what became of it, as they end: None where a process died, which ends all others of its pool too."""
    context = multiprocessing.get_context("spawn")
    told, stop = context.Queue(), context.Event()
    with ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(told, stop)) as pool:
        running = {pool.submit(_measure, i, piece, address, grid, again): piece for i, piece in enumerate(todo)}
        try:
            for future in _as_done(running, told, progress):
                yield running[future], _result(future)
        except BaseException as error:
            stop.set()
            pool.shutdown(cancel_futures=True)
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted("", f"Interrupted. {KEPT}") from None
            raise


def _as_done(running: dict[Future[Any], Piece], told: Any, progress: Progress) -> Iterator[Future[Any]]:
    """Pieces as they end; meanwhile ``progress`` hears how many answers there are of all that are known to be wanted."""
    left, standing = set(running), dict[int, tuple[int, int]]()
    while left:
        ended, left = wait(left, timeout=LOOK_S, return_when=FIRST_COMPLETED)
        for number, at, of, words in _told(told):
            standing[number] = (at, of)
            progress(sum(one for one, _ in standing.values()), sum(one for _, one in standing.values()), words)
        yield from ended


def _told(told: Any) -> Iterator[tuple[int, int, int, str]]:
    while True:
        try:
            yield told.get_nowait()
        except queue.Empty:
            return


def _result(future: Future[Any]) -> Calibrated | str | None:
    try:
        return future.result()
    except BrokenProcessPool:
        return None


def _status(tool: str) -> str:
    return (INSTRUMENTS if tool in INSTRUMENTS else SUITES)[tool].status


# --- the other processes ----------------------------------------------------------------------------------


class _Ears:
    """What a working process tells, and whether it is to stop."""

    told: Any = None
    stop: Any = None


def _begin(told: Any, stop: Any) -> None:
    silence()
    signal(SIGINT, SIG_IGN)  # Ctrl-C reaches every process of a terminal; the first one says what it means
    told.cancel_join_thread()  # words that nobody reads any more hold no process up
    _Ears.told, _Ears.stop = told, stop
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed can tell nobody; what its children had not finished counts as interrupted."""
    if (parent := multiprocessing.parent_process()) is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(EXIT_INTERRUPTED)


def _measure(number: int, piece: Piece, address: str, grid: Literal["quick"] | None, again: bool) -> Calibrated | str:
    """One piece, or the sentence of what ended it."""

    def hear(at: int, of: int, words: str = "") -> None:
        if _Ears.stop.is_set():
            raise KeyboardInterrupt
        _Ears.told.put((number, at, of, words))

    try:
        with Store.open(address) as store:
            return calibrate(piece.tools, exam=piece.exam, families=[piece.family], again=again, grid=grid, store=store, progress=hear)
    except KeyboardInterrupt:
        return "it was interrupted."
    except AssayError as error:
        return str(error)
    except Exception as error:  # whatever it is, the other pieces are worth measuring
        return f"{type(error).__name__}: {error}."


def cards_of(found: Sequence[Calibrated]) -> Calibrated:
    """Several calibrations as one: all cards and all that were current; the runs are named together."""
    runs = " ".join(one.run for one in found if one.run)
    return Calibrated(runs, tuple(card for one in found for card in one.cards), tuple(pair for one in found for pair in one.current))
