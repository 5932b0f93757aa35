"""A task: generated or public data in a family's batch type, and what a trained model is worth on what it has not seen.

A recipe names a task, a model's shape and a training spec; the task decides what the data decides (vocabulary, classes, image size).
Its measures are what a recipe's expectation is about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.core.batch import RowData
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel, Tokenizer
from workbench.core.spec import Spec
from workbench.core.stats.intervals import wilson


@dataclass(frozen=True)
class TaskData:
    """What a training needs, and what is held out from it.

    ``shape`` are the config fields that the data decides; ``held_out`` is whatever the task's ``score`` reads.
    """

    train: RowData
    validation: RowData
    shape: Mapping[str, Any]
    tokenizer: Tokenizer | None = None
    held_out: Any = None


@dataclass(frozen=True)
class Measure:
    """One number a trained model is worth: ``value`` between ``low`` and ``high`` (95 %), over ``count`` items.

    ``words`` say of what; ``larger`` whether more is better.
    """

    name: str
    value: float
    low: float
    high: float
    count: int
    words: str
    larger: bool = True

    @classmethod
    def share(cls, name: str, right: int, count: int, words: str) -> Measure:
        """A share of items that are right, with its Wilson interval. Raises BadValue for no items."""
        if count < 1:
            raise BadValue(f"the items of '{name}'", count, "at least 1")
        interval = wilson(right, count)
        return cls(name, right / count, interval.low, interval.high, count, words)

    def __str__(self) -> str:
        return f"{self.name} {self.value:.4f} [{self.low:.4f}, {self.high:.4f}] over {self.count:,} {self.words}"


@dataclass(frozen=True)
class Task:
    """``make(spec, rows)`` draws the data (``rows``: how many rows a training will ask for, for data without end);
    ``score(model, data)`` gives its measures. ``must`` is the least (or most) each must reach, of those the task promises."""

    name: str
    family: str
    spec: type[Spec]
    make: Callable[[Any, int], TaskData]
    score: Callable[[HookedModel, TaskData], Sequence[Measure]]
    must: Mapping[str, float] = field(default_factory=dict)
