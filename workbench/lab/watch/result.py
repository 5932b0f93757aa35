"""What was watched while a model trained, as a result: a value for each look and measure, with its null."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from probes.panels import joined
from workbench.core.charts.curves import MOST, curves
from workbench.core.charts.frame import number
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel
from workbench.core.result import Provenance, Result
from workbench.lab.watch.metrics import Line, of_event

WATCHED = "watched"
FEW = 3
"""Of how many parts the summary speaks."""


@dataclass(frozen=True)
class WatchedResult(Result):
    """``value``, ``null`` [step, measure]; ``planted`` [measure] (NaN: not known). A measure has a ``watch`` (its name in the recipe) and a
    ``part`` (a head, a site). ``step`` counts the optimizer steps before the look. NaN: not scored there; ``notes`` say why."""

    def summary(self) -> str:
        """Of each measure the parts that changed most, from the first look to the last, beside their null."""
        lines = [f"{self.kind}: {self.values.sizes['step']} looks at steps {self._steps()}"]
        for name in self.watches():
            curve = self.of(name)
            parts = [self._change(curve, part) for part in changed(curve)[:FEW]]
            rest = curve.sizes["measure"] - FEW
            lines.append(f"{name} ({self.values.attrs['units'][name]}): {'; '.join(parts)}" + (f"; and {rest} more" if rest > 0 else ""))
        return "\n".join([*lines, *self.notes])

    def _steps(self) -> str:
        steps = self.values.step.values.tolist()
        return ", ".join(map(str, steps)) if len(steps) <= 4 else f"{steps[0]}, {steps[1]}, … {steps[-1]}"

    def _change(self, curve: xr.Dataset, part: str) -> str:
        one: Any = curve.isel(measure=curve.part.values.tolist().index(part))
        known = one.dropna("step", subset=["value"])
        if not known.sizes["step"]:
            return f"{part} never scored"
        (first, last), steps = (float(known.value[0]), float(known.value[-1])), known.step.values
        name = self.values.attrs["nulls"][str(one.watch.item())]
        null = f"{name} {number(float(known.null[-1]))}" if math.isfinite(float(known.null[-1])) else ""
        planted = f"planted {number(float(one.planted))}" if math.isfinite(float(one.planted)) else ""
        beside = ", ".join(words for words in (null, planted) if words)
        return f"{part} {number(first)} at step {steps[0]} to {number(last)} at step {steps[-1]}" + (f" ({beside})" if beside else "")

    def watches(self) -> list[str]:
        """The measures' names, in the recipe's order."""
        return list(dict.fromkeys(self.values.watch.values.tolist()))

    def of(self, name: str) -> xr.Dataset:
        """The part of the values that one name of the recipe gave."""
        return self.values.isel(measure=np.flatnonzero(self.values.watch.values == name))

    def plot(self) -> Any:
        """A panel for each name: the parts that changed most in colour, the others grey, dashed the null and what was planted."""
        panels = [panel(self.of(name), name, self.values.attrs["units"][name], self.values.attrs["nulls"][name]) for name in self.watches()]
        return panels[0] if len(panels) == 1 else joined(panels, "Watched while it trained", columns=2)


def changed(curve: xr.Dataset) -> list[str]:
    """The parts of one measure, those that changed most between their first and last known value first."""
    size: dict[str, float] = {}
    for i, part in enumerate(curve.part.values.tolist()):
        known = curve.value.values[:, i][np.isfinite(curve.value.values[:, i])]
        size[part] = abs(float(known[-1] - known[0])) if len(known) else -1.0
    return sorted(size, key=lambda part: -size[part])  # a stable sort: equal ones stay in the model's order


def panel(curve: xr.Dataset, name: str, unit: str, null: str) -> Any:
    """The curves of one measure."""
    parts, named = curve.part.values.tolist(), changed(curve)[:MOST]
    steps, looks = curve.step.values, curve.sizes["step"]
    frame = pd.DataFrame({"step": np.repeat(steps, len(parts)), "value": curve.value.values.ravel(), "of": np.tile(parts, looks)})
    levels: dict[str, float] = {}
    known = curve.null.values[np.isfinite(curve.null.values)]
    if len(known):
        levels[null] = float(known.mean())
    for value in dict.fromkeys(float(v) for v in curve.planted.values if np.isfinite(v)):
        levels[f"planted {number(value)}"] = value
    shown = f"the {len(named)} of {len(parts)} that changed most in colour" if len(parts) > len(named) else ""
    titles = {"title": f"{name}: {shown}" if shown else name, "step": "step", "value": unit, "of": ""}
    return curves(frame, "step", "value", "of", titles=titles, named=[p for p in parts if p in named], levels=levels, zero=True)


# --- from the file of metrics ---------------------------------------------------------------------------------


def curve_of(lines: Sequence[Line], names: Sequence[str] = ()) -> xr.Dataset:
    """The looks among ``lines`` as ``value``, ``null`` [step, measure] and ``planted`` [measure]; of ``names`` alone where given.

    Raises BadValue where there is none.
    """
    looks = of_event(lines, "watch")
    if not looks:
        raise BadValue("the looks at this training", "none", "at least one")
    order = names or [name for line in lines if line["event"] == "begin" for name in line.get("watching", {})]
    parts: dict[tuple[str, str], int] = {}
    for name in dict.fromkeys(order):
        for look in looks:
            for part in look["watched"].get(name, {}):
                parts.setdefault((name, part), len(parts))
    table = np.full((3, len(looks), len(parts)), np.nan)
    for row, look in enumerate(looks):
        for (name, part), column in parts.items():
            numbers = look["watched"].get(name, {}).get(part, (None, None, None))
            table[:, row, column] = [math.nan if value is None else value for value in numbers]
    planted = [next((v for v in table[2, :, column] if np.isfinite(v)), np.nan) for column in range(len(parts))]
    return xr.Dataset(
        {"value": (("step", "measure"), table[0]), "null": (("step", "measure"), table[1]), "planted": ("measure", np.array(planted))},
        coords={
            "step": np.array([look["step"] for look in looks], dtype=int), "measure": _strings(f"{name} {part}" for name, part in parts),
            "watch": ("measure", _strings(name for name, _ in parts)), "part": ("measure", _strings(part for _, part in parts)),
        },
    )  # fmt: skip


def _strings(words: Any) -> np.ndarray:
    return np.array(list(words), dtype=object)


def watched_result(
    lines: Sequence[Line], names: Sequence[str], expected: Sequence[int], *, recipe: str, plan: Mapping[str, Any], model: HookedModel
) -> WatchedResult:
    """What the looks at a training gave. ``expected``: the steps at which one was due; those that are missing are noted."""
    values = curve_of(lines, names)
    told: dict[str, Mapping[str, str]] = {}
    for line in lines:
        told |= line.get("watching", {})
    values.attrs |= {"units": {n: told[n]["unit"] for n in names}, "nulls": {n: told[n]["null"] for n in names}}
    notes = [*_unscored(lines, values.sizes["step"])]
    if missing := sorted(set(expected) - set(values.step.values.tolist())):
        notes.append(f"The looks at steps {', '.join(map(str, missing))} are missing: lines of the metrics file were lost.")
    origin = Provenance.here(model=f"recipe:{recipe}", model_digest=model.digest())
    return WatchedResult(kind=WATCHED, values=values, spec=dict(plan), provenance=origin, notes=tuple(notes))


def _unscored(lines: Sequence[Line], looks: int) -> list[str]:
    """A sentence for each measure that was not scored at every look, with its first reason."""
    reasons: dict[str, list[str]] = {}
    for line in of_event(lines, "watch"):
        for name, reason in line.get("unscored", {}).items():
            reasons.setdefault(name, []).append(f"at step {line['step']}, {reason}")
    return [f"{name} was not scored at {len(found)} of {looks} looks: {found[0].rstrip('.')}." for name, found in reasons.items()]
