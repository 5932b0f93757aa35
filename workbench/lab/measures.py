"""What a trained model is worth on a task's held-out items, as a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import xarray as xr

from evals.task import Measure
from workbench.core import charts
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel
from workbench.core.result import Provenance, Result

MEASURES = "measures"


@dataclass(frozen=True)
class MeasuresResult(Result):
    """``value``, ``low``, ``high`` (95 %), ``count``, ``words``, ``larger`` [measure]."""

    def measures(self) -> tuple[Measure, ...]:
        """The measures, in the task's order."""
        v: Any = self.values
        rows = zip(v.measure.values, v.value.values, v.low.values, v.high.values, v["count"].values, v.words.values, v.larger.values)
        return tuple(
            Measure(str(name), float(value), float(low), float(high), int(count), str(words), bool(larger))
            for name, value, low, high, count, words, larger in rows
        )

    def summary(self) -> str:
        """Each measure with its interval and denominator."""
        return "; ".join(map(str, self.measures())) + "."

    def plot(self) -> Any:
        """Every measure with its interval."""
        frame = pd.DataFrame([{"measure": m.name, "value": m.value, "low": m.low, "high": m.high} for m in self.measures()])
        return charts.bars_with_interval(frame, "measure", "value", "low", "high", titles={"title": "On held-out items", "value": "value"})


def measures_result(measures: Sequence[Measure], recipe: str, spec: Mapping[str, Any], model: HookedModel) -> MeasuresResult:
    """The measures of one trained model. Raises BadValue where a task gave none."""
    if not measures:
        raise BadValue("the task's measures", "none", "at least one")
    columns = ("value", "low", "high", "count", "words", "larger")
    table = {name: ("measure", [getattr(one, name) for one in measures]) for name in columns}
    values = xr.Dataset(table, coords={"measure": [one.name for one in measures]})
    origin = Provenance.here(model=f"recipe:{recipe}", model_digest=model.digest())
    return MeasuresResult(kind=MEASURES, values=values, spec=dict(spec), provenance=origin)
