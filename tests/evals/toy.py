"""A small suite over the letters of the scoring tests: which of two continuations is likelier, and what comes next."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from evals.metrics import prefers, total
from evals.runner import denominators
from workbench.core.measure import Generate, Loglikelihood, Needs, Request, Sample, Score
from workbench.core.result import Result
from workbench.core.spec import Spec


class ToySpec(Spec):
    """``count`` samples; number ``long`` has a context that no model of the tests can read; ``pause`` seconds a score."""

    count: int = 20
    long: int = -1
    pause: float = 0.0
    seed: int = 0


class Toy:
    name = "toy"
    spec = ToySpec
    needs = Needs(abilities=frozenset({"logits"}), inputs=(), tokenizer=True)

    def samples(self, spec: ToySpec) -> Iterator[Sample]:
        for n in range(spec.count):
            context = "a" * 99 if n == spec.long else "abcdefgh"[: 1 + n % 7] + "ijklmnop"[n % 8]
            yield Sample(f"{n:03d}", {"context": context}, cluster=str(n % 3), group="even" if n % 2 == 0 else "odd")

    def request(self, sample: Sample, spec: ToySpec) -> tuple[Request, ...]:
        return Loglikelihood(sample.facts["context"], ("bc", "bd")), Generate(sample.facts["context"], most=3)

    def score(self, sample: Sample, response: tuple[Any, ...], spec: ToySpec) -> Score:
        time.sleep(spec.pause)
        (first, second), text = response
        return Score(
            sample.id, {"first": total(first), "second": total(second), "prefers": prefers(total(first), total(second)), "text": text}
        )

    def aggregate(self, scores: Sequence[Score], spec: ToySpec) -> Result:
        values = np.array([np.nan if s.unscored else s.values["first"] for s in scores])
        attrs = {"asked": denominators(scores).model_dump(mode="json"), "texts": [s.values.get("text", "") for s in scores]}
        return Result("toy", xr.Dataset({"first": ("sample", values)}, coords={"sample": [s.sample for s in scores]}, attrs=attrs))

    def findings(self, result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Any]:
        return []
