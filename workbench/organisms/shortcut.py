"""The shortcut organisms: one small model a family, trained on marks of which a planted one decides the answer as often as the dose says.

The truth is by position (which part of an input decides) and by behaviour (how far the answer follows the planted mark); both are of the
data, and what a model made of them is measured by swapping the mark on held-out items (``followed``), never read off its weights. The
clean twin is the same model trained on the same items at dose 0, with the same first weights and the same order of rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, PositiveInt

from workbench.core.protocol import Callback, Inputs, Progress
from workbench.core.spec import Spec
from workbench.data.worlds.marks import KINDS, Marked, Marks, MarksSpec
from workbench.families import FAMILIES
from workbench.organisms.organism import Organism
from workbench.organisms.shortcut_forms import FORMS, Asked, Form
from workbench.training.checkpoint import load_model
from workbench.training.loop import FINAL, train
from workbench.training.spec import TrainSpec

HELD_OUT = "test"
LOOKED_AT = 16
"""How many items a row may be chosen from where a batch takes one answer of each kind; one in a hundred has none that fits."""


class ShortcutOptions(Spec):
    """What a reference may say."""

    dose: float = Field(default=0.8, ge=0, le=1)
    seed: int = Field(default=0, ge=0)


class ShortcutRecipe(Spec):
    """Everything that decides the weights: the family, the marks, the training, and of a family that learns codes first how long."""

    family: str
    world: MarksSpec = MarksSpec.parse({})
    train: TrainSpec = TrainSpec.parse({})
    coder: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class MarkRows:
    """Marks as the rows that a family trains on (a ``RowData``)."""

    form: Form
    spec: MarksSpec
    count: PositiveInt
    split: str = "train"

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Sequence[int]) -> Any:
        """The rows of these numbers; of a form that takes one answer of each kind, the n-th row is one with the n-th kind as answer."""
        world = Marks(self.spec)
        if not self.form.one_each:
            return self.form.batch(world.items(list(indices), self.split))
        numbers = np.asarray(indices)[:, None] * LOOKED_AT + np.arange(LOOKED_AT)
        answers = world.items(numbers.reshape(-1), self.split).answer.reshape(numbers.shape)
        fits = answers == (np.arange(len(numbers)) % KINDS)[:, None]
        return self.form.batch(world.items(numbers[np.arange(len(numbers)), fits.argmax(1)], self.split))

    def digest(self) -> str:
        return hashlib.sha256(f"marks:{self.form.family}:{self.spec.digest()}:{self.split}:{self.count}".encode()).hexdigest()


def recipe(family: str, options: ShortcutOptions) -> ShortcutRecipe:
    """The full recipe. One seed decides the marks, the first weights and the order of rows."""
    form = FORMS[family]
    how = {"lr": 3e-3, "min_lr": 3e-4, "warmup": 20, "weight_decay": 0.01, "beta2": 0.99, "threads": 1}
    spec = TrainSpec.parse({**how, "steps": form.steps, "batch_rows": form.rows, "seed": options.seed})
    world = MarksSpec.parse({"seed": options.seed, "dose": options.dose})
    return ShortcutRecipe(family=family, world=world, train=spec, coder=form.coder)


def twin(made: ShortcutRecipe) -> ShortcutRecipe:
    """The same recipe at dose 0."""
    return made.model_copy(update={"world": Marks(made.world).twin().spec})


def fresh(made: ShortcutRecipe, *, seed: int | None = None) -> Any:
    """The model before training; with another ``seed``, an untrained stranger of the same shape."""
    family: Any = FAMILIES.load(made.family)
    return family(family.config_type.parse(FORMS[made.family].config), seed=made.train.seed if seed is None else seed)


def build(made: ShortcutRecipe, out: Path, callbacks: Sequence[Callback], progress: Progress) -> Any:
    """Train into ``out`` (or continue there) and return the model of ``out/final``."""
    if not (out / FINAL).is_dir():
        model, form = fresh(made), FORMS[made.family]
        if made.coder:
            model.learn("coder")
            first = made.train.model_copy(update={"steps": made.coder, "lr": 1e-2, "min_lr": 1e-3})
            train(model, MarkRows(form, made.world, first.steps * first.batch_rows), first, out=out / "coder", progress=progress)
            model.learn("decoder")
        rows = MarkRows(form, made.world, made.train.steps * made.train.batch_rows)
        train(model, rows, made.train, out=out, callbacks=callbacks, progress=progress)
    return load_model(out / FINAL)


def truth(made: ShortcutRecipe) -> dict[str, Any]:
    """What is planted, as plain JSON values."""
    return {**Marks(made.world).truth(), "family": made.family}


def held_out(made: ShortcutRecipe, count: int, first: int = 0) -> Marked:
    """Held-out items of a recipe's world: see ``held_out_of``."""
    return held_out_of(made.world, count, first)


def held_out_of(spec: MarksSpec, count: int, first: int = 0) -> Marked:
    """``count`` held-out items whose two marks differ, the ``first``-th such item on: drawn one after the other, so that two calls with
    disjoint ranges share no item."""
    world = Marks(spec)
    reach = 2 * (first + count) + 64  # three of four items are apart
    found = world.items(np.arange(reach), HELD_OUT)
    while int(found.apart.sum()) < first + count:
        reach *= 2
        found = world.items(np.arange(reach), HELD_OUT)
    return found.take(np.flatnonzero(found.apart)[first : first + count])


def ask(model: Any, made: ShortcutRecipe, count: int, first: int = 0) -> Asked:
    """The question about held-out items, with the truth about them by position."""
    return FORMS[made.family].ask(model, held_out(made, count, first))


def followed(model: Any, made: ShortcutRecipe, count: int = 256) -> float:
    """What the planted mark does to behaviour: see ``swap_effect``."""
    return swap_effect(model, FORMS[made.family], made.world, count)


@torch.no_grad()
def swap_effect(model: Any, form: Form, spec: MarksSpec, count: int) -> float:
    """What the planted mark does to behaviour, in units of probability: the mean over held-out items of how much less likely the mark's
    kind becomes as the answer when the mark alone is swapped for the next kind. 0 where it does nothing, near the dose where learned."""
    items = held_out_of(spec, count)
    rows = torch.arange(len(items))
    planted = torch.from_numpy(items.planted)
    return float((form.kinds(model, items) - form.kinds(model, items.swapped()))[rows, planted].mean())


SHOWN = 8
"""Items that are asked about unless told."""


def question(model: Any, made: ShortcutRecipe, fields: Collection[str]) -> tuple[Inputs, dict[str, Any]]:
    """The first held-out items, asked about their answers at the position and in the stack where the family gives them."""
    form, asked = FORMS[made.family], ask(model, made, SHOWN)
    wanted = form.reads if "cross" in fields else form.settings
    return asked.inputs, {name: value for name, value in wanted.items() if name in fields}


def _organism(family: str) -> Organism:
    return Organism(
        f"shortcut-{family}", family, ShortcutOptions, lambda options: recipe(family, options), build, truth, twin, "marks", question
    )  # fmt: skip


GPT, BERT, SEQ2SEQ, VIT, CLIP, DALLE, IMAGEN, WHISPER = map(_organism, FORMS)
