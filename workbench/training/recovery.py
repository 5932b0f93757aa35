"""What is left of a run that stopped: which of its checkpoints are whole, and going on from an earlier one.

Nothing here happens by itself. A run whose newest checkpoint is damaged ends with ``Damaged``, which names the last whole one; it goes on
from there only when it is told to (``rewind``, or ``workbench train … --resume RUN --from STEP``). Since every step is drawn from its
number, it then ends in the weights it would have had.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from workbench.core.errors import AssayError, BadValue, CorruptFile, Damaged, MissingFile, Unwritable
from workbench.training import checkpoint
from workbench.training.checkpoint import BEST, FINAL, LATEST
from workbench.training.lock import held
from workbench.training.parallel.shards import local
from workbench.training.parallel.world import World

ASIDE = "aside-"
"""What the name of a checkpoint begins with that a run went back behind."""


def steps_in(root: Path) -> list[int]:
    """The steps of which ``root`` has a checkpoint, whole or not, newest first."""
    names = [path.name for path in root.glob("step-*") if re.fullmatch(r"step-\d{8}", path.name)] if root.is_dir() else []
    return sorted((int(name[5:]) for name in names), reverse=True)


def is_whole(folder: Path) -> bool:
    """Whether every byte of a checkpoint is what its manifest says."""
    try:
        if checkpoint.read(folder, tensors=False).cut:
            checkpoint.check_shards(folder)
    except (AssayError, OSError):
        return False
    return True


def last_whole(root: Path, before: int | None = None) -> Path | None:
    """The newest whole checkpoint of a step in ``root``, below step ``before`` where that is given."""
    for step in steps_in(root):
        folder = checkpoint.step_folder(root, step)
        if (before is None or step < before) and is_whole(folder):
            return folder
    return None


def damaged(error: CorruptFile | MissingFile, root: Path) -> Damaged:
    """``error``, met where a run in ``root`` should go on, with the last whole checkpoint."""
    if isinstance(error, CorruptFile):
        fault = f"'{error.path}' should be {error.expected}, but {error.found}"
    else:
        fault = f"'{error.path}' is missing, and a checkpoint without it is not whole"
    part = Path(error.path).relative_to(root).parts[0]
    # behind the damaged step itself: what is newer was made without it, and would not make it again
    before = int(part[5:]) if re.fullmatch(r"step-\d{8}", part) else None
    good = last_whole(root, before)
    return Damaged(fault, error.path, good=str(good or ""), step=int(good.name[5:]) if good is not None else 0)


@contextmanager
def explained(root: Path | None) -> Iterator[None]:
    """A checkpoint in ``root`` that turns out not to be whole is ``Damaged``; that and what is ``Unwritable`` name the last whole one."""
    try:
        yield
    except Unwritable as error:
        error.last = error.last or str((root is not None and last_whole(root)) or "")
        raise
    except (CorruptFile, MissingFile) as error:
        if root is not None and Path(error.path).is_relative_to(root) and not isinstance(error, Damaged):
            raise damaged(error, root) from error
        raise


@contextmanager
def writing(what: str, root: Path) -> Iterator[None]:
    """A disk that does not take ``what`` is ``Unwritable``, with the last whole checkpoint."""
    try:
        yield
    except OSError as error:
        raise Unwritable(what, root, error.strerror or str(error), last=str(last_whole(root) or "")) from error


def odd_weights(model: nn.Module, optimizer: torch.optim.Optimizer, world: World | None) -> str:
    """Which weights or moments are not finite, in words; '' where all are. All processes of a ``world`` call it and get an answer
    alike."""
    odd = [name for name, value in model.named_parameters() if not local(value).isfinite().all()]
    kept = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    spoilt = sum(not bool(local(value).isfinite().all()) for value in kept)
    count = torch.tensor(float(len(odd) + spoilt), dtype=torch.float64)
    if world is not None:
        count = world.total(count.to(next(model.parameters()).device), rows=False)
    if not count.item():
        return ""
    return f"'{odd[0]}' is not finite" if odd else "the optimizer's moments are not finite"


def rewind(root: Path | str, step: int) -> list[str]:
    """Make the run in ``root`` go on from its checkpoint of ``step`` (0: from its beginning), and return the names of what was newer.

    What is newer is kept under names that begin with ``aside-``. Raises BadValue where there is no whole checkpoint of that step, and
    Occupied and Unwritable.
    """
    root = Path(root)
    there = [one for one in steps_in(root) if is_whole(checkpoint.step_folder(root, one))]
    if step and step not in there:
        allowed = f"a step with a whole checkpoint in '{root}': {', '.join(map(str, [*there, 0]))} (0: from the beginning)"
        raise BadValue("from", step, allowed)
    with held(root):
        checkpoint.clean(root)
        newer = [root / FINAL] if (root / FINAL).is_dir() else []
        newer += [checkpoint.step_folder(root, one) for one in steps_in(root) if one > step]
        for folder in newer:
            folder.rename(_free(root / f"{ASIDE}{folder.name}"))
        if not step:
            for pointer in (LATEST, BEST):
                (root / pointer).unlink(missing_ok=True)
            return [folder.name for folder in newer]
        folder = checkpoint.step_folder(root, step)
        checkpoint.point(root, LATEST, folder.name)
        best = checkpoint.read(folder, tensors=False).train_state.get("best")
        if best is not None and checkpoint.step_folder(root, best["step"]).is_dir():
            checkpoint.point(root, BEST, checkpoint.step_folder(root, best["step"]).name)
        else:  # it validates better ones again on its way
            (root / BEST).unlink(missing_ok=True)
    return [folder.name for folder in newer]


def _free(path: Path) -> Path:
    number, free = 2, path
    while free.exists():
        free, number = path.with_name(f"{path.name}-{number}"), number + 1
    return free
