"""The exam of heads: in a trained decoder one planted head alone carries a mark to the answer. Is it named among all heads?

A tool is asked about pairs of items: in the corrupt twin the mark is of the next kind and all silent words are others, so that other heads
have small effects of their own. Its answer is scored by the share of other heads that the planted one stands above. The clean twin holds
the same head, as busy, whose writing nobody reads: a tool that names it measures activity and not cause (``value-norms`` is asked for that
contrast).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from probes import INSTRUMENTS
from workbench.calibration.exam import Exam, Grid, Reading
from workbench.calibration.ranking import Standing, reading
from workbench.core.protocol import Inputs, silent
from workbench.organisms.planted_head import ORGANISM, ask, moved, planted_in

Heads = np.ndarray
"""What a tool gives each head of each item ``[layer, head, item]``, larger for what matters more."""
CONTRAST = {"quantity": "logit-difference"}
CELLS = {**CONTRAST, "components": ("z",), "per": ("head",)}


def _cells(result: Any, layers: int, heads: int) -> Heads:
    """Of the patching instruments: the effect of each head's output."""
    v = result.values
    out = np.full((layers, heads, v.sizes["batch"]), np.nan)
    out[v.layer.values, v["head"].values] = np.abs(v.effect.values)
    return out


def _contributions(result: Any, layers: int, heads: int) -> Heads:
    """Of direct logit attribution: what each head writes into the difference."""
    v = result.values
    chosen = v.kind.values == "head"
    out = np.full((layers, heads, v.sizes["batch"]), np.nan)
    out[v.layer.values[chosen], v["index"].values[chosen]] = np.abs(v.contribution.values[:, chosen]).T
    return out


def _named(names: Sequence[str], strengths: np.ndarray, layers: int, heads: int) -> Heads:
    """Summed over entries that name a head as ``L0H1``."""
    out = np.zeros((layers, heads, strengths.shape[1]))
    for name, strength in zip(names, strengths, strict=True):
        if "H" in name:
            layer, _, head = name[1:].partition("H")
            out[int(layer), int(head)] += strength
    return out


def _sent(result: Any, layers: int, heads: int) -> Heads:
    """Of path patching to the logits: what each head sends directly."""
    v = result.values
    return _named([str(name) for name in v.sender.values], np.abs(v.effect.values), layers, heads)


def _edges(result: Any, layers: int, heads: int) -> Heads:
    """Of edge attribution patching: the sum over all edges that a head writes."""
    v = result.values
    return _named([str(name) for name in v.writer.values], np.abs(v.effect.values), layers, heads)


def _joined(result: Any, layers: int, heads: int) -> Heads:
    """Of circuit discovery: how early a head's first edge joins the circuit; one answer for all items."""
    v = result.values
    early = v.sizes["edge"] - v.joins.values
    out = np.full((layers, heads), -np.inf)
    for name, when in zip(v.writer.values, early, strict=True):
        if "H" in str(name):
            layer, _, head = str(name)[1:].partition("H")
            out[int(layer), int(head)] = max(out[int(layer), int(head)], when)
    return np.repeat(out[..., None], v.sizes["batch"], 2)


def _brought(result: Any, layers: int, heads: int) -> Heads:
    """Of value norms: how much a head brings to the last position, from anywhere."""
    return np.nansum(result.values.norm.values[:, :, :, -1], -1)


Reader = Callable[[Any, int, int], Heads]
TOOLS: dict[str, tuple[dict[str, Any], Reader]] = {
    "activation-patching": (CELLS, _cells),
    "attribution-patching": (CELLS, _cells),
    "path-patching": (CONTRAST, _sent),
    "edge-attribution-patching": ({**CONTRAST, "confirm": 0}, _edges),
    "circuit-discovery": ({**CONTRAST, "nulls": 0, "resamples": 0}, _joined),
    "direct-logit-attribution": (CONTRAST, _contributions),
    "value-norms": ({}, _brought),
}
ALONE = ("direct-logit-attribution", "value-norms")
"""Asked about the clean items alone."""
SET_BY_SET = ("circuit-discovery",)
"""One answer for all items it is given, so it is given one set at a time."""


def strengths(tool: str, model: Any, inputs: Inputs) -> Heads:
    """What ``tool`` gives each head."""
    instrument = INSTRUMENTS.load(tool)
    fields, reader = TOOLS[tool]
    if tool in ALONE:
        inputs = Inputs(inputs.batch, targets=inputs.targets if fields else None, foils=inputs.foils if fields else None)
    result = instrument(model, inputs, instrument.spec.parse(fields), progress=silent)
    return reader(result, model.config.n_layers, model.config.n_heads)


def read(tool: str, model: Any, made: Any, sets: int, items: int) -> Sequence[Reading]:
    """One reading a set of held-out pairs."""
    at = planted_in(model, made)
    inputs = ask(made, sets * items)
    parts = [slice(i * items, (i + 1) * items) for i in range(sets)]
    if tool not in SET_BY_SET:
        whole = strengths(tool, model, inputs)
        return [_reading(whole[..., part], at) for part in parts]
    return [_reading(strengths(tool, model, _taken(inputs, part)), at) for part in parts]


def _taken(inputs: Inputs, part: slice) -> Inputs:
    given = {name: getattr(inputs, name)[part] for name in ("batch", "reference", "targets", "foils")}
    return Inputs(**given)


def _reading(found: Heads, at: tuple[int, int]) -> Reading:
    """Of one set: the planted head among all others."""
    others = np.delete(found.reshape(-1, found.shape[-1]), at[0] * found.shape[1] + at[1], 0)
    return reading([Standing.of(float(own), rivals) for own, rivals in zip(found[at], others.T, strict=True)])


EXAM = Exam(
    name="heads",
    question="Is the head that carries a mark to the answer named among all heads?",
    domain=ORGANISM.domain,
    unit="logits that the planted head adds to its mark's kind",
    grid=Grid.parse({"doses": (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)}),
    quick=Grid.parse({"doses": (1.0, 4.0), "seeds": (0,), "clean_seeds": (100, 101), "clean_sets": 4}),
    families=("gpt",),
    tools=lambda family: tuple(TOOLS),
    organism=lambda family, tool="": "planted-head",
    read=read,
    behaviour=moved,
    statistic="planted head above another",
    exempt={"value-norms": "it measures activity, and is asked for contrast"},
)
