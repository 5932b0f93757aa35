"""What a model was trained on, from its reference: the rows, the checkpoints that were kept, and which step read which row first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from probes.data_rows import Trained
from workbench.core.batch import RowData
from workbench.core.errors import BadValue, UsageError
from workbench.core.protocol import HookedModel
from workbench.lab.recipe import OrganismRecipe, Recipe, TaskRecipe, read, training_of
from workbench.lab.refs import checkpoint_of, parse
from workbench.organisms import ORGANISMS
from workbench.store.runs import Store
from workbench.training.checkpoint import load_model
from workbench.training.checkpoint import read as read_checkpoint
from workbench.training.loop import FINAL
from workbench.training.order import row_order
from workbench.training.spec import TrainSpec


def trained_of(model: HookedModel, ref: str, store: Store | None = None) -> Trained:
    """The training behind ``run:ID``, made again from its recipe; ``model`` is its final model.

    Raises UsageError for a reference that names no training, or one whose rows cannot be made again, and BadValue where the rows are not
    those that it was trained on.
    """
    wanted = parse(ref) if ref and not ref.startswith("memory:") else None
    if wanted is None or wanted.scheme != "run" or "/" in wanted.name:  # a mended model was changed after its training
        raise UsageError(
            f"'{ref or 'this model'}' does not say what it was trained on. Name a training as run:ID, or give the rows in Python as "
            "`Inputs(…, reference=probes.data_rows.Trained(rows, checkpoints))`."
        )
    home = store if store is not None else Store.open(create=False)
    run = home.runs.get(wanted.name)
    recipe = read(run.spec)
    folder, spec = checkpoint_of(home, run.id), training_of(recipe)
    rows = _rows(recipe, model, ref)
    stored = read_checkpoint(folder / FINAL).train_state.get("identity", {}).get("data", "")
    if stored != rows.digest():
        raise BadValue(f"the training data of '{ref}'", rows.digest()[:12], f"{stored[:12]}, as when it was trained",
                       do="A file or a data set has changed since.")  # fmt: skip
    kept = [(load_model(step), spec.lr_at(number)) for number, step in _kept(folder) if number < spec.steps]
    return Trained(rows, kept, spec.lr_at(spec.steps - 1), first_read(spec, len(rows)))


def _rows(recipe: Recipe, model: Any, ref: str) -> RowData:
    if isinstance(recipe, OrganismRecipe):
        make = ORGANISMS.load(recipe.organism).rows
        if make is None:
            raise UsageError(f"'{ref}' is a '{recipe.organism}', whose training rows cannot be made again by themselves.")
        return make(recipe.full(), model)
    if isinstance(recipe, TaskRecipe):
        return recipe.data_of().train
    return recipe.prepare().rows


def _kept(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints of steps that are still there, in order."""
    return [(int(step.name.removeprefix("step-")), step) for step in sorted(folder.glob("step-*")) if step.is_dir()]


def first_read(spec: TrainSpec, rows: int) -> dict[int, int]:
    """The step (from 0) that first read each row; rows that none read are left out."""
    out: dict[int, int] = {}
    for step in range(spec.steps):
        for row in row_order(spec.seed, step, spec.batch_rows, rows):
            out.setdefault(row, step)
        if len(out) == rows:
            break
    return out
