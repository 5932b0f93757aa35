"""What a circuit discovery found: the values of circuits of several sizes, their faithfulness, and the edges in the order they join."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from workbench.core.charts.frame import altair, number
from workbench.core.charts.lines import curve_with_band
from workbench.core.errors import BadValue
from workbench.core.result import Result

AREAS = ("cpr", "cmd", "cpr_log", "cmd_log")
NEAR = 0.1
"""How near to 1 the circuit that a summary looks for is, and all larger ones."""


@dataclass(frozen=True)
class CircuitDiscoveryResult(Result):
    """One row a circuit and item. ``kind``: ``found``, its ``complement``, ``random`` (with the number of the ``draw``), ``pruned`` (what
    greedy pruning kept), ``all`` and ``none``; ``size`` the share of all edges asked for, ``edges`` how many are inside. ``value``: the
    number read; ``faithfulness``: 0 as with none and 1 as with all (of a complement this is the completeness), with the interval ``low``
    to ``high``; ``stability``: the Jaccard index of circuits found on two draws of the items. ``cpr`` … ``cmd_log``: areas, and
    ``random_…`` their means over random circuits. Aside, of each edge, its ``writer``, ``reader``, ``score``, the size at which it
    ``joins`` (NaN: at none), and whether pruning ``kept`` it."""

    columns: ClassVar[tuple[str, ...]] = (
        "circuit", "batch", "kind", "size", "edges", "draw", "value", "faithfulness", "low", "high", "stability",
        *AREAS, *(f"random_{name}" for name in AREAS),
    )  # fmt: skip
    aside: ClassVar[tuple[str, ...]] = ("edge",)

    def curve(self, kind: str = "found") -> pd.DataFrame:
        """``size``, ``edges``, ``faithfulness``, ``low``, ``high``, ``stability`` of one kind of circuit; of random ones the mean, the
        least and the most over draws. Raises BadValue for a kind that was not run."""
        v: Any = self.values
        mine = v.kind.values == kind
        if not mine.any():
            raise BadValue("the kind of circuit", kind, f"one of {', '.join(dict.fromkeys(v.kind.values.tolist()))}")
        names = ("size", "edges", "faithfulness", "low", "high", "stability")
        frame = pd.DataFrame({name: v[name].values[mine] for name in names})
        if kind != "random":
            return frame
        by_size: Any = frame.groupby("size", sort=True)
        told = by_size["faithfulness"]
        return by_size.mean().assign(low=told.min(), high=told.max()).reset_index()

    def circuit(self, size: float) -> list[tuple[str, str]]:
        """The edges of the circuit found at a size, as (writer, reader). Raises BadValue for a size that was not run."""
        v: Any = self.values
        sizes = v["size"].values[v.kind.values == "found"]
        if not np.isclose(sizes, size).any():
            raise BadValue("size", size, f"one of {', '.join(f'{one:g}' for one in sizes)}")
        inside = v.joins.values <= size * (1 + 1e-9)
        return list(zip(v.writer.values[inside].tolist(), v.reader.values[inside].tolist(), strict=True))

    def summary(self) -> str:
        """The smallest circuit from which on all are faithful, the areas, and what random circuits reach."""
        v: Any = self.values
        found: Any = self.curve()
        rest: Any = self.curve("complement")
        total = int(v.edges.values[v.kind.values == "all"][0])
        lines = [f"{self.kind}: {total} edges, {len(v.batch)} items, {self.spec['method']}, {self.spec['replacement']}."]
        near = ((found.faithfulness - 1).abs() <= NEAR).to_numpy()
        enough = found[np.logical_and.accumulate(near[::-1])[::-1]]
        if len(enough):
            first = enough.iloc[0]
            left = float(rest.faithfulness[rest["size"] == first["size"]].iloc[0])
            again = "" if np.isnan(first.stability) else f"; {number(float(first.stability))} of it on other draws of the items"
            lines.append(
                f"{int(first.edges)} edges ({100 * first.edges / total:.3g} %) keep {number(float(first.faithfulness))} of the answer, "
                f"without them {number(left)} is left{again}."
            )
        else:
            lines.append(f"No circuit up to {100 * float(found['size'].max()):g} % keeps the answer to {100 * NEAR:g} %.")
        if (v.kind.values == "pruned").any():
            one: Any = self.curve("pruned").iloc[0]
            lines.append(f"Pruning kept {int(one.edges)} edges: faithfulness {number(float(one.faithfulness))}.")
        told = [f"{name.upper().replace('_LOG', ' (log axis)')} {number(float(v[name]))}" for name in AREAS]
        null = [number(float(v[f"random_{name}"])) for name in AREAS]
        lines.append("; ".join(f"{a}, random circuits {b}" for a, b in zip(told, null, strict=True)) + ".")
        return "\n".join([*lines, *self.notes])

    def plot(self) -> Any:
        """Faithfulness over the share of edges on a log axis: the circuits found, what is left without them, and random circuits."""
        v: Any = self.values
        kinds = {"found": "circuit", "complement": "all but the circuit", "random": "random circuits (least to most)"}
        frames = [
            self.curve(kind)[["size", "faithfulness", "low", "high"]].assign(kind=words)
            for kind, words in kinds.items()
            if (v.kind.values == kind).any()
        ]
        frame: Any = pd.concat(frames)
        frame = frame.assign(size=100 * frame["size"]).dropna(subset=["faithfulness"])
        if not len(frame):  # undefined everywhere: draw the raw values
            raise BadValue("faithfulness", "undefined at every size", "known somewhere to be drawn", do="Read `values` instead.")
        titles = {
            "title": f"Faithfulness of circuits ({self.spec['method']}, {self.spec['replacement']})",
            "size": "edges in the circuit, % (log axis)", "faithfulness": "faithfulness", "kind": "edges inside",
            "reference": "whole model",
        }  # fmt: skip
        chart = curve_with_band(frame, "size", "faithfulness", "low", "high", "kind", titles=titles, reference=1.0)
        return _on_log_axis(chart)


def _on_log_axis(chart: Any) -> Any:
    alt = altair()
    for layer in chart.layer:
        if getattr(layer.encoding, "x", alt.Undefined) is not alt.Undefined and isinstance(layer.encoding.x, alt.X):
            layer.encoding.x.scale = alt.Scale(type="log", nice=False, padding=8)
    return chart
