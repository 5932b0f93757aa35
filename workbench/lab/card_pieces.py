"""What calibration is shared out in: a family of an exam, measured by one process with one thread, wherever that process runs.

So no number depends on how many processes there are. An error of one piece is a sentence, since the other pieces are worth measuring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from evals import SUITES
from probes import INSTRUMENTS
from workbench.calibration.exam import Exam
from workbench.calibration.exams import EXAMS
from workbench.core.catalog import STANDINGS
from workbench.core.errors import AssayError
from workbench.core.protocol import Progress, silent
from workbench.lab.calibrate import Calibrated, ahead, asked_of, calibrate
from workbench.store.runs import Store


@dataclass(frozen=True)
class Piece:
    """One family of an exam, and what is asked about it. ``anew``: the id of the run that measures it whatever cards there are ('': what
    is current is left alone)."""

    exam: str
    family: str
    tools: tuple[str, ...]
    anew: str = ""


Spread = Callable[[Sequence[Piece]], Iterator[tuple[Piece, Calibrated | str | None]]]
"""Each piece with what became of it, as they end: its cards, the sentence of what ended it, or None where its process was lost."""


def pieces(standing: str) -> tuple[Piece, ...]:
    """All work that the cards of a standing are: what makes most models first, so that no processor is left alone with it."""
    statuses, found = STANDINGS[standing], []
    for name in EXAMS:
        exam: Exam = EXAMS.load(name)
        for family in exam.families:
            if tools := tuple(tool for tool in exam.tools(family) if _status(tool) in statuses):
                found.append(Piece(name, family, tools))
    return tuple(sorted(found, key=_models, reverse=True))


def pieces_of(exam: str, tools: Sequence[str] = (), families: Sequence[str] = ()) -> tuple[Piece, ...]:
    """The work that ``calibrate`` does for the same words. Raises UnknownName and UsageError."""
    pairs = asked_of(EXAMS.load(exam), tools, families)
    return tuple(Piece(exam, family, tuple(tool for f, tool in pairs if f == family)) for family in dict.fromkeys(f for f, _ in pairs))


def _status(tool: str) -> str:
    return (INSTRUMENTS if tool in INSTRUMENTS else SUITES)[tool].status


def _models(piece: Piece) -> int:
    """How many models a piece makes."""
    exam: Exam = EXAMS.load(piece.exam)
    return len({exam.organism(piece.family, tool) for tool in piece.tools}) * len(exam.grid.models())


def to_measure_anew(piece: Piece, grid: Literal["quick"] | None, store: Store) -> Piece:
    """The piece with a run that measures it anew, which the store knows from now on to be asked for."""
    run = ahead(piece.exam, [(piece.family, tool) for tool in piece.tools], grid, store)
    return Piece(piece.exam, piece.family, piece.tools, run)


def carried_out(piece: Piece, grid: Literal["quick"] | None, address: str, progress: Progress = silent) -> Calibrated | str:
    """One piece, in the store of that address; or the sentence of what ended it."""
    try:
        with Store.open(address) as store:
            again = bool(piece.anew) and store.runs.get(piece.anew).status != "done"  # a process may be lost that had just finished
            return calibrate(
                piece.tools, exam=piece.exam, families=[piece.family], again=again, grid=grid, store=store, progress=progress,
                resume=piece.anew if again else "auto",
            )  # fmt: skip
    except KeyboardInterrupt:
        return "it was interrupted."
    except AssayError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}."


def lost(piece: Piece, store: Store) -> Piece:
    """The piece, whose process is known to be gone: also where it was on another machine, whose processes no run can ask after."""
    if piece.anew and store.runs.get(piece.anew).status == "running":
        store.runs.finish(piece.anew, "interrupted", "its process was lost")
    return piece
