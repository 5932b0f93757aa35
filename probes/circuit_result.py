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
HELD = "held_"
"""Before the names of what is told of items held out."""
NEAR = 0.1
"""How near to 1 the circuit that a summary looks for is, and all larger ones."""


@dataclass(frozen=True)
class CircuitDiscoveryResult(Result):
    """One row a circuit and item. ``kind``: ``found``, its ``complement``, ``random`` (with the number of the ``draw``), ``pruned`` (what
    greedy pruning kept), ``all`` and ``none``; ``size`` the share of all edges asked for, ``edges`` how many are inside. ``value``: the
    number read; ``faithfulness``: 0 as with none and 1 as with all (of a complement this is the completeness), with the interval ``low``
    to ``high``; ``stability``: the Jaccard index of circuits found on two draws of the items. ``cpr`` … ``cmd_log``: areas, and
    ``random_…`` their means over random circuits. All of these are of the items that circuits were found on; ``held_out`` tells the
    others, and ``held_…`` is the same of them (NaN where there are none). Aside, of each edge, its ``writer``, ``reader``, ``score``, the
    size at which it ``joins`` (NaN: at none), and whether pruning ``kept`` it."""

    columns: ClassVar[tuple[str, ...]] = (
        "circuit", "batch", "kind", "size", "edges", "draw", "value", "faithfulness", "low", "high", "stability",
        "held_out", *(f"{which}{name}" for which in ("", HELD) for name in (*AREAS, *(f"random_{area}" for area in AREAS))),
        *(f"{HELD}{name}" for name in ("faithfulness", "low", "high")),
    )  # fmt: skip
    aside: ClassVar[tuple[str, ...]] = ("edge",)

    def curve(self, kind: str = "found", *, held_out: bool = False) -> pd.DataFrame:
        """``size``, ``edges``, ``faithfulness``, ``low``, ``high``, ``stability`` of one kind of circuit; of random ones the mean, the
        least and the most over draws. ``held_out``: of the items held out. Raises BadValue for a kind that was not run."""
        v: Any = self.values
        mine = v.kind.values == kind
        if not mine.any():
            raise BadValue("the kind of circuit", kind, f"one of {', '.join(dict.fromkeys(v.kind.values.tolist()))}")
        if held_out and not self.held:
            raise BadValue("held_out", True, "false: no items were held out", do="Ask for some with the field `held_out`.")
        word = HELD if held_out else ""
        told = {name: v[f"{word}{name}"].values[mine] for name in ("faithfulness", "low", "high")}
        frame = pd.DataFrame({name: v[name].values[mine] for name in ("size", "edges")} | told | {"stability": v.stability.values[mine]})
        if kind != "random":
            return frame
        by_size: Any = frame.groupby("size", sort=True)
        each = by_size["faithfulness"]
        return by_size.mean().assign(low=each.min(), high=each.max()).reset_index()

    @property
    def held(self) -> int:
        """Items held out."""
        return int(self.values.held_out.values.sum())

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
        total = int(v.edges.values[v.kind.values == "all"][0])
        lines = [f"{self.kind}: {total} edges, {len(v.batch) - self.held} items, {self.spec['method']}, {self.spec['replacement']}."]
        near = ((found.faithfulness - 1).abs() <= NEAR).to_numpy()
        enough = found[np.logical_and.accumulate(near[::-1])[::-1]]
        if len(enough):
            first = enough.iloc[0]
            share, left = (self._at(kind, first["size"]) for kind in ("found", "complement"))
            again = "" if np.isnan(first.stability) else f"; {number(float(first.stability))} of it on other draws of the items"
            part = f"{int(first.edges)} edges ({100 * first.edges / total:.3g} %)"
            lines.append(f"{part} keep {share} of the answer, without them {left} is left{again}.")
            if self.held:
                share, left = (self._at(kind, first["size"], held_out=True) for kind in ("found", "complement"))
                lines.append(f"Of {self.held} items held out they keep {share}, without them {left} is left.")
        else:
            lines.append(f"No circuit up to {100 * float(found['size'].max()):g} % keeps the answer to {100 * NEAR:g} %.")
        if (v.kind.values == "pruned").any():
            one: Any = self.curve("pruned").iloc[0]
            lines.append(f"Pruning kept {int(one.edges)} edges: faithfulness {number(float(one.faithfulness))}.")
        lines.append(self._areas(""))
        if self.held:
            lines.append(f"Held out: {self._areas(HELD)}")
        return "\n".join([*lines, *self.notes])

    def _at(self, kind: str, size: float, *, held_out: bool = False) -> str:
        """Faithfulness of a kind at a size, with its interval where there is one."""
        curve: Any = self.curve(kind, held_out=held_out)
        one = curve[curve["size"] == size].iloc[0]
        within = f" ({number(float(one.low))} to {number(float(one.high))})" if held_out and np.isfinite([one.low, one.high]).all() else ""
        return f"{number(float(one.faithfulness))}{within}"

    def _areas(self, word: str) -> str:
        """The areas beside those of random circuits."""
        v: Any = self.values
        told = [f"{name.upper().replace('_LOG', ' (log axis)')} {number(float(v[f'{word}{name}']))}" for name in AREAS]
        null = [number(float(v[f"{word}random_{name}"])) for name in AREAS]
        return "; ".join(f"{a}, random circuits {b}" for a, b in zip(told, null, strict=True)) + "."

    def plot(self) -> Any:
        """Faithfulness over the share of edges on a log axis: the circuits found, what is left without them, and random circuits."""
        v: Any = self.values
        kinds = {"found": "circuit", "complement": "all but the circuit", "random": "random circuits (least to most)"}
        frames = [
            self.curve(kind)[["size", "faithfulness", "low", "high"]].assign(kind=words)
            for kind, words in kinds.items()
            if (v.kind.values == kind).any()
        ]
        if self.held:
            held = self.curve(held_out=True)
            frames.insert(1, held[["size", "faithfulness", "low", "high"]].assign(kind="circuit, items held out"))
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
