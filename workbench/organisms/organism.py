"""What a model with planted truth is: a recipe with options, a twin without the plant, and the truth as plain values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core.batch import RowData
from workbench.core.protocol import Callback, Inputs, Progress, silent
from workbench.core.spec import Spec


@dataclass(frozen=True)
class Spot:
    """Where the planted part stands in each item of an organism's question: a half-open range of positions an item. ``part``, ``moves``,
    ``items`` and ``parts`` are the words for the part, for what is asked about, for the items and for what they are made of."""

    spans: tuple[tuple[int, int], ...]
    part: str
    moves: str
    items: str
    parts: str


@dataclass(frozen=True)
class Organism:
    """A family of planted models.

    ``family`` is its models' family; ``domain`` names what its inputs are made of, as cards do; ``options`` is the spec of what a
    reference may say (``organism:town@dose=0.8,seed=1``); ``recipe(options)`` gives the full spec; ``make(recipe, out, callbacks,
    progress)`` trains it into a folder (continuing what is there) and returns the model; ``truth(recipe)`` is what is planted as plain
    JSON values; ``twin(recipe)`` the recipe of the same model without the plant. ``question(model, recipe, fields)``: what an instrument
    whose spec has these fields is asked unless told, and values for some of the fields; None where the domain has questions of its own,
    as the town has. ``rows(recipe, model)``: what the model was trained on, where that can be made again. ``spot(recipe)``: where the
    planted part stands in the items of ``question``, where that is known by position.
    """

    name: str
    family: str
    options: type[Spec]
    recipe: Callable[[Any], Spec]
    make: Callable[[Any, Path, Sequence[Callback], Progress], Any]
    truth: Callable[[Any], dict[str, Any]]
    twin: Callable[[Any], Spec]
    domain: str = ""
    question: Callable[[Any, Any, Collection[str]], tuple[Inputs, dict[str, Any]]] | None = None
    rows: Callable[[Any, Any], RowData] | None = None
    spot: Callable[[Any], Spot] | None = None

    def configure(self, given: Mapping[str, Any] | None = None) -> Spec:
        """The full recipe for the options of a reference. Raises UsageError for an option that does not exist or is out of range."""
        return self.recipe(self.options.parse(given or {}, what=f"organism:{self.name}"))

    def build(self, recipe: Spec, out: Path, *, callbacks: Sequence[Callback] = (), progress: Progress = silent) -> Any:
        """The model of ``recipe``; trained into ``out`` unless it is there already."""
        return self.make(recipe, out, callbacks, progress)
