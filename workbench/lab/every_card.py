"""Many cards on all processors: those of the catalogue's entries of a standing, over all exams, so that the whole atlas is one command; or
those of one exam.

Pieces (``lab.card_pieces``) are given to processes of this machine, or to Ray (``lab.card_rays``). They are stopped and taken up again like
any calibration, and what is current is left alone.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from signal import SIG_IGN, SIGINT, signal
from threading import Thread
from typing import Any, Literal

from workbench.core.errors import EXIT_INTERRUPTED, AssayError
from workbench.core.protocol import Progress, silent
from workbench.engine.threads import processors
from workbench.lab.calibrate import Calibrated
from workbench.lab.card_pieces import Piece, Spread, carried_out, lost, to_measure_anew
from workbench.lab.card_rays import by_rays
from workbench.lab.rays import TRIES, parse
from workbench.lab.record import Interrupted
from workbench.lab.silence import silence
from workbench.store.runs import Store

LOOK_S = 0.5


def every_card(
    asked: Sequence[Piece], *, engine: str = "local", grid: Literal["quick"] | None = None, again: bool = False, processes: int = 0,
    store: Store, progress: Progress = silent,
) -> tuple[Calibrated, ...]:  # fmt: skip
    """The cards of ``asked`` by as many ``processes`` (0: one for each processor that this one may use), or by ``engine`` ``ray`` or
    ``ray:N``: the same cards. Where a process dies, others go on with its work; a piece whose processes died ``TRIES`` times, or that ended
    in an error, is told once all else is done, as AssayError. Raises Interrupted for Ctrl-C. What was finished is kept either way, and with
    ``again`` the call goes on without it. Raises BadValue, and what ``card_rays.by_rays`` raises, before anything is measured."""
    todo, done, failed = list(asked), list[Calibrated](), list[str]()
    go_on = f"What was finished is kept. Go on with the same command{' without `--again`' if again else ''}."
    count = min(processes or processors(), len(todo))
    pool: Spread = lambda todo: _by_pool(todo, count, store.address, grid, progress)  # noqa: E731
    with by_rays(engine, grid, store, progress) if parse(engine) else nullcontext(pool) as spread:
        if again:
            todo = [to_measure_anew(piece, grid, store) for piece in todo]
        for _ in range(TRIES):
            gone: list[Piece] = []
            try:
                for piece, found in spread(todo):
                    if found is None:
                        gone.append(lost(piece, store))
                    elif isinstance(found, str):
                        failed.append(f"{piece.exam} on {piece.family}: {found}")
                    else:
                        done.append(found)
            except KeyboardInterrupt:
                raise Interrupted("", f"Interrupted. {go_on}") from None
            if not (todo := gone):
                break
    failed += [f"{piece.exam} on {piece.family}: its process ended {TRIES} times (killed, or out of memory)." for piece in todo]
    if failed:
        raise AssayError(f"{len(failed)} of {len(asked)} pieces were not measured: {' '.join(failed)} {go_on}")
    return tuple(done)


# --- this process -----------------------------------------------------------------------------------------


def _by_pool(
    todo: Sequence[Piece], count: int, address: str, grid: Literal["quick"] | None, progress: Progress
) -> Iterator[tuple[Piece, Calibrated | str | None]]:
    """Each piece with what became of it, as they end: None where a process died, which ends all others of its pool too."""
    context = multiprocessing.get_context("spawn")
    told, stop = context.Queue(), context.Event()
    with ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(told, stop)) as pool:
        running = {pool.submit(_measure, i, piece, address, grid): piece for i, piece in enumerate(todo)}
        try:
            for future in _as_done(running, told, progress):
                yield running[future], _result(future)
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
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


def _measure(number: int, piece: Piece, address: str, grid: Literal["quick"] | None) -> Calibrated | str:
    """One piece, or the sentence of what ended it."""

    def hear(at: int, of: int, words: str = "") -> None:
        if _Ears.stop.is_set():
            raise KeyboardInterrupt
        _Ears.told.put((number, at, of, words))

    return carried_out(piece, grid, address, hear)


def cards_of(found: Sequence[Calibrated]) -> Calibrated:
    """Several calibrations as one: all cards and all that were current; the runs are named together."""
    return Calibrated(
        " ".join(one.run for one in found if one.run),
        tuple(card for one in found for card in one.cards),
        tuple(pair for one in found for pair in one.current),
        tuple(words for one in found for words in one.under_floor),
    )
