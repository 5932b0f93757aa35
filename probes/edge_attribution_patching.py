"""Edge attribution patching: what each edge between two parts brings into the answer, for all edges at once.

    effect[u -> v] = m(run in which v reads a'_u in place of a_u) - m(run)
    EAP:             (a'_u - a_u) . dm/d(input of v)              at the clean run: one backward pass for all edges
    EAP-IG:          the same with the slope's mean on the way from the clean to the other values, ``steps`` backward passes

``a`` are the writers of the clean run and ``a'`` what replaces them. ``exact`` patches each edge in a run of its own, which is what the
others approximate. An estimate is a prediction: the strongest edges are patched as well, and both numbers stand in the result.

Source: Syed et al., Attribution Patching Outperforms Automated Circuit Discovery, 2023 (arXiv:2310.10348); Hanna et al., Have Faith in
Faithfulness, 2024 (arXiv:2403.17806).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import xarray as xr
from pydantic import Field

from probes.edge_graph import NEEDED, EdgeGraph, read_graph
from probes.edge_runs import Part, exact, first_order, parts_of, read_edges
from probes.patch_cells import WHOLE
from probes.patch_given import Replacement
from probes.patch_metric import PatchQuantity, Read
from probes.patch_plan import Plan
from probes.patch_result import patch_origin
from probes.patch_spec import PatchSpec
from probes.places import noise_note
from probes.token_items import TokenItems
from workbench.core.charts.frame import number
from workbench.core.charts.heat import grid
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress, silent
from workbench.core.result import STOPPED_EARLY, Result
from workbench.core.spec import Spec

Method = Literal["eap", "eap-ig-inputs", "eap-ig-activations", "exact"]
SHOWN = 32
"""Writers and readers in a chart at most."""
CHECKED = 16
"""Items of the run that the graph's sums are checked on."""


class EdgeAttributionPatchingSpec(Spec):
    """How edges are scored, with what in place of what, and how the answer is read."""

    method: Method = Field(default="eap", description="one slope, its mean over the input's or each writer's way, or every edge patched")
    steps: int = Field(default=5, ge=1, le=200, description="points on the way, of Gauss-Legendre; 'eap' and 'exact' have none")
    replacement: Replacement = Field(default="counterfactual", description="what a writer's value is replaced by")
    quantity: PatchQuantity = Field(default="logit", description="the number read; 'logit-difference' is target minus foil")
    per: tuple[Literal["pos"], ...] = Field(default=(), description="('pos',) is one number a position; () sums them, as one patch")
    confirm: int = Field(default=20, ge=0, description="how many of the strongest edges are patched too, to confirm the estimate")
    position: int | None = Field(default=None, description="whose logits are read: None is the last real one, negative counts from it")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    seed: int = Field(default=0, ge=0, description="draws the rows of 'resample'")
    max_cells: int = Field(default=20_000_000, ge=1, description="numbers kept at most; of 'exact' edited runs, 100 times fewer")
    memory_mib: int = Field(default=1024, ge=1, description="memory of the edited runs at most, by estimate")


# --- compute ------------------------------------------------------------------------------------------------


def compute(model: HookedModel, inputs: Inputs, spec: EdgeAttributionPatchingSpec, progress: Progress) -> EdgeAttributionPatchingResult:
    """Score every edge. Raises BadValue for inputs that cannot be meant, Incompatible where there is no graph."""
    return attributed(model, inputs, spec, progress=progress)


def attributed(
    model: HookedModel,
    inputs: Inputs,
    spec: EdgeAttributionPatchingSpec,
    *,
    metric: Read | None = None,
    name: str = "",
    progress: Progress = silent,
) -> EdgeAttributionPatchingResult:
    """The same with a ``metric`` of one's own: logits ``[batch, answer]`` at each item's position to one number an item; for all methods
    but ``exact`` gradients must pass it. Ctrl-C while edges are patched keeps what is there: the rest is NaN."""
    if spec.quantity == "kl" and spec.method == "eap" and metric is None:
        raise BadValue("quantity", "kl", "another one for the method 'eap': at the clean run KL is at its least and has no slope",
                       do="Take 'eap-ig-inputs', 'exact', or 'logit-difference'.")  # fmt: skip
    plan = read_edges(model, inputs, patch_spec(spec), metric)
    graph = graph_for(plan, INSTRUMENT.name)
    width = plan.given.clean.items.width
    cells = [(edge, pos) for edge in graph.pairs for pos in (range(width) if spec.per else (None,))]
    most = spec.max_cells // 100 if spec.method == "exact" else spec.max_cells
    if len(cells) * len(plan.given.clean) > most:
        raise BadValue("the number of cells", f"{len(cells)} of {len(plan.given.clean)} items", f"at most {most:,}",
                       do="Give fewer items, sum over positions, or raise max_cells.")  # fmt: skip
    found = _score(plan, graph, cells, spec, progress)
    return EdgeAttributionPatchingResult(
        kind=INSTRUMENT.name,
        values=_values(graph, cells, found, plan).assign_attrs({STOPPED_EARLY: True} if found.stopped else {}),
        spec=spec.model_dump(mode="json"),
        provenance=patch_origin(plan),
        notes=_notes(plan, spec, found, name or ("the given metric" if metric is not None else "")),
    )


def patch_spec(spec: Any) -> PatchSpec:
    """What an instrument of edges shares with other patchings: corrupt values are put into the clean run."""
    return PatchSpec(
        replacement=spec.replacement, direction="noising", quantity=spec.quantity, position=spec.position, bos=spec.bos, seed=spec.seed
    )


def graph_for(plan: Plan, asked: str) -> EdgeGraph:
    """The graph of the plan's model, its sums checked on the first items."""
    clean = plan.given.clean
    return read_graph(clean.model, clean.batch(slice(0, min(len(clean), CHECKED))), asked)


@dataclass
class _Found:
    """Effects ``[cell, batch]``: predicted (of ``exact`` measured) and measured (NaN where not); the clean and corrupt values; whether
    Ctrl-C came before all was measured."""

    effect: np.ndarray
    exact: np.ndarray
    clean: np.ndarray
    corrupt: np.ndarray
    stopped: bool = False


Cells = Sequence[tuple[tuple[int, int], int | None]]


def _score(plan: Plan, graph: EdgeGraph, cells: Cells, spec: EdgeAttributionPatchingSpec, progress: Progress) -> _Found:
    items = len(plan.given.clean)
    effect, measured = (np.full((len(cells), items), np.nan) for _ in range(2))
    found = _Found(effect, measured, np.full(items, np.nan), np.full(items, np.nan))
    for part in parts_of(plan, graph):
        found.clean[part.rows], found.corrupt[part.rows] = part.clean, part.corrupt
        if spec.method == "exact":
            measured, found.stopped = _measured(part, cells, spec, progress)
            found.effect[:, part.rows] = found.exact[:, part.rows] = measured
            if found.stopped:
                break
        else:
            score = first_order(part, spec.method, spec.steps, by_position=bool(spec.per))
            found.effect[:, part.rows] = np.where(_shown(part, cells), score.reshape(len(cells), -1), np.nan)
            progress(part.rows.stop, items, "items")
    if spec.method != "exact" and spec.confirm:
        order = np.argsort(-np.abs(_mean(found.effect)), kind="stable")[: spec.confirm]
        for part in parts_of(plan, graph):
            measured, found.stopped = _measured(part, [cells[k] for k in order], spec, progress)
            found.exact[np.ix_(order, np.arange(items)[part.rows])] = measured
            if found.stopped:
                break
    return found


def _measured(part: Part, cells: Cells, spec: EdgeAttributionPatchingSpec, progress: Progress) -> tuple[np.ndarray, bool]:
    value, stopped = exact(part, cells, spec.memory_mib << 20, progress)
    return np.where(_shown(part, cells), value - part.clean, np.nan), stopped


def _shown(part: Part, cells: Cells) -> np.ndarray:
    """Which cells of which items are no padding."""
    return np.stack([part.real[:, 0] | True if pos is None else part.real[:, pos] for _, pos in cells])


def _mean(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, values, 0.0).sum(-1) / known.sum(-1)


def _values(graph: EdgeGraph, cells: Cells, found: _Found, plan: Plan) -> xr.Dataset:
    names = [(graph.writers[u].name, graph.readers[v].name) for (u, v), _ in cells]
    text = lambda each: ("edge", np.array(each, dtype=object))  # noqa: E731
    return xr.Dataset(
        {
            "effect": (("edge", "batch"), found.effect),
            "exact": (("edge", "batch"), found.exact),
            "clean": ("batch", found.clean),
            "corrupt": ("batch", found.corrupt),
        },
        coords={
            "edge": np.arange(len(cells)),
            "batch": np.arange(len(plan.given.clean)),
            "writer": text([u for u, _ in names]),
            "reader": text([v for _, v in names]),
            "pos": ("edge", np.array([WHOLE if pos is None else pos for _, pos in cells])),
        },
    )


def _notes(plan: Plan, spec: EdgeAttributionPatchingSpec, found: _Found, name: str) -> tuple[str, ...]:
    items = plan.given.clean.items
    how = {
        "eap": "Effects are first-order estimates from the clean run's slope.",
        "eap-ig-inputs": f"Effects are estimates from the slope's mean at {spec.steps} points on the way of the input.",
        "eap-ig-activations": f"Effects are estimates from the slope's mean at {spec.steps} points on the way of the writers themselves.",
        "exact": "Every edge was patched in a run of its own.",
    }[spec.method]
    out = [how, *put_note(plan), f"The number read is {name or spec.quantity}."]
    if isinstance(items, TokenItems):
        out.append(items.added)
    if spec.method != "exact" and spec.confirm:
        predicted, measured = _mean(found.effect), _mean(found.exact)
        known = np.isfinite(measured)
        close = np.abs(predicted - measured)[known] <= 0.5 * np.abs(measured)[known]
        same = np.sign(predicted[known]) == np.sign(measured[known])
        out.append(
            f"Of the {int(known.sum())} strongest, patched as well, {int(same.sum())} have the predicted sign and "
            f"{int((same & close).sum())} an effect that the prediction misses by at most half."
        )
    missing = int((~np.isfinite(found.effect)).all(1).sum()) if spec.method == "exact" else 0
    if missing:
        out.append(f"Interrupted: {missing} of {len(found.effect)} edges were not patched.")
    elif found.stopped:
        out.append("Interrupted: not all edges were patched on all items.")
    return (*out, *noise_note(items))


def put_note(plan: Plan) -> tuple[str, ...]:
    """What stands in place of the writers' values."""
    return ({
        "counterfactual": "The clean input is run, and edges bring the corrupt run's values.",
        "zero": "The clean input is run, and edges bring zeros (biases stay).",
        "mean": "The clean input is run, and edges bring means over the reference rows, position by position.",
        "resample": "The clean input is run, and edges bring the values of another row.",
    }[plan.spec.replacement],)  # fmt: skip


# --- result and plot ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EdgeAttributionPatchingResult(Result):
    """One row an edge and item (and position; -1 is all of them as one patch). ``effect``: how far the edge's patching moves the number
    read, by estimate (by measure where the method is ``exact``); ``exact``: by measure, NaN where it was not patched; ``clean`` and
    ``corrupt``: the unedited values."""

    columns: ClassVar[tuple[str, ...]] = ("edge", "batch", "writer", "reader", "pos", "effect", "exact", "clean", "corrupt")

    def mean(self, of: Literal["effect", "exact"] = "effect") -> np.ndarray:
        """One number an edge: the mean over items."""
        return _mean(self.values[of].values)

    def edges(self, of: Literal["effect", "exact"] = "effect") -> dict[tuple[str, str], float]:
        """The mean of each edge by (writer, reader); positions are summed."""
        v: Any = self.values
        out: dict[tuple[str, str], float] = {}
        for u, r, value in zip(v.writer.values, v.reader.values, self.mean(of), strict=True):
            out[u, r] = out.get((u, r), 0.0) + float(value)
        return out

    def summary(self) -> str:
        """How many edges, and the strongest of them."""
        v: Any = self.values
        means, exact = self.mean(), self.mean("exact")
        best = []
        for k in np.argsort(-np.abs(np.nan_to_num(means)), kind="stable")[:5]:
            where = f" at {int(v.pos.values[k])}" if v.pos.values[k] != WHOLE else ""
            told = f", patched {number(float(exact[k]), signed=True)}" if np.isfinite(exact[k]) and self.spec["method"] != "exact" else ""
            best.append(f"{v.writer.values[k]} to {v.reader.values[k]}{where}: {number(float(means[k]), signed=True)}{told}")
        ends = f"clean {number(float(v.clean.mean()))}"
        if np.isfinite(v.corrupt.values).all():
            ends += f", corrupt {number(float(v.corrupt.mean()))}"
        head = f"{self.kind}: {len(v.edge)} edges of {len(v.batch)} items, {self.spec['method']}, {self.spec['replacement']} ({ends})."
        return "\n".join([head, f"Strongest by effect: {'; '.join(best)}.", *self.notes])

    def plot(self) -> Any:
        """Writers by readers: the mean effect, of the strongest where there are many."""
        edges = self.edges()
        strong = [_strongest(edges, which) for which in (0, 1)]
        shown = [(u, v, value) for (u, v), value in edges.items() if u in strong[0] and v in strong[1]]
        frame = pd.DataFrame(shown, columns=pd.Index(["writer", "reader", "effect"]))
        names = {"writer": "writes", "reader": "reads", "effect": "effect"}
        few = len(strong[0]) == SHOWN or len(strong[1]) == SHOWN
        title = f"Edges by effect ({self.spec['method']}, {self.spec['replacement']}){', the strongest' if few else ''}"
        return grid(frame, "reader", "writer", "effect", titles={"title": title, **names})


def _strongest(edges: dict[tuple[str, str], float], which: int) -> set[str]:
    most: dict[str, float] = {}
    for names, value in edges.items():
        most[names[which]] = max(most.get(names[which], 0.0), abs(np.nan_to_num(value)))
    return set(sorted(most, key=lambda name: -most[name])[:SHOWN])


INSTRUMENT = Instrument(
    name="edge-attribution-patching",
    question="Which edges between heads and MLPs bring the answer about?",
    spec=EdgeAttributionPatchingSpec,
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
