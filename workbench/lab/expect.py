"""Expectations: what a recipe's next training should be worth, from trainings over several seeds.

An expectation is a file that ships with the recipe. ``verify`` trains one more seed and says whether it lies where the others said.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from evals.task import Measure
from workbench.core.errors import BadValue, UsageError
from workbench.core.protocol import Progress, silent
from workbench.core.result import Provenance
from workbench.core.spec import digest_of
from workbench.core.stats.intervals import clopper_pearson
from workbench.lab.recipe import TaskRecipe, read
from workbench.lab.run import train
from workbench.store.runs import Store

FOLDER = resources.files("workbench") / "expectations"
LEAST_SEEDS = 5
LEVEL = 0.95


@dataclass(frozen=True)
class Expected:
    """One measure over the seeds: each seed's value, their mean, and where one more seed's should lie."""

    name: str
    values: tuple[float, ...]
    count: int
    low: float
    high: float
    words: str

    @classmethod
    def of(cls, measures: Sequence[Measure]) -> Expected:
        """The prediction interval of one more seed.

        Student's t for a new draw, mean ± t s sqrt(1 + 1/n); never narrower than what ``count`` held-out items alone would scatter at
        the pooled share, since seeds that agree to the last item say nothing of the item that comes next.
        """
        values = np.array([one.value for one in measures])
        n, mean, first = len(values), float(values.mean()), measures[0]
        half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * values.std(ddof=1) * np.sqrt(1 + 1 / n))
        low, high = mean - half, mean + half
        if values.min() >= 0 and values.max() <= 1:
            items = clopper_pearson(round(mean * first.count), first.count, LEVEL)
            low, high = max(0.0, min(low, items.low)), min(1.0, max(high, items.high))
        return cls(first.name, tuple(map(float, values)), first.count, low, high, first.words)

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(self.values))


@dataclass(frozen=True)
class Expectation:
    """What was measured for one recipe: seeds, seconds of each training and scoring (wall, and of the processor), measures, and the
    recipe they are of."""

    recipe: str
    digest: str
    seeds: tuple[int, ...]
    seconds: tuple[float, ...]
    measures: tuple[Expected, ...]
    machine: Mapping[str, Any]
    processor: tuple[float, ...] = ()

    def to_json(self) -> str:
        """The file's text; the same expectation gives the same bytes."""
        measures = [
            {"name": m.name, "values": m.values, "mean": m.mean, "low": m.low, "high": m.high, "count": m.count, "words": m.words}
            for m in self.measures
        ]
        whole = {**vars(self), "measures": measures}
        return json.dumps(whole, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Expectation:
        """Back from ``to_json``."""
        whole = json.loads(text)
        measures = tuple(
            Expected(m["name"], tuple(m["values"]), m["count"], m["low"], m["high"], m["words"]) for m in whole.pop("measures")
        )
        lists = {name: tuple(whole[name]) for name in ("seeds", "seconds", "processor") if name in whole}
        return cls(**{**whole, **lists}, measures=measures)


@dataclass(frozen=True)
class Verified:
    """One more seed beside what was expected: ``outside`` names the measures that lie outside their interval."""

    expectation: Expectation
    seed: int
    run: str
    measures: tuple[Measure, ...]
    outside: tuple[str, ...]


def digest_without_seed(recipe: TaskRecipe) -> str:
    """What makes two trainings the same but for the seed."""
    values = recipe.model_dump(mode="json")
    values["train"] = {name: value for name, value in values["train"].items() if name != "seed"}
    return digest_of({name: value for name, value in values.items() if name not in ("name", "words")})


def measure(name: str, seeds: Sequence[int], *, store: Store | None = None, progress: Progress = silent) -> Expectation:
    """Train ``name`` with each seed and say what to expect. Raises UsageError for a recipe of no task, BadValue for too few seeds."""
    if len(set(seeds)) < LEAST_SEEDS:
        raise BadValue("the number of seeds", len(set(seeds)), f"at least {LEAST_SEEDS}")
    recipe = _task_recipe(name)
    found: list[tuple[Measure, ...]] = []
    seconds: list[float] = []
    processor: list[float] = []
    for seed in seeds:
        began, busy = time.monotonic(), time.process_time()
        found.append(_trained(recipe, seed, store, progress)[1])
        seconds.append(round(time.monotonic() - began, 1))
        processor.append(round(time.process_time() - busy, 1))
    measures = tuple(Expected.of([one[i] for one in found]) for i in range(len(found[0])))
    packages = dict(Provenance.here().packages)
    of = digest_without_seed(recipe)
    return Expectation(recipe.name, of, tuple(seeds), tuple(seconds), measures, {"packages": packages}, tuple(processor))


def verify(name: str, seed: int | None = None, *, store: Store | None = None, progress: Progress = silent) -> Verified:
    """Train one seed of a recipe (default: the first that was not measured) and compare it with its expectation.

    Raises UsageError where there is no expectation, or the recipe is no longer the one it is of.
    """
    recipe = _task_recipe(name)
    expectation = expected(recipe.name)
    if expectation is None:
        raise UsageError(f"The recipe '{name}' has no expectation. There is one for {', '.join(known()) or 'none yet'}.")
    if expectation.digest != digest_without_seed(recipe):
        raise UsageError(f"The recipe '{name}' was changed since its expectation was measured. Measure it again.")
    chosen = seed if seed is not None else max(expectation.seeds) + 1
    run, measures = _trained(recipe, chosen, store, progress)
    bounds = {one.name: one for one in expectation.measures}
    outside = tuple(one.name for one in measures if not bounds[one.name].low <= one.value <= bounds[one.name].high)
    return Verified(expectation, chosen, run, measures, outside)


def page(found: Expectation) -> str:
    """The expectation as a page of the docs."""
    must = _task_recipe(found.recipe).whole().must
    rows = []
    for one in found.measures:
        values = ", ".join(f"{value:.4f}" for value in one.values)
        promise = f"{must[one.name]:g}" if one.name in must else ""
        rows.append(f"| {one.name} | {one.mean:.4f} | {one.low:.4f} to {one.high:.4f} | {values} | {one.count:,} {one.words} | {promise} |")
    seconds = ", ".join(f"{value:.0f}" for value in found.seconds)
    busy = f"; {', '.join(f'{value:.0f}' for value in found.processor)} of one processor's" if found.processor else ""
    return "\n".join(
        [
            f"# {found.recipe}",
            "",
            f"`workbench train {found.recipe}` trains it; `workbench models verify {found.recipe}` trains one more seed and compares.",
            f"Seeds {', '.join(map(str, found.seeds))}; training and scoring took {seconds} seconds of wall on a machine with other work"
            f"{busy}.",
            "",
            "| measure | mean | where one more seed should lie (95 %) | each seed | over | must reach |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def known() -> list[str]:
    """The recipes that have an expectation."""
    return sorted(Path(file.name).stem for file in FOLDER.iterdir() if file.name.endswith(".json"))


def expected(recipe: str) -> Expectation | None:
    """The expectation of a shipped recipe; None where there is none."""
    return Expectation.from_json((FOLDER / f"{recipe}.json").read_text(encoding="utf-8")) if recipe in known() else None


def _task_recipe(name: str) -> TaskRecipe:
    recipe = read(name)
    if not isinstance(recipe, TaskRecipe):
        raise UsageError(f"The recipe '{name}' trains for no task, so nothing is measured of it. Give a recipe with a `task`.")
    return recipe


def _trained(recipe: TaskRecipe, seed: int, store: Store | None, progress: Progress) -> tuple[str, tuple[Measure, ...]]:
    done = train(recipe, settings={"train": {"seed": seed}}, store=store, progress=progress)
    assert done.measures is not None, "a task gives measures"
    return done.run, done.measures.measures()
