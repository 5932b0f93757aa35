"""Runs of a graph of edges: the writers of both inputs, slopes at every reader, edges patched one by one, and whole circuits.

In a run of a circuit every reader's input is made anew from the writers: edges in the circuit bring what the writer wrote in this run, the
others what it wrote in the other input,

    input of v := input of v + sum over edges u -> v outside of (a'_u - a_u)

with ``a_u`` of this very run. It is one pass: writers are heard before their readers. With all edges inside it is the clean run, with none
inside the corrupt one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.edge_graph import EdgeGraph
from probes.integrated_gradients import quadrature
from probes.patch_given import read_given
from probes.patch_metric import Metric, Read
from probes.patch_plan import Plan, finite
from probes.patch_spec import PatchSpec
from workbench.core.errors import BadValue
from workbench.core.protocol import Add, Apply, Edit, HookedModel, Inputs, Progress, Replace
from workbench.core.sites import Site
from workbench.engine.sweep import Sweep, prepare


@dataclass(frozen=True)
class Part:
    """Some items: what a run of them is given, what all writers write in the clean run and in the other, and the values of both
    (``corrupt`` NaN where there is no corrupt run)."""

    model: HookedModel
    graph: EdgeGraph
    rows: slice
    batch: Any
    own: Float[Tensor, "batch pos writer d_model"]
    other: Float[Tensor, "batch pos writer d_model"]
    real: Bool[np.ndarray, "batch pos"]
    metric: Metric
    logits: Any
    clean: np.ndarray
    corrupt: np.ndarray

    @property
    def change(self) -> Float[Tensor, "batch pos writer d_model"]:
        """``a'_u - a_u``."""
        return self.other - self.own


def read_edges(model: HookedModel, inputs: Inputs, spec: PatchSpec, metric: Read | None = None) -> Plan:
    """Both inputs, read and checked as for any patching; the clean one is run. Raises BadValue."""
    given = read_given(model, inputs, spec.replacement, spec.quantity, spec.position, "", spec.bos, metric)
    if given.together:
        raise BadValue("the model's logits", "one a pair of items", "each item's own")
    return Plan(given, (), (), spec)


def parts_of(plan: Plan, graph: EdgeGraph) -> Iterator[Part]:
    """The items in parts. Raises BadValue where a run's value is not finite."""
    given, clean = plan.given, plan.given.clean
    real = clean.items.real.numpy()
    for rows, source in plan.parts(graph.writer_sites):
        batch, asked = clean.batch(rows), given.logits(rows)
        trace = clean.model.run(batch, capture=graph.writer_sites, logits=asked)
        assert trace.logits is not None
        metric = plan.metric(rows, source)
        own = graph.written(trace.at)
        other = torch.zeros_like(own) if source.trace is None else graph.written(source.trace.at).to(own)
        if other.shape[1] != own.shape[1]:
            raise BadValue("the width of inputs.reference", other.shape[1], f"{own.shape[1]} positions, as the items")
        value = finite(metric(trace.logits), "clean")
        there = plan.there(metric, source) if plan.counterfactual else np.full(len(value), np.nan)
        yield Part(clean.model, graph, rows, batch, own, other, real[rows], metric, asked, value, there)


# --- slopes -----------------------------------------------------------------------------------------------------


def slopes(part: Part, edits: Sequence[Edit] = ()) -> Float[Tensor, "batch pos reader d_model"]:
    """The gradient of each item's value at every reader's input, of one backward pass. No parameter's ``.grad`` is touched. Raises BadValue
    for a metric without a slope."""
    sites = part.graph.reader_sites
    start = Apply(part.graph.writers[0].site.name, fn=lambda value, _: value.detach().requires_grad_())  # weights may be frozen
    with torch.enable_grad():
        trace = part.model.run(part.batch, capture=sites, edit=[*edits, start], logits=part.logits, grad=True)
        assert trace.logits is not None
        value = part.metric(trace.logits)
        if not value.requires_grad:
            raise BadValue("the metric's slope", f"none, in {value.dtype}", "one that gradients pass: no argmax, count or comparison",
                           do="Give a metric of real numbers, or take the method 'exact'.")  # fmt: skip
        found = torch.autograd.grad(value.sum(), [trace[site] for site in sites], allow_unused=True)
    at = {site.name: grad if grad is not None else torch.zeros_like(trace[site]).detach() for site, grad in zip(sites, found, strict=True)}
    if not all(bool(torch.isfinite(grad).all()) for grad in at.values()):
        raise BadValue("the gradient at a reader", "NaN or infinity", "finite", do="The model's weights are broken, or the metric is.")
    return part.graph.seen(at)


def first_order(part: Part, method: str, steps: int, *, by_position: bool) -> np.ndarray:
    """``(a'_u - a_u) . slope at v`` of every edge ``[edge, batch]`` or ``[edge, pos, batch]``; the slope is the clean run's (``eap``), or
    its mean on a straight line from the clean to the other values: of the input (``eap-ig-inputs``), or, component by component, of the
    writers an edge begins at (``eap-ig-activations``)."""
    graph, change = part.graph, part.change
    nodes, weights = (one.tolist() for one in quadrature("gauss-legendre", steps))
    if method == "eap":
        score = _meet(change, slopes(part), by_position)
    elif method == "eap-ig-inputs":
        start = part.graph.writers[0].site
        mean = sum(w * slopes(part, [_on_the_way(part, start, a)]) for a, w in zip(nodes, weights, strict=True))
        assert isinstance(mean, Tensor)
        score = _meet(change, mean, by_position)
    else:
        each = []
        for site in graph.writer_sites:
            mean = sum(w * slopes(part, [_on_the_way(part, site, a)]) for a, w in zip(nodes, weights, strict=True))
            assert isinstance(mean, Tensor)
            each.append(_meet(change[:, :, graph.numbers(site)], mean, by_position))
        score = torch.cat(each, -2)
    u, v = graph.ends
    moved = score[..., u, v].movedim(-1, 0)  # edge batch (pos)
    return (moved.transpose(1, 2) if by_position else moved).double().cpu().numpy()


def _on_the_way(part: Part, site: Site, share: float) -> Edit:
    """All writers at ``site`` at a share of the way from the clean to the other values."""
    mine = part.graph.numbers(site)
    value = part.own[:, :, mine] + share * part.change[:, :, mine]
    return Replace(site.name, value=value if len(site.axes) == 4 else value[:, :, 0])


def _meet(change: Tensor, slope: Tensor, by_position: bool) -> Tensor:
    wide = torch.promote_types(change.dtype, torch.float32)
    return torch.einsum("bpum,bpvm->bpuv" if by_position else "bpum,bpvm->buv", change.to(wide), slope.to(wide))


# --- edges one by one -------------------------------------------------------------------------------------------


def edge_edit(part: Part, edge: tuple[int, int], pos: int | None = None) -> Edit:
    """One edge patched: what the other run's writer would have brought is added to what the reader reads, at a position or at all."""
    u, v = edge
    reader = part.graph.readers[v]
    value = part.change[:, :, u]
    at: dict[str, Any] = dict(reader.at)
    if pos is not None:
        value, at["pos"] = value[:, pos : pos + 1], pos
    return Add(reader.site.name, value=value if reader.head is None else value.unsqueeze(2), at=at)


def exact(part: Part, cells: Sequence[tuple[tuple[int, int], int | None]], memory: int, progress: Progress) -> tuple[np.ndarray, bool]:
    """The value of each item with each (edge, position or None) patched alone, ``[cell, batch]``; and whether Ctrl-C ended it early (NaN
    where it came first). Raises KeyboardInterrupt where it came before all."""
    out = np.full((len(cells), len(part.clean)), np.nan)
    ready: Sweep = prepare(part.model, part.batch, [edge_edit(part, *cell) for cell in cells], logits=part.logits, memory=memory)
    try:
        for index, value in ready.results(part.metric, progress=progress):
            out[index] = value.double().cpu().numpy()
    except KeyboardInterrupt:
        if not np.isfinite(out).any():
            raise
        return out, True
    return out, False


# --- circuits ---------------------------------------------------------------------------------------------------


class _Rebuilt:
    """The edits of one pass that makes readers' inputs anew: each row has its own set of patched edges. Used once."""

    def __init__(self, part: Part, outside: Float[Tensor, "circuit writer reader"]) -> None:
        self.graph, self.outside, self.circuits = part.graph, outside, len(outside)
        self.other, self.change = part.other, [torch.empty(0)] * len(part.graph.writer_sites)

    def edits(self) -> list[Edit]:
        writes: list[Edit] = [Apply(site.name, fn=self.hear) for site in self.graph.writer_sites]
        return [*writes, *(Apply(site.name, fn=self.fill) for site in self.graph.reader_sites)]

    def hear(self, value: Tensor, site: Site) -> Tensor:
        """Keep how far the other run's writers are from this run's."""
        other = self.other[:, :, self.graph.numbers(site)].repeat(self.circuits, 1, 1, 1)
        self.change[self.graph.writer_sites.index(site)] = other - (value if value.ndim == 4 else value.unsqueeze(2))
        return value

    def fill(self, value: Tensor, site: Site) -> Tensor:
        """Put the other run's values at the end of edges outside."""
        readers = self.graph.numbers(site, reads=True)
        heard = torch.cat([one for one in self.change if one.numel()], 2)
        count = heard.shape[2]
        outside = self.outside[:, :count, readers].to(heard)
        by_circuit = heard.unflatten(0, (self.circuits, -1))
        moved = torch.einsum("cuv,cbpum->cbpvm", outside, by_circuit).flatten(0, 1)
        return value + (moved if value.ndim == 4 else moved[:, :, 0])


def run_circuits(part: Part, inside: Bool[np.ndarray, "circuit edge"], memory: int, progress: Progress | None = None) -> np.ndarray:
    """The value of each item in each circuit, ``[circuit, batch]``, as many together as the memory allows."""
    u, v = part.graph.ends
    outside = torch.zeros(len(inside), len(part.graph.writers), len(part.graph.readers), dtype=part.own.dtype)
    outside[:, u, v] = torch.from_numpy(~inside).to(outside)
    outside = outside.to(part.own.device)
    most = max(1, memory // max(1, 6 * part.own.nbytes))  # the writers, their changes, and a layer's readers
    found = []
    for start in range(0, len(inside), most):
        chunk = outside[start : start + most]
        edits = _Rebuilt(part, chunk).edits()
        with torch.no_grad():
            batch, asked = repeated(part, len(chunk))
            trace = part.model.run(batch, edit=edits, logits=asked)
        assert trace.logits is not None
        for k in range(len(chunk)):
            rows = slice(k * len(part.clean), (k + 1) * len(part.clean))
            found.append(finite(part.metric(trace.logits[rows]), "circuit's"))
        if progress is not None:
            progress(start + len(chunk), len(inside), "circuits")
    return np.stack(found)


def repeated(part: Part, count: int) -> tuple[Any, Any]:
    """Batch and positions asked for, ``count`` times over."""
    rows = list(range(len(part.clean))) * count
    batch = part.batch[rows] if isinstance(part.batch, Tensor) else part.batch.rows(rows)
    return batch, part.logits.repeat(count, 1) if isinstance(part.logits, Tensor) else part.logits
