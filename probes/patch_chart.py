"""The chart of a patching: a grid a component, with the tokens below positions."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from probes.panels import joined
from workbench.core.charts.heat import grid

MOST_ROWS, MOST_COLUMNS, MOST_PANELS = 48, 128, 6


def chart(result: Any) -> Any:
    """One panel a component, the first ones where there are many."""
    names = list(dict.fromkeys(result.values.component.values.tolist()))
    panels = [_panel(result, name) for name in names[:MOST_PANELS]]
    kind = result.spec["replacement"]
    title = f"{result.kind.replace('-', ' ').capitalize()}: {kind}{', ' + result.spec['direction'] if kind == 'counterfactual' else ''}"
    shown = "" if len(panels) == len(names) else f", {len(panels)} of {len(names)} components"
    return panels[0] if len(panels) == 1 else joined(panels, title + shown, columns=2)


def _panel(result: Any, name: str) -> Any:
    values = result.grid(name)
    across = next((word for word in ("pos", "key", "head", "neuron") if word in values.dims), "")
    down = [dim for dim in values.dims if dim != across]
    columns = values[across].values.tolist() if across else [name]
    numbers = (values.transpose(*down, across) if across else values).values.reshape(-1, len(columns))
    heads = list(product(*(values[dim].values.tolist() for dim in down)))
    rows = [cell[0] if down == ["layer"] else " ".join(f"{_SHORT[dim]}{n}" for dim, n in zip(down, cell, strict=True)) for cell in heads]
    tall, wide = _strongest(numbers, MOST_ROWS), _strongest(numbers.T, MOST_COLUMNS)
    said = "" if len(tall) == len(rows) else f", {len(tall)} strongest of {len(rows)} rows"
    said += "" if len(wide) == len(columns) else f", {len(wide)} strongest of {len(columns)} columns"
    cells = [(columns[j], rows[i], float(numbers[i, j])) for i in tall for j in wide]
    frame = pd.DataFrame(cells, columns=pd.Index(["across", "row", "number"]))
    labels = _labels(result, name) if across == "pos" else None
    words = {
        "title": f"{name}: {values.name} of patching{said}", "number": str(values.name),
        "across": "token" if labels else across or "component", "row": " ".join(map(str, down)),
    }  # fmt: skip
    return grid(frame, "across", "row", "number", titles=words, x_labels=labels)


_SHORT = {"layer": "L", "head": "H", "pos": "P", "key": "K", "neuron": "N"}


def _strongest(numbers: np.ndarray, most: int) -> list[int]:
    """The rows with the largest numbers, in their own order; all where they are few."""
    strength = np.nan_to_num(np.abs(numbers)).max(axis=1)
    return sorted(int(i) for i in np.argsort(-strength, kind="stable")[:most])


def _labels(result: Any, name: str) -> list[str] | None:
    """The tokens of the positions, where all items have the same; ``…`` where they differ."""
    v = result.values
    mine = np.flatnonzero((v.component.values == name) & (v.pos.values >= 0))
    out: dict[int, str] = {}
    for k in mine:
        words = {str(word) for word in v.token_at.values[k] if word != ""}
        out[int(v.pos.values[k])] = next(iter(words)) if len(words) == 1 else "…" if words else ""
    if not any(word not in ("", "…") for word in out.values()):
        return None
    return [out.get(place, "") for place in range(max(out) + 1)]
