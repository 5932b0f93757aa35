"""Circuit discovery: the smallest part of a model that gives the answer alone, and how faithful it is at every size.

A circuit is a set of edges (see ``probes.edge_graph``). It is run by putting the other input's values into every edge outside it, all at
once and exactly; with m the mean of the number read over items,

    faithfulness(C) = (m(C) - m(none)) / (m(all) - m(none))        completeness: the same of all edges but C, near 0 where C holds all
    there is

``none`` is the run with every edge replaced (for a counterfactual the corrupt run itself). Circuits of several sizes come from one ranking
of the edges, by the size of an edge's (estimated) effect or by how much greedy pruning misses it. Beside each stand random circuits of the
same size, and how much of it is found again on other draws of the items. Items can be held out (``held_out``): circuits are found without
them, and what they are worth is told of these apart.

Source: Syed et al. 2023 (arXiv:2310.10348) and Hanna et al. 2024 (arXiv:2403.17806), ranked edges; Conmy et al. 2023 (arXiv:2304.14997),
pruning; Wang et al. 2022 (arXiv:2211.00593), faithfulness and completeness; Mueller et al., MIB, 2025 (arXiv:2504.13151), CPR and CMD;
Méloux et al. 2025 (arXiv:2510.00845), stability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from probes.circuit_pruning import prune
from probes.circuit_result import HELD, CircuitDiscoveryResult
from probes.circuit_worth import Worth, draws, faithfulness, worth
from probes.circuits import SIZES, chosen, counts_of, jaccard, live
from probes.edge_attribution_patching import Method, graph_for, patch_spec, put_note
from probes.edge_graph import NEEDED, EdgeGraph
from probes.edge_runs import Part, exact, first_order, parts_of, read_edges, run_circuits
from probes.held_out import rows_of, split
from probes.patch_given import Replacement
from probes.patch_metric import PatchQuantity, Read
from probes.patch_plan import Plan
from probes.patch_result import patch_origin
from probes.places import noise_note
from probes.target import model_dtype
from probes.token_items import TokenItems
from workbench.core.errors import BadValue, Incompatible
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress, silent
from workbench.core.spec import Spec, later
from workbench.core.tolerance import tolerance

FAR = 1000
"""A whole circuit this many bounds of rounding from the clean run is no rounding."""
PAIRS = 200
"""Pairs of resamples compared at most."""


class CircuitDiscoverySpec(Spec):
    """How edges are ranked, at which sizes circuits are run, and what they are compared with."""

    method: Literal["gradient-ranked", "greedy-pruning"] = Field(default="gradient-ranked", description="by effects, or by taking out")
    by: Method = Field(default="eap-ig-inputs", description="the effects that 'gradient-ranked' ranks by; 'exact' patches every edge")
    steps: int = Field(default=5, ge=1, le=200, description="points on the way of the integrated slopes")
    order: Literal["size", "helping"] = Field(default="size", description="the largest effects, or those that most raise the number read")
    threshold: float = Field(default=0.01, gt=0, description="of 'greedy-pruning': an edge stays out below this rise of the distance")
    sizes: tuple[float, ...] = Field(default=SIZES, description="shares of all edges, rising, at most 1")
    replacement: Replacement = Field(default="counterfactual", description="what edges outside bring")
    quantity: PatchQuantity = Field(default="logit", description="the number read; 'logit-difference' is target minus foil")
    position: int | None = Field(default=None, description="whose logits are read: None is the last real one, negative counts from it")
    nulls: int = Field(default=5, ge=0, le=100, description="random circuits at each size")
    resamples: int = Field(default=20, ge=0, le=1000, description="draws of the items on which circuits are found again; 0 is none")
    held_out: float = later(0.0, ge=0, lt=1, description="share of the items, or of their groups, that circuits are run but not found on")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    seed: int = Field(default=0, ge=0, description="draws random circuits, items (those held out too), and the rows of 'resample'")
    max_runs: int = Field(default=1_000_000, ge=1, description="edited runs at most, items counted")
    memory_mib: int = Field(default=1024, ge=1, description="memory of the edited runs at most, by estimate")


# --- compute ------------------------------------------------------------------------------------------------


def compute(model: HookedModel, inputs: Inputs, spec: CircuitDiscoverySpec, progress: Progress) -> CircuitDiscoveryResult:
    """Rank the edges and run the circuits. Raises BadValue for inputs that cannot be meant, Incompatible where there is no graph."""
    return discovered(model, inputs, spec, progress=progress)


def discovered(
    model: HookedModel,
    inputs: Inputs,
    spec: CircuitDiscoverySpec,
    *,
    metric: Read | None = None,
    name: str = "",
    progress: Progress = silent,
) -> CircuitDiscoveryResult:
    """The same with a ``metric`` of one's own: logits ``[batch, answer]`` at each item's position to one number an item."""
    _check(spec, metric is not None)
    plan = read_edges(model, inputs, patch_spec(spec), metric)
    graph = graph_for(plan, INSTRUMENT.name)
    on = _items(model, inputs, plan, graph, spec, metric)
    _check_cost(graph, on, spec)
    ranked = _ranked(on.found, graph, spec, progress)
    circuits = _circuits(graph, ranked, spec)
    values = _run(on, circuits, spec, progress)
    _check_ends(model, on, values)
    return CircuitDiscoveryResult(
        kind=INSTRUMENT.name,
        values=_values(graph, ranked, circuits, values, on, spec),
        spec=spec.model_dump(mode="json"),
        provenance=patch_origin(plan),
        notes=_notes(plan, graph, on, values, spec, name or ("the given metric" if metric is not None else "")),
    )


@dataclass(frozen=True)
class _Items:
    """The items that circuits are found on and those held out, in parts; ``aside`` ``[batch]`` tells which are held out."""

    found: list[Part]
    held: list[Part]
    aside: np.ndarray

    @property
    def order(self) -> np.ndarray:
        """Where each item of the parts, one after the other, stands in the batch."""
        return np.concatenate([np.flatnonzero(~self.aside), np.flatnonzero(self.aside)])


def _items(
    model: HookedModel, inputs: Inputs, plan: Plan, graph: EdgeGraph, spec: CircuitDiscoverySpec, metric: Read | None
) -> _Items:  # fmt: skip
    """Means and samples of other rows are taken on each side alone, so that nothing held out is looked at before it is judged."""
    count = len(plan.given.clean)
    if not spec.held_out:
        return _Items(list(parts_of(plan, graph)), [], np.zeros(count, dtype=bool))
    sides = split(count, inputs.groups, spec.held_out, spec.seed)
    twins = spec.replacement == "counterfactual"
    found, held = (read_edges(model, rows_of(inputs, rows, twins=twins), patch_spec(spec), metric) for rows in sides)
    aside = np.isin(np.arange(count), sides[1])
    return _Items(list(parts_of(found, graph)), list(parts_of(held, graph)), aside)


def _check(spec: CircuitDiscoverySpec, own: bool) -> None:
    sizes = spec.sizes
    if not sizes or min(sizes) <= 0 or max(sizes) > 1 or any(a >= b for a, b in pairwise(sizes)):
        raise BadValue("sizes", list(sizes), "at least one share above 0 and at most 1, each larger than the one before")
    if spec.quantity == "kl" and spec.method == "gradient-ranked" and spec.by == "eap" and not own:
        raise BadValue("quantity", "kl", "another one where edges are ranked by 'eap': at the clean run KL has no slope",
                       do="Take 'eap-ig-inputs' or 'exact' in `by`, or another quantity.")  # fmt: skip


def _check_cost(graph: EdgeGraph, on: _Items, spec: CircuitDiscoverySpec) -> None:
    every = len(graph) if spec.method == "greedy-pruning" or spec.by == "exact" else 0
    runs = int((~on.aside).sum()) * every + len(on.aside) * (len(spec.sizes) * (2 + spec.nulls) + 2)
    if runs > spec.max_runs:
        raise BadValue("the number of edited runs", f"about {runs:,}", f"at most max_runs = {spec.max_runs:,}",
                       do="Give fewer items or sizes, rank by slopes, or raise max_runs.")  # fmt: skip


@dataclass(frozen=True)
class _Ranked:
    """``score [edge]``, larger first; effects by item ``[edge, batch]`` (None where there are none); edges that pruning kept."""

    score: np.ndarray
    effect: np.ndarray | None
    kept: np.ndarray | None


def _ranked(parts: Sequence[Part], graph: EdgeGraph, spec: CircuitDiscoverySpec, progress: Progress) -> _Ranked:
    memory = spec.memory_mib << 20
    if spec.method == "greedy-pruning":
        kept, rise = prune(parts, graph, spec.threshold, memory, progress)
        return _Ranked(np.where(np.isnan(rise), -np.inf, rise), None, kept)
    each = []
    for part in parts:
        if spec.by == "exact":
            value, stopped = exact(part, [(edge, None) for edge in graph.pairs], memory, progress)
            if stopped:  # circuits of half a ranking would mean nothing
                raise KeyboardInterrupt
            each.append(value - part.clean)
        else:
            each.append(first_order(part, spec.by, spec.steps, by_position=False))
            progress(part.rows.stop, sum(len(one.clean) for one in parts), "items")
    effect = np.concatenate(each, 1)
    return _Ranked(_score(effect, spec), effect, None)


def _score(effect: np.ndarray, spec: CircuitDiscoverySpec) -> np.ndarray:
    mean = effect.mean(1)
    return np.abs(mean) if spec.order == "size" else -mean


@dataclass(frozen=True)
class _Circuits:
    """``inside [circuit, edge]``; of each its kind, its size (a share of all edges) and which random draw it is (-1: none). The first two
    are all edges and none."""

    inside: np.ndarray
    kind: list[str]
    size: list[float]
    draw: list[int]


def _circuits(graph: EdgeGraph, ranked: _Ranked, spec: CircuitDiscoverySpec) -> _Circuits:
    counts = counts_of(graph, spec.sizes)
    found = chosen(graph, ranked.score, counts)
    rng = np.random.default_rng(spec.seed)
    drawn = [chosen(graph, rng.random(len(graph)), counts) for _ in range(spec.nulls)]
    groups = [("all", np.ones((1, len(graph)), dtype=bool), -1), ("none", np.zeros((1, len(graph)), dtype=bool), -1)]
    groups += [("found", found, -1), ("complement", ~found, -1), *(("random", one, k) for k, one in enumerate(drawn))]
    sizes = {"all": [1.0], "none": [0.0]}
    if ranked.kept is not None:
        groups.append(("pruned", live(graph, ranked.kept)[None], -1))
        sizes["pruned"] = [float(groups[-1][1].mean())]
    rows = [(name, size, draw) for name, each, draw in groups for size in sizes.get(name, list(spec.sizes)[: len(each)])]
    kind, size, draw = (list(one) for one in zip(*rows, strict=True))
    return _Circuits(np.concatenate([each for _, each, _ in groups]), kind, size, draw)


def _run(on: _Items, circuits: _Circuits, spec: CircuitDiscoverySpec, progress: Progress) -> np.ndarray:
    """Values ``[circuit, batch]`` of all items; equal circuits are run once."""
    parts = [*on.found, *on.held]
    unique, where = np.unique(circuits.inside, axis=0, return_inverse=True)
    each = []
    for k, part in enumerate(parts):
        step = lambda done, total, words, k=k: progress(k * total + done, len(parts) * total, words)  # noqa: E731
        each.append(run_circuits(part, unique, spec.memory_mib << 20, step))
    values = np.empty((len(circuits.inside), len(on.aside)))
    values[:, on.order] = np.concatenate(each, 1)[where.reshape(-1)]
    return values


def _check_ends(model: HookedModel, on: _Items, values: np.ndarray) -> None:
    """All edges must be the clean run, and none the corrupt one where there is one."""
    parts, found = [*on.found, *on.held], values[:, on.order]
    clean, corrupt = (np.concatenate([getattr(part, which) for part in parts]) for which in ("clean", "corrupt"))
    bound = FAR * tolerance(model_dtype(model), "logits").bound
    for which, expected, value in (("clean", clean, found[0]), ("corrupt", corrupt, found[1])):
        away = float(np.nanmax(np.abs(value - expected), initial=0.0)) / max(1.0, float(np.abs(clean).max()))
        if away > bound:
            raise Incompatible(INSTRUMENT.name, f"this {model.family} model", [
                f"a circuit of {'all' if which == 'clean' else 'no'} edges is {away:.1e} away from the {which} run, so that "
                "readers read more than the writers write"])  # fmt: skip


# --- what is made of it -----------------------------------------------------------------------------------------


def _values(
    graph: EdgeGraph, ranked: _Ranked, circuits: _Circuits, values: np.ndarray, on: _Items, spec: CircuitDiscoverySpec
) -> xr.Dataset:  # fmt: skip
    kind = np.array(circuits.kind)
    own, other = (worth(part, circuits.kind, circuits.draw, spec.sizes, spec.seed) for part in (values[:, ~on.aside], values[:, on.aside]))
    stable = np.full(len(kind), np.nan)
    stable[kind == "found"] = _stability(graph, ranked, spec)
    inside = circuits.inside[kind == "found"]
    first = np.where(inside.any(0), np.array(spec.sizes)[inside.argmax(0)], np.nan)
    text = lambda each: np.array(each, dtype=object)  # noqa: E731
    return xr.Dataset(
        {
            "value": (("circuit", "batch"), values),
            "stability": ("circuit", stable),
            **_worth_of(own, ""),
            **_worth_of(other, HELD),
            "score": ("edge", np.where(np.isfinite(ranked.score), ranked.score, np.nan)),
            "joins": ("edge", first),
            "kept": ("edge", ranked.kept if ranked.kept is not None else np.zeros(len(graph), dtype=bool)),
        },
        coords={
            "circuit": np.arange(len(kind)),
            "batch": np.arange(values.shape[1]),
            "held_out": ("batch", on.aside),
            "kind": ("circuit", text(circuits.kind)),
            "size": ("circuit", np.array(circuits.size)),
            "edges": ("circuit", circuits.inside.sum(1)),
            "draw": ("circuit", np.array(circuits.draw)),
            "edge": np.arange(len(graph)),
            "writer": ("edge", text([u for u, _ in graph.names])),
            "reader": ("edge", text([v for _, v in graph.names])),
        },
    )


def _worth_of(one: Worth, word: str) -> dict[str, tuple[Any, Any]]:
    """The variables of a Worth, with ``word`` before their names."""
    by_circuit = {f"{word}{name}": ("circuit", getattr(one, name)) for name in ("faithfulness", "low", "high")}
    areas = one.area | {f"random_{name}": value for name, value in one.random.items()}
    return by_circuit | {f"{word}{name}": ((), value) for name, value in areas.items()}


def _stability(graph: EdgeGraph, ranked: _Ranked, spec: CircuitDiscoverySpec) -> np.ndarray:
    """The mean Jaccard index of circuits found on two draws of the items, at each size; NaN where effects by item are not known."""
    if ranked.effect is None or spec.resamples < 2 or ranked.effect.shape[1] < 2:
        return np.full(len(spec.sizes), np.nan)
    counts = counts_of(graph, spec.sizes)
    each = [
        chosen(graph, _score(ranked.effect[:, drawn], spec), counts) for drawn in draws(ranked.effect.shape[1], spec.resamples, spec.seed)
    ]
    two = [(i, j) for i in range(len(each)) for j in range(i)]
    some = [two[k] for k in np.random.default_rng(spec.seed).permutation(len(two))[:PAIRS]]
    shared = np.array([[jaccard(each[i][k], each[j][k]) for i, j in some] for k in range(len(counts))])
    known = np.isfinite(shared)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, shared, 0.0).sum(1) / known.sum(1)


def _notes(
    plan: Plan, graph: EdgeGraph, on: _Items, values: np.ndarray, spec: CircuitDiscoverySpec, name: str
) -> tuple[str, ...]:  # fmt: skip
    how = (
        f"Edges were taken out where that moved the answer by less than {spec.threshold:g}; the ranking is by how much it moved."
        if spec.method == "greedy-pruning"
        else f"Edges are ranked by '{spec.by}', {'largest' if spec.order == 'size' else 'those that most raise the number'} first."
    )
    many, few = int((~on.aside).sum()), int(on.aside.sum())
    where = (
        f"found on {many} items, drawn with seed {spec.seed}, and run on these and on {few} held out"
        if few
        else "found and run on the same items"
    )
    out = [how, *put_note(plan), f"The number read is {name or spec.quantity}; circuits were {where}."]
    if isinstance(plan.given.clean.items, TokenItems):
        out.append(plan.given.clean.items.added)
    for words, part in (("", values[:2, ~on.aside]), (" of the items held out", values[:2, on.aside])):
        if part.size and not np.isfinite(faithfulness(part[0], part[0], part[1])):
            out.append(f"With all edges and with none the answer{words} is the same: faithfulness is undefined, not zero.")
    if spec.method == "greedy-pruning":
        out.append("How stable a pruned circuit is can only be told by pruning again on other items.")
    if len({max(1, round(size * len(graph))) for size in spec.sizes}) < len(spec.sizes):
        out.append(f"Of {len(graph)} edges the smallest sizes are the same number of edges.")
    return (*out, *noise_note(plan.given.clean.items))


INSTRUMENT = Instrument(
    name="circuit-discovery",
    question="Which few edges give the answer alone, and how faithfully?",
    spec=CircuitDiscoverySpec,
    needs=Needs(
        abilities=frozenset({"logits", "edit", "grad"}),
        sites=NEEDED,
        additive=True,
        one_stack=True,
        inputs=("batch", "targets"),
        unless={"targets": ("quantity", "kl")},
    ),
    compute=compute,
)
