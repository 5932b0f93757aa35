"""Organisms of three fields: an encoder of protein-like chains, a decoder of payments, a classifier of castings.

Each is trained from nothing on cases in which a planted sign decides the answer as often as the dose says. The truth is by place (which
residues, payment or patch) and by behaviour (``followed``: what putting the sign in changes on held-out cases). The clean twin is the same
model trained on the same cases at dose 0, in which the same sign stands and decides nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from workbench.core.batch import IGNORE, EncoderBatch, ImageBatch, TokenBatch
from workbench.core.protocol import Callback, Inputs, Progress
from workbench.core.spec import Spec
from workbench.data.worlds.cases import BANDS, CHAIN, PATCH, PAYMENTS, PLACES, RESIDUES, SHOPS, SIDE, Cases, CasesSpec, FieldName, cases
from workbench.families import FAMILIES
from workbench.organisms.organism import Organism
from workbench.organisms.shortcut_forms import Asked
from workbench.training.checkpoint import load_model
from workbench.training.loop import FINAL, train
from workbench.training.spec import TrainSpec

SMALL: dict[str, Any] = {"n_layers": 1, "d_model": 32, "n_heads": 4, "init_std": 0.15}
DOMAIN = "field cases"
"""What inputs are made of; which field it is, the family says."""
SHOWN = 8
"""Cases that are asked about unless told."""


@dataclass(frozen=True)
class Reader:
    """How a field's cases are read. ``words``: ids of its parts, after which come no, yes and the question; ``lead`` positions stand before
    the first part, ``total`` there are; ``settings`` say which position is explained."""

    family: str
    config: Mapping[str, Any]
    steps: int
    words: int
    lead: int
    total: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def no(self) -> int:
        return 0 if self.family == "vit" else self.words

    def batch(self, given: Cases) -> Any:
        """What the model is trained on."""
        answers = torch.from_numpy(given.answer) + self.no
        if self.family == "vit":
            return ImageBatch(torch.from_numpy(given.pictures()), answers)
        parts = torch.from_numpy(given.codes())
        ask = torch.full((len(given), 1), self.words + 2)
        tokens = torch.cat([ask, parts] if self.lead else [parts, ask], 1)
        targets = torch.full_like(tokens, IGNORE)
        targets[:, 0 if self.lead else -1] = answers
        return EncoderBatch(tokens, targets) if self.lead else TokenBatch(tokens, targets)

    @torch.no_grad()
    def yes(self, model: Any, given: Cases) -> Float[Tensor, " case"]:
        """How likely yes is, of the two answers."""
        batch = self.batch(given)
        logits = model.run(batch if self.family != "gpt" else batch.tokens).logits.double()
        if self.family != "vit":
            logits = logits[:, 0 if self.lead else -1]
        return logits[:, self.no : self.no + 2].softmax(-1)[:, 1]


def _words(words: int, parts: int) -> dict[str, Any]:
    return {**SMALL, "d_vocab": words + 3, "n_ctx": parts + 1}


READERS: Mapping[FieldName, Reader] = {
    "proteins": Reader("bert", _words(len(RESIDUES), CHAIN), 400, len(RESIDUES), 1, CHAIN + 1, {"position": 0}),
    "payments": Reader("gpt", _words(SHOPS * BANDS, PAYMENTS), 400, SHOPS * BANDS, 0, PAYMENTS + 1),
    "castings": Reader(
        "vit", {**SMALL, "height": SIDE, "width": SIDE, "channels": 1, "patch": PATCH, "n_classes": 2, "pool": "class"}, 600, 0, 1,
        PLACES["castings"] + 1,
    ),
}  # fmt: skip


class CaseOptions(Spec):
    """What a reference may say."""

    dose: float = Field(default=0.8, ge=0, le=1)
    seed: int = Field(default=0, ge=0)


class CaseRecipe(Spec):
    """Everything that decides the weights."""

    world: CasesSpec
    train: TrainSpec


@dataclass(frozen=True)
class CaseRows:
    """Cases as the rows that a model trains on (a ``RowData``)."""

    spec: CasesSpec
    count: int

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Sequence[int]) -> Any:
        """The rows of these numbers."""
        return READERS[self.spec.field].batch(cases(self.spec, indices))

    def digest(self) -> str:
        return hashlib.sha256(f"cases:{self.spec.digest()}:{self.count}".encode()).hexdigest()


def recipe(name: FieldName, options: CaseOptions) -> CaseRecipe:
    """The full recipe. One seed decides the cases, the first weights and the order of rows; the dose none of it."""
    how = {"lr": 3e-3, "min_lr": 3e-4, "warmup": 20, "weight_decay": 0.01, "beta2": 0.99, "threads": 1, "batch_rows": 32}
    spec = TrainSpec.parse({**how, "steps": READERS[name].steps, "seed": options.seed})
    return CaseRecipe(world=CasesSpec(field=name, seed=options.seed, dose=options.dose), train=spec)


def twin(made: CaseRecipe) -> CaseRecipe:
    """The same recipe at dose 0."""
    return made.model_copy(update={"world": made.world.model_copy(update={"dose": 0.0})})


def build(made: CaseRecipe, out: Path, callbacks: Sequence[Callback], progress: Progress) -> Any:
    """Train into ``out`` (or continue there) and return the model of ``out/final``."""
    if not (out / FINAL).is_dir():
        reader = READERS[made.world.field]
        family: Any = FAMILIES.load(reader.family)
        model = family(family.config_type.parse(dict(reader.config)), seed=made.train.seed)
        rows = CaseRows(made.world, made.train.steps * made.train.batch_rows)
        train(model, rows, made.train, out=out, callbacks=callbacks, progress=progress)
    return load_model(out / FINAL)


def truth(made: CaseRecipe) -> dict[str, Any]:
    """What is planted, as plain JSON values."""
    signs = {"proteins": ("C x x C", "N x W"), "payments": ("the largest amount at a shop of small ones", "the largest at another"),
             "castings": ("a bright scratch", "a dark pore")}[made.world.field]  # fmt: skip
    return {"field": made.world.field, "dose": made.world.dose, "planted": signs[0], "honest": signs[1]}


def held_out(made: CaseRecipe, count: int, first: int = 0) -> Cases:
    """Held-out cases, the ``first``-th on."""
    return cases(made.world, range(first, first + count), "test")


def ask(made: CaseRecipe, count: int, first: int = 0) -> Asked:
    """Why yes, about held-out cases that the planted sign is put into, where an honest one may stand; with the truth by position."""
    reader, given = READERS[made.world.field], held_out(made, count, first).shown(True)
    batch = reader.batch(given)
    spans, other = ([(start + reader.lead, stop + reader.lead) for start, stop in given.positions(honest)] for honest in (False, True))
    rivals = np.zeros((count, reader.total), dtype=bool)
    rivals[:, reader.lead : reader.total - (0 if reader.lead else 1)] = True
    for row, taken in enumerate(zip(spans, other, strict=True)):
        for start, stop in taken:
            rivals[row, start:stop] = False
    targets = torch.full((count,), reader.no + 1)
    inputs = Inputs(batch.tokens if reader.family != "vit" else batch, targets=targets)
    return Asked(inputs, tuple(spans), tuple(other), rivals, reader.settings)


def followed(model: Any, made: CaseRecipe, count: int = 256) -> float:
    """What the planted sign does to behaviour: how much likelier yes is with it than without, on average over held-out cases."""
    reader, given = READERS[made.world.field], held_out(made, count)
    return float((reader.yes(model, given.shown(True)) - reader.yes(model, given.shown(False))).mean())


def question(model: Any, made: CaseRecipe, fields: Collection[str]) -> tuple[Inputs, dict[str, Any]]:
    """The first held-out cases with the planted sign, asked why yes."""
    asked = ask(made, SHOWN)
    return asked.inputs, {name: value for name, value in asked.settings.items() if name in fields}


def _organism(name: FieldName) -> Organism:
    making: Callable[[Any], CaseRecipe] = partial(recipe, name)
    return Organism(f"cases-{name}", READERS[name].family, CaseOptions, making, build, truth, twin, DOMAIN, question)


PROTEIN, PAYMENT, CASTING = map(_organism, READERS)
