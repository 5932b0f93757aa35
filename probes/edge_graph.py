"""A model as a graph of edges: what is written to the stream, and who reads it.

Writers are the embedding, each head's result and each MLP's output; readers are the query, key and value inputs of each head (of a group
where keys and values are shared), each MLP's input, and the last stream as the unembedding reads it. On an additive stream a reader's input
is the sum of all earlier writers and of biases, which are the same in every run:

    input of v = constant + sum over writers u before v of a_u

so an edge u -> v can be patched alone: by adding ``a'_u - a_u`` to what v reads. Names are those of compiled circuits: writers ``embed``,
``L0H1``, ``L0MLP``; readers ``L1H0.q`` (``L1G0.k`` of a group), ``L1MLP``, ``logits``.

Source: Elhage et al., A Mathematical Framework for Transformer Circuits, 2021; Goldowsky-Dill et al., Localizing Model Behavior with Path
Patching, 2023 (arXiv:2304.05969).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.target import model_dtype
from workbench.core.errors import Incompatible, UnknownName
from workbench.core.protocol import HookedModel, Trace
from workbench.core.sites import Site
from workbench.core.tolerance import tolerance

NEEDED = ("blocks.*.hook_q_input", "blocks.*.hook_k_input", "blocks.*.hook_v_input", "blocks.*.attn.hook_result")
"""Sites without which there is no graph."""
FAR = 100
"""A sum this many bounds of rounding away from the stream is no rounding."""


@dataclass(frozen=True)
class End:
    """A writer or a reader: its place in a run (``stage``: heads of layer i at 2i, its MLP at 2i + 1), its site, its head or group there
    (None: the whole site), and the writers it is an input of (``of``, a reader's)."""

    name: str
    site: Site
    stage: int
    head: int | None = None
    of: tuple[str, ...] = ()

    @property
    def at(self) -> dict[str, int]:
        """Which part of the site it is, as an edit says it."""
        return {} if self.head is None else {self.site.axes[2]: self.head}


@dataclass(frozen=True)
class EdgeGraph:
    """``allowed [writer, reader]``: whether the writer comes before the reader. Edges are numbered reader by reader, in a run's order."""

    writers: tuple[End, ...]
    readers: tuple[End, ...]

    @cached_property
    def allowed(self) -> Bool[np.ndarray, "writer reader"]:
        return np.array([u.stage for u in self.writers])[:, None] < np.array([v.stage for v in self.readers])[None, :]

    @cached_property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each edge the number of its writer and of its reader."""
        v, u = np.nonzero(self.allowed.T)
        return u, v

    @cached_property
    def pairs(self) -> list[tuple[int, int]]:
        """Of each edge the number of its writer and of its reader, as one."""
        u, v = self.ends
        return list(zip(u.tolist(), v.tolist(), strict=True))

    @cached_property
    def names(self) -> list[tuple[str, str]]:
        """Of each edge its writer and its reader."""
        return [(self.writers[u].name, self.readers[v].name) for u, v in self.pairs]

    @cached_property
    def writer_sites(self) -> tuple[Site, ...]:
        return tuple(dict.fromkeys(end.site for end in self.writers))

    @cached_property
    def reader_sites(self) -> tuple[Site, ...]:
        return tuple(dict.fromkeys(end.site for end in self.readers))

    def __len__(self) -> int:
        return int(self.allowed.sum())

    def written(self, at: Mapping[str, Tensor]) -> Float[Tensor, "batch pos writer d_model"]:
        """All writers' values, from their sites'."""
        return _stacked(self.writer_sites, at)

    def seen(self, at: Mapping[str, Tensor]) -> Float[Tensor, "batch pos reader d_model"]:
        """All readers' values (or gradients), from their sites'."""
        return _stacked(self.reader_sites, at)

    def numbers(self, site: Site, *, reads: bool = False) -> slice:
        """The writers (or readers) at a site, which are neighbours."""
        mine = [k for k, end in enumerate(self.readers if reads else self.writers) if end.site == site]
        return slice(mine[0], mine[-1] + 1)

    def writer(self, name: str) -> int:
        """The number of a writer; UnknownName."""
        return _number(self.writers, name, "writer")

    def reader(self, name: str) -> int:
        """The number of a reader; UnknownName."""
        return _number(self.readers, name, "reader")

    @cached_property
    def inputs_of(self) -> list[list[int]]:
        """Of each writer the numbers of its readers."""
        return [[k for k, v in enumerate(self.readers) if u.name in v.of] for u in self.writers]


def _number(ends: Sequence[End], name: str, kind: str) -> int:
    for k, end in enumerate(ends):
        if end.name == name:
            return k
    raise UnknownName(kind, name, [end.name for end in ends], where="in this model's graph")


def _stacked(sites: Sequence[Site], at: Mapping[str, Tensor]) -> Tensor:
    """One axis for the heads of all sites; a site without heads counts as one."""
    return torch.cat([at[site.name] if len(site.axes) == 4 else at[site.name].unsqueeze(2) for site in sites], 2)


def graph_of(model: HookedModel, heads: Mapping[str, int], asked: str) -> EdgeGraph:
    """The graph of ``model``; ``heads`` is the number of heads or groups at each site that has any. Raises Incompatible where the stack is
    not the only one."""
    table = model.sites()
    stacks = sorted({site.stack for site in table.values() if site.layer is not None})
    if stacks != [""]:
        raise Incompatible(asked, f"this {model.family} model", [f"it has the stacks {', '.join(stacks)}, and edges are followed in one"])
    depth = 1 + max(site.layer for site in table.values() if site.layer is not None)
    writers, readers = [End("embed", table["blocks.0.hook_resid_pre"], -1)], []
    for i in range(depth):
        count, groups = heads[f"blocks.{i}.attn.hook_result"], heads[f"blocks.{i}.hook_k_input"]
        of = {head: (f"L{i}H{head}",) for head in range(count)}
        readers += [End(f"L{i}H{h}.q", table[f"blocks.{i}.hook_q_input"], 2 * i, h, of[h]) for h in range(count)]
        for word in "kv":
            letter, share = ("H", 1) if groups == count else ("G", count // groups)
            readers += [
                End(f"L{i}{letter}{g}.{word}", table[f"blocks.{i}.hook_{word}_input"], 2 * i, g,
                    tuple(f"L{i}H{h}" for h in range(g * share, (g + 1) * share)))
                for g in range(groups)
            ]  # fmt: skip
        writers += [End(f"L{i}H{h}", table[f"blocks.{i}.attn.hook_result"], 2 * i, h) for h in range(count)]
        if f"blocks.{i}.hook_mlp_in" in table:
            readers.append(End(f"L{i}MLP", table[f"blocks.{i}.hook_mlp_in"], 2 * i + 1, None, (f"L{i}MLP",)))
            writers.append(End(f"L{i}MLP", table[f"blocks.{i}.hook_mlp_out"], 2 * i + 1))
    readers.append(End("logits", table[f"blocks.{depth - 1}.hook_resid_post"], 2 * depth))
    return EdgeGraph(tuple(writers), tuple(readers))


def read_graph(model: HookedModel, batch: object, asked: str) -> EdgeGraph:
    """The graph of ``model``, whose sums are checked on a run of ``batch`` (a few rows are enough). Raises Incompatible where the heads'
    results do not add up to what attention writes, or the parts to the stream: where a layer's parts read side by side, or are normed or
    gated before they are added."""
    table = model.sites()
    stream = [name for name in table if name.startswith("blocks.") and name.endswith((".hook_attn_out", ".hook_mlp_in", ".hook_mlp_out"))]
    layered = [site for site in table.values() if site.layer is not None]
    wanted = [site.name for site in layered if site.tensor in ("hook_result", "hook_k_input") and not site.stack]
    depth = 1 + max((site.layer for site in layered if site.layer is not None), default=0)
    ends = ["blocks.0.hook_resid_pre", f"blocks.{depth - 1}.hook_resid_post"]
    missing = [name for name in ends if name not in table]
    if missing:
        raise Incompatible(asked, f"this {model.family} model", [f"it has no site '{missing[0]}', and edges are followed in one stack"])
    trace = model.run(batch, capture=[*wanted, *stream, *ends], logits=None)
    heads = {name: trace[name].shape[2] for name in wanted}
    graph = graph_of(model, heads, asked)
    _check_sums(model, trace, depth, asked)
    return graph


def _check_sums(model: HookedModel, trace: Trace, depth: int, asked: str) -> None:
    bound = FAR * tolerance(model_dtype(model), "activation").bound
    total = trace["blocks.0.hook_resid_pre"].double()
    for i in range(depth):
        out = trace[f"blocks.{i}.hook_attn_out"].double()
        rest = out - trace[f"blocks.{i}.attn.hook_result"].double().sum(2)  # the bias, the same everywhere
        _near(model, rest, rest[:1, :1], out, f"the heads of layer {i} do not add up to what its attention writes", bound, asked)
        total = total + out
        if f"blocks.{i}.hook_mlp_out" in trace.at:
            read = trace[f"blocks.{i}.hook_mlp_in"].double()
            _near(model, total, read, read, f"the MLP of layer {i} does not read what its attention has written", bound, asked)
            total = total + trace[f"blocks.{i}.hook_mlp_out"].double()
    end = trace[f"blocks.{depth - 1}.hook_resid_post"].double()
    _near(model, total, end, end, "the parts of its layers do not add up to the stream", bound, asked)


def _near(model: HookedModel, found: Tensor, wanted: Tensor, scale: Tensor, words: str, bound: float, asked: str) -> None:
    away = float((found - wanted).abs().max()) / max(1.0, float(scale.abs().max()))
    if away > bound:  # what is not finite is refused where its value is read
        raise Incompatible(asked, f"this {model.family} model", [f"{words}, by {away:.1e} of the largest"])
