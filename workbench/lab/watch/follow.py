"""Following a training: its metrics as it goes, its events in the store, and what is watched of the model.

A look leaves no mark on the training: the model is in evaluation mode for its length alone, nothing needs a gradient, and whatever a
measure draws comes from generators whose states are put back. It is taken when a step has ended and before that step's checkpoint is
written; so a training that is killed and goes on from a checkpoint has lost no look that lies before it.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from workbench.core.errors import AssayError, Incompatible
from workbench.families import FAMILIES
from workbench.lab.recipe import OrganismRecipe, Recipe, TaskRecipe, training_of
from workbench.lab.watch.measures import Ground, Look, Reading, Watch
from workbench.lab.watch.metrics import Metrics, finite
from workbench.lab.watch.spec import WATCHES, WatchSpec
from workbench.organisms import ORGANISMS
from workbench.training.drawing import drawing
from workbench.training.spec import TrainSpec

Note = Callable[[str, Mapping[str, Any]], None]
"""``note(event, facts)``: an event for the store."""


# --- before a training ----------------------------------------------------------------------------------------


def world_in(recipe: Recipe) -> Any:
    """The spec of the generated world a recipe trains on; None where it is another text, or none."""
    return getattr(recipe.full(), "world", None) if isinstance(recipe, OrganismRecipe) else None


def family_of(recipe: Recipe) -> str:
    """The family a recipe trains."""
    if isinstance(recipe, OrganismRecipe):
        return str(ORGANISMS.load(recipe.organism).family)
    return recipe.whole().family if isinstance(recipe, TaskRecipe) else "gpt"


def check_watch(recipe: Recipe) -> None:
    """Raise Incompatible where what is to be watched cannot be, before anything is prepared; the smallest model of the family stands for
    the one to come, which is asked itself before its first step."""
    if not recipe.watch.measures:
        return
    family, parallel = family_of(recipe), training_of(recipe).parallel
    if parallel.kind not in ("none", "ddp") or parallel.compile:
        how = f"train.parallel.kind={parallel.kind}" if parallel.kind not in ("none", "ddp") else "train.parallel.compile"
        raise Incompatible("watch", f"a training with {how}", ["it asks the whole model, layer by layer, in one process"])
    model, ground = FAMILIES.load(family).tiny(seed=0)[0].eval(), Ground(world_in(recipe))
    for name in recipe.watch.measures:
        watch: Watch = WATCHES.load(name)
        # whether there will be a tokenizer is known when there is a model
        if reasons := [why for why in watch.objections(model, ground) if "tokenizer" not in why]:
            raise Incompatible(name, f"this {family} model", reasons, do="Take it out of the recipe's watch.measures.")


# --- during it ------------------------------------------------------------------------------------------------


class Watcher:
    """Takes the looks of one training."""

    def __init__(self, spec: WatchSpec, world: Any = None) -> None:
        self.spec, self.world = spec, world
        self._looks: dict[str, Look] = {}

    def ready(self, model: Any, rows: Any) -> dict[str, dict[str, str]]:
        """Prepare the looks on the model as it stands; unit and null of each. Raises Incompatible and BadValue."""
        ground, facts = Ground(self.world, rows), {}
        for name in self.spec.measures:
            watch: Watch = WATCHES.load(name)
            if reasons := watch.objections(model, ground):
                raise Incompatible(name, f"this {model.family} model", reasons, do="Take it out of the recipe's watch.measures.")
            with asked(model):
                self._looks[name] = watch.ready(model, ground, self.spec)
            facts[name] = {"unit": watch.unit, "null": watch.null}
        return facts

    def look(self, model: Any, *, first: bool = False) -> dict[str, Any]:
        """What every measure gives now: ``watched``, and ``unscored`` with reasons. What fails after the ``first`` look is unscored."""
        watched: dict[str, dict[str, list[float | None]]] = {}
        unscored: dict[str, str] = {}
        for name, ask in self._looks.items():
            try:
                with asked(model):
                    found = ask(model)
            except AssayError as error:
                if first:
                    raise
                found, unscored[name] = [], str(error)
            watched[name] = {one.part: _numbers(one) for one in found}
            if reasons := [one.reason for one in found if one.reason]:
                unscored[name] = reasons[0]
        return {"watched": watched, "unscored": unscored}


def _numbers(one: Reading) -> list[float | None]:
    return [finite(one.value), finite(one.null), finite(one.planted)]


@contextmanager
def asked(model: Any) -> Iterator[None]:
    """The model in evaluation mode, without gradients, and randomness of its own; all is as before afterwards."""
    was_training = model.training
    with torch.no_grad(), drawing(next(model.parameters()).device, 0):
        model.eval()
        try:
            yield
        finally:
            model.train(was_training)


class Following:
    """The callback of one training: ``metrics`` get its lines, ``note`` its events. ``part`` is what learns in a training before the
    last, of which nothing is watched."""

    def __init__(self, metrics: Metrics, note: Note, watcher: Watcher | None = None, part: str = "") -> None:
        self.metrics, self.note, self.watcher, self.part = metrics, note, watcher, part
        self._of = {"part": part} if part else {}
        self._since = (0.0, 0)  # when the last line of a step was written, and the tokens by then
        self._told = 0.0  # when the last event was over

    def begin(self, state: Mapping[str, Any]) -> None:
        """Prepare the looks, cut the file to where the training stands, and look at the model before its first step."""
        rows = state["validation"] if state["validation"] is not None else state["data"]
        watching = self.watcher.ready(state["model"], rows) if self.watcher is not None else {}
        spec: TrainSpec = state["spec"]
        told: dict[str, Any] = {"steps": spec.steps, "tokens": state["tokens"], "pid": os.getpid(), "host": platform.node()}
        told |= {"watching": watching} if watching else {}
        self.metrics.begin(state["step"], part=self.part, **told)
        self._since, self._told = (time.perf_counter(), state["tokens"]), time.perf_counter()
        self._look(state, first=state["step"] == 0)

    def __call__(self, event: str, state: Mapping[str, Any]) -> None:
        if event != "step":  # what came between two steps, a checkpoint or a validation, is no part of their speed
            self._away(time.perf_counter() - self._told)
        self._tell(event, state)
        self._told = time.perf_counter()

    def _away(self, seconds: float) -> None:
        self._since = (self._since[0] + seconds, self._since[1])

    def _tell(self, event: str, state: Mapping[str, Any]) -> None:
        step, tokens = state["step"], state["tokens"]
        if event == "step":
            if (record := state["record"]) is not None:
                before, seen = self._since
                self._since = (time.perf_counter(), tokens)
                speed = round((tokens - seen) / max(self._since[0] - before, 1e-9), 1)
                said: dict[str, Any] = {name: finite(record[name]) for name in ("loss", "lr", "norm")}
                self.metrics.say("step", step, part=self.part, tokens=tokens, tokens_per_second=speed, **said)
            self._look(state)
        elif event == "validation":
            self.metrics.say("validation", step, part=self.part, tokens=tokens, loss=state["loss"])
            self.note("validation", {"step": step, "loss": state["loss"], **self._of})
        elif event == "checkpoint":
            self.note("checkpoint", {"step": step, **self._of})
        elif event == "changed":
            self.note("changed", {"step": step, "words": state["words"], **self._of})
        elif event == "end":
            self.metrics.say("end", step, part=self.part, tokens=tokens, stopped=state["history"]["stopped"])

    def _look(self, state: Mapping[str, Any], *, first: bool = False) -> None:
        step, spec = state["step"], state["spec"]
        if self.watcher is None or self.metrics.has("watch", step, part=self.part):
            return
        checkpoints = (spec.save_every, spec.validate_every) if state["out"] is not None else ()
        if not self.watcher.spec.due(step, spec.steps, *checkpoints):
            return
        began = time.perf_counter()
        found = self.watcher.look(state["model"], first=first)
        seconds = time.perf_counter() - began
        self.metrics.say("watch", step, part=self.part, keep=True, tokens=state["tokens"], seconds=round(seconds, 3), **found)
        self.note("watch", {"step": step, "highest": highest(found["watched"])})
        self._away(seconds)


def highest(watched: Mapping[str, Mapping[str, Sequence[float | None]]]) -> dict[str, list[Any]]:
    """Of each measure the part with the highest value, and the value: ``{"induction": ["L1H0", 0.8]}``."""
    known = {name: {part: row[0] for part, row in parts.items() if row[0] is not None} for name, parts in watched.items()}
    return {name: list(max(values.items(), key=lambda pair: pair[1])) for name, values in known.items() if values}
