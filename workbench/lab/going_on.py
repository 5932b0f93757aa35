"""What a training that stopped says of its run: the last whole checkpoint, and how to go on; and going back to an earlier one."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from workbench.core.errors import (
    AssayError,
    CorruptFile,
    MissingData,
    MissingExtra,
    MissingFile,
    Resumable,
    StoreError,
    Unwritable,
)
from workbench.training.checkpoint import FINAL, LATEST, pointed
from workbench.training.recovery import explained, is_whole, last_whole, rewind, steps_in

PHASES = "phases"
_OF_WHAT_IT_READS = (CorruptFile, MissingFile, MissingData, MissingExtra)
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.EIO}


def folders_of(out: Path, parts: Sequence[str]) -> list[Path]:
    """Where each training of a run keeps its checkpoints, in their order; the last is ``out`` itself."""
    return [*(out / PHASES / part for part in parts if part), out]


def kept(out: Path, parts: Sequence[str]) -> str:
    """The last whole checkpoint of a run, or ''."""
    found = (last_whole(folder) for folder in reversed(folders_of(out, parts)))
    return str(next((folder for folder in found if folder is not None), ""))


@contextmanager
def named(run: str, out: Path, parts: Sequence[str], notes: Path) -> Iterator[None]:
    """Whatever ends the training of ``run`` in ``out`` inside the block knows its run and names its last whole checkpoint.

    ``notes`` is where the run's other files are. A disk that takes no more is ``Unwritable``, whoever met it.
    """
    try:
        with explained(out):
            yield
    except KeyboardInterrupt as stop:
        if str(stop):
            raise
        last = kept(out, parts)
        raise KeyboardInterrupt(f"with '{last}' as its last whole checkpoint" if last else "before a checkpoint was written") from stop
    except (StoreError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _OF_THE_DISK:
            raise
        why = (error.strerror or str(error)) if isinstance(error, OSError) else _of_the_disk(str(error))
        if not why:
            raise
        full = Unwritable("What the run notes", notes, why, last=kept(out, parts))
        full.run = run
        raise full from error
    except AssayError as error:
        if isinstance(error, Resumable):
            error.run = run
        if isinstance(error, Unwritable):
            error.last = error.last or kept(out, parts)
        elif not isinstance(error, Resumable) and isinstance(error, _OF_WHAT_IT_READS) and (last := kept(out, parts)):
            error.then = f"Then go on from '{last}' with the same command and `--resume {run}`."
        raise


def _of_the_disk(words: str) -> str:
    """What a database says of its disk; '' where it speaks of something else."""
    for said, why in (
        ("disk is full", "the disk is full"), ("disk I/O", "the disk is full or fails"), ("readonly", "Read-only file system"),
        ("unable to open database", "the disk is full or read-only"),
    ):  # fmt: skip
        if said in words:
            return why
    return ""


def go_back(out: Path, parts: Sequence[str], step: int) -> dict[str, object]:
    """Make a run go on from its checkpoint of ``step``, in its first damaged training, else in the one it has come to.

    Returns what to note of it. Raises BadValue where there is no whole checkpoint of that step.
    """
    there = [folder for folder in folders_of(out, parts) if steps_in(folder) or (folder / FINAL).is_dir()]
    chosen = next((folder for folder in there if _is_damaged(folder)), there[-1] if there else out)
    return {"step": step, "aside": rewind(chosen, step), "of": chosen.name if chosen != out else ""}


def _is_damaged(folder: Path) -> bool:
    try:
        last = folder / FINAL if (folder / FINAL).is_dir() else pointed(folder, LATEST)
    except CorruptFile:
        return True
    return last is not None and not is_whole(last)
