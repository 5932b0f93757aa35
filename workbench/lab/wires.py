"""The circuit between two prompts: which edges carry the difference, how faithful circuits of several sizes are, and one of them drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from workbench.core.charts.frame import number
from workbench.core.charts.wiring import wiring
from workbench.core.protocol import HookedModel
from workbench.core.result import Result
from workbench.lab.live import ask

CIRCUITS = "circuit-discovery"
SIZES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0)
DRAWN = 160
"""Edges drawn at most: beyond them lines cover each other, and the table is left."""


@dataclass(frozen=True)
class Size:
    """A circuit that was run: the share of all edges asked for, its edges, its faithfulness, and what random circuits as large reach."""

    size: float
    edges: int
    faithfulness: float
    random: float

    @property
    def words(self) -> str:
        return f"{self.edges} edges: {number(self.faithfulness)}"


def found(model: HookedModel, clean: str, corrupt: str, *, target: str, foil: str, quantity: str) -> Result:
    """Edges ranked by integrated slopes between the two prompts, and circuits of ``SIZES`` run. Raises BadValue and Incompatible."""
    asked: dict[str, Any] = {"target": target, "foil": foil, "corrupt": corrupt}
    return ask(model, CIRCUITS, clean, **asked, quantity=quantity, sizes=SIZES, nulls=5, resamples=0)


def sizes_of(result: Any) -> tuple[Size, ...]:
    """The circuits that hold an edge, smallest first, one a number of edges."""
    random = dict(zip(*(result.curve("random")[name].tolist() for name in ("size", "faithfulness")), strict=True))
    out: dict[int, Size] = {}
    for size, edges, faith in zip(*(result.curve()[name].tolist() for name in ("size", "edges", "faithfulness")), strict=True):
        if not edges:  # no edge of so few leads from the embedding to the logits
            continue
        out.setdefault(int(edges), Size(float(size), int(edges), float(faith), float(random.get(size, np.nan))))
    return tuple(out.values())


def edges_of(result: Any, size: float) -> pd.DataFrame:
    """The edges of one circuit, strongest first: ``writer``, ``reader``, ``score``."""
    v = result.values
    inside = v.joins.values <= size * (1 + 1e-9)
    frame = pd.DataFrame({name: v[name].values[inside] for name in ("writer", "reader", "score")})
    return frame.sort_values("score", ascending=False, kind="stable").reset_index(drop=True)


def said(one: Size) -> str:
    """What a circuit keeps, in a sentence."""
    if np.isnan(one.faithfulness):
        return f"{one.edges} edges. With all edges and with none the answer is the same here, so nothing can be kept."
    beside = "" if np.isnan(one.random) else f" Random circuits as large: {number(one.random)}."
    return f"{one.edges} edges keep {number(one.faithfulness)} of the difference: 0 is the corrupt answer, 1 the clean one.{beside}"


def drawn(result: Any, one: Size) -> Any:
    """One circuit as a drawing; of a large one its strongest edges."""
    frame = edges_of(result, one.size)
    note = "" if len(frame) <= DRAWN else f"The {DRAWN} strongest of {len(frame)} edges."
    return wiring(frame.head(DRAWN), "writer", "reader", "score", titles={"title": f"The circuit of {one.edges} edges", "note": note})
