"""A training's loss curves as a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from workbench.core import charts
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel
from workbench.core.result import Provenance, Result
from workbench.training.made_with import in_words

HISTORY = "training"


@dataclass(frozen=True)
class TrainingResult(Result):
    """``loss``, ``lr``, ``norm``, ``tokens`` [step]; ``validation_loss`` [validated]. Losses are means since the last step listed."""

    def summary(self) -> str:
        v = self.values
        last = f"loss {float(v.loss[-1]):.3f} after {int(v.step[-1])} steps (ended by {v.attrs['stopped']})"
        return f"{last}, validation {float(v.validation_loss[-1]):.3f} nats a token" if v.sizes["validated"] else last

    def plot(self) -> Any:
        """Training and validation loss over steps."""
        v = self.values
        parts = [("training", v.step.values, v.loss.values), ("validation", v.validated.values, v.validation_loss.values)]
        frame = pd.concat([pd.DataFrame({"step": steps, "loss": loss, "of": name}) for name, steps, loss in parts if len(steps)])
        frame["low"] = frame["high"] = np.nan
        titles = {"title": "Loss over the steps", "loss": "loss (nats a token)", "step": "step", "of": "loss of"}
        return charts.curve_with_band(frame, "step", "loss", "low", "high", "of", titles=titles)


def training_result(state: Mapping[str, Any], recipe: str, spec: Mapping[str, Any], model: HookedModel) -> TrainingResult:
    """From the ``train_state`` of a final checkpoint. Times are no part of it, so a resumed training has an unbroken one's digest."""
    record, validation = state["record"], state["validation"]
    if not record:
        raise BadValue("the training's record", "empty", "of at least one step")
    # A step that fp16 skipped has no gradient norm.
    columns = {name: [np.nan if point[name] is None else point[name] for point in record] for name in ("loss", "lr", "norm", "tokens")}
    table = {name: ("step", np.array(column)) for name, column in columns.items()}
    held_out = ("validated", np.array([point["loss"] for point in validation], dtype=float))
    values = xr.Dataset(
        table | {"validation_loss": held_out},
        coords={"step": [p["step"] for p in record], "validated": np.array([p["step"] for p in validation], dtype=int)},
        attrs={"stopped": state["stopped"], "unit": "nats a predicted token", "threads": state["threads"]},
    )
    origin = Provenance.here(model=f"recipe:{recipe}", model_digest=model.digest(), data_digest=state["identity"]["data"])
    notes = tuple(in_words(change["step"], change["changed"]) for change in state.get("changes", []))
    return TrainingResult(kind=HISTORY, values=values, spec=dict(spec), provenance=origin, notes=notes)
