"""Path patching: what goes from one part to another on the direct way, and nothing else.

Two runs for a set of senders (heads, MLPs, the embedding) and a set of receivers (readers, as in ``probes.edge_graph``):

    1. the clean input, with the senders' outputs replaced by a' and every other head and MLP held at its clean output:
       what the receivers read then is kept
    2. the clean input, with the receivers reading what was kept and all else free: value = m(run)

It is exact: receivers read through their own norm, not through a norm held still; they read what was kept alone, also one that comes after
another. With MLPs let go in the first run (``through`` 'mlps', as Wang et al. do) what passes from sender to receiver through MLPs alone
counts as direct. Held, and where no receiver comes after another, the whole is the sum of the edges between the two sets.

Source: Wang et al., Interpretability in the Wild, 2022 (arXiv:2211.00593); Goldowsky-Dill et al., Localizing Model Behavior with Path
Patching, 2023 (arXiv:2304.05969).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Bool
from pydantic import Field
from torch import Tensor

from probes.edge_attribution_patching import graph_for, patch_spec, put_note
from probes.edge_graph import NEEDED, EdgeGraph, End
from probes.edge_runs import Part, parts_of, read_edges, repeated
from probes.patch_given import Replacement
from probes.patch_metric import PatchQuantity, Read
from probes.patch_plan import Plan, finite
from probes.patch_result import patch_origin
from probes.places import noise_note
from probes.token_items import TokenItems
from workbench.core.charts.frame import number
from workbench.core.charts.heat import grid
from workbench.core.errors import BadValue, EmptySelection
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import Apply, Edit, HookedModel, Inputs, Progress, silent
from workbench.core.result import Result
from workbench.core.sites import Site
from workbench.core.spec import Spec


class PathPatchingSpec(Spec):
    """From which parts, to which readers, and through what."""

    senders: tuple[str, ...] | None = Field(default=None, description="'L0H1', 'L0MLP', 'embed' or globs ('L0H*'); None is all before")
    receivers: tuple[str, ...] = Field(default=("logits",), description="'L1H0.q', 'L1G0.k' (a group), 'L1MLP', 'logits' or globs")
    together: bool = Field(default=False, description="all senders at once; otherwise each alone")
    through: Literal["nothing", "mlps"] = Field(default="nothing", description="what between the two is not held at its clean output")
    positions: tuple[int, ...] | None = Field(default=None, description="positions of the senders that are replaced; None is all")
    replacement: Replacement = Field(default="counterfactual", description="what the senders' outputs are replaced by")
    quantity: PatchQuantity = Field(default="logit", description="the number read; 'logit-difference' is target minus foil")
    position: int | None = Field(default=None, description="whose logits are read: None is the last real one, negative counts from it")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    seed: int = Field(default=0, ge=0, description="draws the rows of 'resample'")
    memory_mib: int = Field(default=1024, ge=1, description="memory of the edited runs at most, by estimate")


# --- compute ------------------------------------------------------------------------------------------------


def compute(model: HookedModel, inputs: Inputs, spec: PathPatchingSpec, progress: Progress) -> PathPatchingResult:
    """Patch every path. Raises BadValue for inputs that cannot be meant, EmptySelection for a part that is not there."""
    return path_patched(model, inputs, spec, progress=progress)


def path_patched(
    model: HookedModel,
    inputs: Inputs,
    spec: PathPatchingSpec,
    *,
    metric: Read | None = None,
    name: str = "",
    progress: Progress = silent,
) -> PathPatchingResult:
    """The same with a ``metric`` of one's own: logits ``[batch, answer]`` at each item's position to one number an item."""
    plan = read_edges(model, inputs, patch_spec(spec), metric)
    graph = graph_for(plan, INSTRUMENT.name)
    receivers = [graph.reader(one) for one in _named(spec.receivers, graph.readers, "receiver", model.family)]
    senders = _senders(graph, receivers, spec, model.family)
    moved = _positions(spec, plan.given.clean.items.width)
    cells = [senders] if spec.together else [[one] for one in senders]
    items = len(plan.given.clean)
    value, clean, corrupt = np.full((len(cells), items), np.nan), np.full(items, np.nan), np.full(items, np.nan)
    for part in parts_of(plan, graph):
        clean[part.rows], corrupt[part.rows] = part.clean, part.corrupt
        value[:, part.rows] = _swept(part, cells, receivers, moved, spec)
        progress(part.rows.stop, items, "items")
    named = [graph.writers[one].name for one in senders]
    return PathPatchingResult(
        kind=INSTRUMENT.name,
        values=_values([" + ".join(named)] if spec.together else named, value, clean, corrupt),
        spec=spec.model_dump(mode="json"),
        provenance=patch_origin(plan),
        notes=_notes(plan, graph, receivers, spec, name or ("the given metric" if metric is not None else "")),
    )


def _named(patterns: Sequence[str], ends: Sequence[End], kind: str, family: str) -> list[str]:
    """The names that exact names or globs choose, in order. Raises EmptySelection and BadValue."""
    if not patterns:
        raise BadValue(f"{kind}s", list(patterns), "at least one")
    names = [end.name for end in ends]
    chosen: set[str] = set()
    for pattern in patterns:
        found = fnmatch.filter(names, pattern)
        if not found:
            raise EmptySelection(kind, pattern, names, where=f"this {family} model's graph")
        chosen.update(found)
    return [name for name in names if name in chosen]


def _senders(graph: EdgeGraph, receivers: Sequence[int], spec: PathPatchingSpec, family: str) -> list[int]:
    last = max(graph.readers[one].stage for one in receivers)
    before = [k for k, end in enumerate(graph.writers) if end.stage < last]
    if spec.senders is None:
        return before
    chosen = [graph.writer(one) for one in _named(spec.senders, graph.writers, "sender", family)]
    for one in chosen:
        if one not in before:
            raise BadValue("senders", graph.writers[one].name, f"before a receiver, the last of which is in layer {last // 2}",
                           do="Nothing goes from a part to an earlier one.")  # fmt: skip
    return chosen


def _positions(spec: PathPatchingSpec, width: int) -> Tensor:
    """Which positions of the senders are replaced, ``[pos]``."""
    chosen = range(width) if spec.positions is None else spec.positions
    if not chosen or min(chosen) < 0 or max(chosen) >= width or len(set(chosen)) != len(chosen):
        raise BadValue("positions", list(chosen), f"different numbers from 0 to {width - 1}, at least one")
    out = torch.zeros(width, dtype=torch.bool)
    out[list(chosen)] = True
    return out


@dataclass(frozen=True)
class _First:
    """The edits of the first run: ``sent [cell, pos, writer]`` are replaced, all else is held (MLPs free where they are let go)."""

    part: Part
    sent: Bool[Tensor, "cell pos writer"]
    free: bool

    def edits(self) -> list[Edit]:
        return [Apply(site.name, fn=self.put) for site in self.part.graph.writer_sites]

    def put(self, value: Tensor, site: Site) -> Tensor:
        mine = self.part.graph.numbers(site)
        whole = value if value.ndim == 4 else value.unsqueeze(2)
        own, other = (one[:, :, mine].repeat(len(self.sent), 1, 1, 1) for one in (self.part.own, self.part.other))
        sent = self.sent[:, :, mine].repeat_interleave(len(self.part.clean), 0).unsqueeze(-1).to(value.device)
        held = whole if self.free and site.tensor == "hook_mlp_out" else own
        out = torch.where(sent, other, held)
        return out if value.ndim == 4 else out[:, :, 0]


def _swept(part: Part, cells: Sequence[Sequence[int]], receivers: Sequence[int], moved: Tensor, spec: PathPatchingSpec) -> np.ndarray:
    """Values ``[cell, batch]``, as many cells together as the memory allows."""
    graph = part.graph
    sites = list(dict.fromkeys(graph.readers[one].site for one in receivers))
    most = max(1, (spec.memory_mib << 20) // max(1, 8 * part.own.nbytes))
    out = []
    for start in range(0, len(cells), most):
        chunk = cells[start : start + most]
        sent = torch.zeros(len(chunk), len(moved), len(graph.writers), dtype=torch.bool)
        for k, cell in enumerate(chunk):
            sent[k][:, cell] = moved[:, None]
        batch, asked = repeated(part, len(chunk))
        with torch.no_grad():
            kept = part.model.run(batch, edit=_First(part, sent, spec.through == "mlps").edits(), capture=sites, logits=None)
            reading = [_reading(graph, [one for one in receivers if graph.readers[one].site == site], site, kept[site]) for site in sites]
            trace = part.model.run(batch, edit=reading, logits=asked)
        assert trace.logits is not None
        rows = len(part.clean)
        out += [finite(part.metric(trace.logits[k * rows : (k + 1) * rows]), "patched") for k in range(len(chunk))]
    return np.stack(out)


def _reading(graph: EdgeGraph, receivers: Sequence[int], site: Site, kept: Tensor) -> Edit:
    """The edit by which the receivers at a site read what was kept."""
    heads = [head for one in receivers if (head := graph.readers[one].head) is not None]

    def put(value: Tensor, _: Site) -> Tensor:
        if not heads:
            return kept
        out = value.clone()
        out[:, :, heads] = kept[:, :, heads]
        return out

    return Apply(site.name, fn=put)


def _values(names: Sequence[str], value: np.ndarray, clean: np.ndarray, corrupt: np.ndarray) -> xr.Dataset:
    return xr.Dataset(
        {
            "value": (("sender", "batch"), value),
            "effect": (("sender", "batch"), value - clean),
            "clean": ("batch", clean),
            "corrupt": ("batch", corrupt),
        },
        coords={"sender": np.array(names, dtype=object), "batch": np.arange(len(clean))},
    )


def _notes(plan: Plan, graph: EdgeGraph, receivers: Sequence[int], spec: PathPatchingSpec, name: str) -> tuple[str, ...]:
    names = [graph.readers[one].name for one in receivers]
    told = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    held = "All parts between are held at their clean outputs." if spec.through == "nothing" else "Heads between are held, MLPs are free."
    out = [f"Paths into {told}. {held}", *put_note(plan), f"The number read is {name or spec.quantity}."]
    if isinstance(plan.given.clean.items, TokenItems):
        out.append(plan.given.clean.items.added)
    return (*out, *noise_note(plan.given.clean.items))


# --- result and plot ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PathPatchingResult(Result):
    """One row a sender (or all together) and item. ``value``: the number read where the receivers read what the sender would send;
    ``effect``: that less the clean value; ``clean`` and ``corrupt``: the unedited values."""

    columns: ClassVar[tuple[str, ...]] = ("sender", "batch", "value", "effect", "clean", "corrupt")

    def mean(self) -> np.ndarray:
        """The mean effect of each sender."""
        return self.values.effect.values.mean(1)

    def summary(self) -> str:
        """The strongest senders."""
        v: Any = self.values
        means = self.mean()
        best = [f"{v.sender.values[k]}: {number(float(means[k]), signed=True)}" for k in np.argsort(-np.abs(means), kind="stable")[:5]]
        ends = f"clean {number(float(v.clean.mean()))}"
        if np.isfinite(v.corrupt.values).all():
            ends += f", corrupt {number(float(v.corrupt.mean()))}"
        head = f"{self.kind}: {len(v.sender)} senders, {len(v.batch)} items, {self.spec['replacement']} ({ends})."
        return "\n".join([head, f"Strongest by effect: {'; '.join(best)}.", *self.notes])

    def plot(self) -> Any:
        """Layers by heads and MLPs: the mean effect of each sender."""
        rows = []
        for name, value in zip(self.values.sender.values.tolist(), self.mean().tolist(), strict=True):
            layer, part = _place(name)
            rows.append((part, layer, value))
        frame = pd.DataFrame(rows, columns=pd.Index(["part", "layer", "effect"]))
        title = f"Path patching into {', '.join(self.spec['receivers'])} ({self.spec['replacement']})"
        return grid(frame, "part", "layer", "effect", titles={"title": title, "part": "sender", "layer": "layer", "effect": "effect"})


def _place(name: str) -> tuple[str, str]:
    """The layer and the part of a sender's name."""
    if " + " in name or not name.startswith("L"):
        return "all" if " + " in name else "input", name
    cut = next(k for k in range(1, len(name)) if not name[k].isdigit())
    return name[:cut], name[cut:]


INSTRUMENT = Instrument(
    name="path-patching",
    question="What does one part send to another on the direct way?",
    spec=PathPatchingSpec,
    needs=Needs(
        abilities=frozenset({"logits", "edit"}),
        sites=NEEDED,
        additive=True,
        one_stack=True,
        inputs=("batch", "targets"),
        unless={"targets": ("quantity", "kl")},
    ),
    compute=compute,
)
