"""Edges found in compiled circuits: ``python benchmarks/compiled_edges.py FOLDER [--programs NAME …] [--json FILE]``.

FOLDER holds one folder a program (``params.npz`` and ``meta.json``; see ``workbench.adapters.compiled``). For each program, each
replacement (zero, mean, resample) and each method (every edge patched, EAP, EAP-IG) it prints the area under the ROC curve of all edges
between components by the size of their effect against the structural truth: 1.0 where every edge of the weights has a larger effect than
every other edge, ``n/a`` where all edges are in the circuit. An edge's effect is the largest over the program's own examples and over the
positions read, of a sum of all outputs with different weights. ``silent`` counts edges of the truth that move nothing when patched (0 to
rounding); a bracket behind a method counts those it loses: edges that move something, and whose estimate is below a hundredth of it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probes.edge_attribution_patching import EdgeAttributionPatchingSpec, Method, attributed
from workbench.adapters.compiled import Compiled, load
from workbench.core.protocol import Inputs
from workbench.core.stats.counts import rank_auc

REPLACEMENTS = ("zero", "mean", "resample")
METHODS: tuple[Method, ...] = ("exact", "eap", "eap-ig-inputs", "eap-ig-activations")
EFFECT = 1e-6
"""Effects below it are rounding."""
LOST = 0.01
"""An estimate below this share of the effect has lost the edge."""
Edges = dict[tuple[str, str], float]


def examples(model: Compiled) -> tuple[Tensor, Tensor]:
    """The program's examples that are longer than their BOS, padded, and their lengths."""
    rows = [model.symbols.ids(one.given) for one in model.truth.examples if len(one.given) > 1]
    width = max(map(len, rows))
    return torch.tensor([row + [model.symbols.pad_id] * (width - len(row)) for row in rows]), torch.tensor([len(row) for row in rows])


def told(logits: Tensor) -> Tensor:
    """A number that every answer moves, of logits ``[batch, answer]``."""
    return (logits.double() * torch.linspace(1.0, 2.0, logits.shape[-1], dtype=torch.float64)).sum(-1)


def questions(model: Compiled, replacement: str) -> Iterator[tuple[int, Inputs]]:
    """Each position after BOS that can be asked about, with the examples that reach it."""
    ids, lengths = examples(model)
    for position in range(1, int(lengths.max())):
        longer = lengths > position
        if replacement == "resample" and int((lengths == lengths.max()).sum()) == 1:
            longer &= lengths < lengths.max()  # no other row is as long
        if int(longer.sum()) < 2:  # no mean, and no other row
            continue
        yield position, Inputs(ids[longer], lengths[longer], targets=torch.zeros(int(longer.sum())).long())


def effects(model: Compiled, replacement: str, method: Method) -> Edges:
    """The largest effect of each edge between components, over examples and positions after BOS."""
    fields: dict[str, Any] = {"replacement": replacement, "method": method, "confirm": 0, "max_cells": 10**9}
    out: Edges = {}
    for position, given in questions(model, replacement):
        v: Any = attributed(model, given, EdgeAttributionPatchingSpec.parse({**fields, "position": position}), metric=told).values
        for writer, reader, size in zip(v.writer.values, v.reader.values, np.abs(v.effect.values).max(1), strict=True):
            if reader != "logits":  # the truth is of edges between components
                out[writer, reader] = max(out.get((writer, reader), 0.0), float(size))
    return out


def area(found: Edges, truth: set[tuple[str, str]]) -> float:
    """The area under the ROC curve, ties counted half; NaN where one of the two sides is empty."""
    inside, outside = ([value for edge, value in found.items() if (edge in truth) == kind] for kind in (True, False))
    return float(rank_auc(inside, outside).value) if inside and outside else float("nan")


def row(model: Compiled, replacements: Sequence[str] = REPLACEMENTS) -> dict[str, Any]:
    """All numbers of one program."""
    truth = set(model.truth.edges)
    out: dict[str, Any] = {"program": model.truth.name, "true": len(truth)}
    for replacement in replacements:
        exact: Edges = {}
        for method in METHODS:
            found = effects(model, replacement, method)
            exact = exact or found
            moving = [edge for edge in truth if exact[edge] > EFFECT]
            out |= {"edges": len(found), f"{replacement} silent": len(truth) - len(moving), f"{replacement} {method}": area(found, truth)}
            out[f"{replacement} {method} lost"] = sum(found[edge] < LOST * exact[edge] for edge in moving)
    return out


def _cell(one: dict[str, Any], replacement: str, method: str) -> str:
    value, lost = one[f"{replacement} {method}"], one[f"{replacement} {method} lost"]
    return ("n/a" if value != value else f"{value:.3f}") + (f" ({lost})" if lost else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--programs", nargs="*")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    folders = sorted(path for path in given.folder.iterdir() if path.is_dir() and (not given.programs or path.name in given.programs))
    if not folders:
        parser.error(f"no program in {given.folder}")
    rows = []
    print("| program | true / possible |", " | ".join(f"{one}: {', '.join(METHODS)}; silent" for one in REPLACEMENTS), "|")
    print("|---|---|" + "---|" * len(REPLACEMENTS))
    for folder in folders:
        rows.append(one := row(load(folder)))
        cells = [f"{', '.join(_cell(one, put, method) for method in METHODS)}; {one[f'{put} silent']}" for put in REPLACEMENTS]
        print(f"| {one['program']} | {one['true']} / {one['edges']} |", " | ".join(cells), "|", flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
