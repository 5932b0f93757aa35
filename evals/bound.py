"""Suites that look at a model themselves: at its vectors, at what it makes of sounds or images, at its gradient.

The runner asks for text and log-probabilities. A suite that needs anything else is bound to its model first; what is bound asks nothing
(``request`` is empty) and finds each score from the sample. Everything else is as with any suite: samples, committed records, a result
that is aggregated without the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from workbench.core.errors import AssayError, BadValue, Incompatible
from workbench.core.measure import Needs, Request, Sample, Score, Suite
from workbench.core.protocol import HookedModel
from workbench.core.result import Result
from workbench.core.spec import Spec


@runtime_checkable
class Looking(Protocol):
    """A suite that finds a sample's values in the model. What it raises as an AssayError leaves the sample unscored with its reason."""

    def found(self, model: HookedModel, sample: Sample, spec: Any) -> Score: ...


@dataclass(frozen=True)
class Bound:
    """A looking suite with its model; a ``core.measure.Suite``."""

    suite: Suite
    model: HookedModel

    @property
    def name(self) -> str:
        return self.suite.name

    @property
    def spec(self) -> type[Spec]:
        return self.suite.spec

    @property
    def needs(self) -> Needs:
        return self.suite.needs

    def samples(self, spec: Any) -> Iterable[Sample]:
        return self.suite.samples(spec)

    def request(self, sample: Sample, spec: Any) -> tuple[Request, ...]:
        return ()

    def score(self, sample: Sample, response: Any, spec: Any) -> Score:
        assert isinstance(self.suite, Looking)
        try:
            return self.suite.found(self.model, sample, spec)
        except AssayError as error:
            return Score(sample.id, unscored=f"{error.field} must be {error.allowed}" if isinstance(error, BadValue) else str(error))

    def aggregate(self, scores: Sequence[Score], spec: Any) -> Result:
        return self.suite.aggregate(scores, spec)

    def findings(self, result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Any]:
        return self.suite.findings(result, subject=subject, reference=reference, level=level)


def bound(suite: Suite, model: HookedModel) -> Suite:
    """``suite`` as it is, or bound to ``model`` where it looks at it itself."""
    return Bound(suite, model) if isinstance(suite, Looking) else suite


class Unbound:
    """What a looking suite answers to a runner that did not bind it."""

    name = ""

    def request(self, sample: Sample, spec: Any) -> tuple[Request, ...]:
        return ()

    def score(self, sample: Sample, response: Any, spec: Any) -> Score:
        raise Incompatible(self.name, "a runner that was given no model", ["it looks at the model itself: bind it (evals.bound.bound)"])
