"""Value-weighted attention: how long the vector is that a head moves from one token to another.

    norm[layer, head, batch, query, key] = A[query, key] * | v[key] W_O |        (Euclidean, at the stream)

An attention weight says where a head reads; this says how much it brings. A head that rests on a token whose value is short (often the
first) moves nothing, whatever its weights. The norms do not add up: vectors from several keys can cancel.

Source: Kobayashi et al., Attention is Not Only a Weight: Analyzing Transformers with Vector Norms, EMNLP 2020 (arXiv:2004.10102).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from probes.attention import check_cells, check_heads
from probes.panels import joined
from probes.places import Places, is_own_batch, place_sites, prefix_of, read_places, stack_of
from probes.target import device_of, model_dtype
from probes.token_items import TokenItems, origin, read_items, rows_a_pass, slices
from workbench.core.charts.heat import grid
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.result import Result
from workbench.core.sites import Site
from workbench.core.spec import Spec

MOST_MAPS, SHOWN = 6, 24


class ValueNormsSpec(Spec):
    """Which heads are looked at."""

    layers: tuple[int, ...] | None = Field(default=None, description="layers, counted from 0; None is all")
    heads: tuple[int, ...] | None = Field(default=None, description="heads in each layer, counted from 0; None is all")
    stack: str = Field(default="", description="whose layers, in a family of several stacks; '' is the first")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    max_cells: int = Field(default=20_000_000, ge=1, description="numbers kept at most")
    tokens_a_pass: int = Field(default=16384, ge=1, description="tokens in one forward pass at most")


# --- compute ------------------------------------------------------------------------------------------------


def value_lengths(values: Float[Tensor, "batch key kv_head d_head"], out: Float[Tensor, "head d_head d_model"]) -> Tensor:
    """``|v W_O|`` as ``[batch, head, key]`` in float64. With W_O^T = Q R it is ``|v R^T|``: nothing as wide as the stream is made."""
    small = torch.linalg.qr(out.double().transpose(1, 2), mode="r").R  # head small d_head
    by_head = values.double().repeat_interleave(len(out) // values.shape[2], 2)
    return torch.einsum("bkhd,hsd->bhks", by_head, small.to(values.device)).norm(dim=-1)


def compute(model: HookedModel, inputs: Inputs, spec: ValueNormsSpec, progress: Progress) -> ValueNormsResult:
    """Weigh the patterns of the chosen heads. Raises BadValue for a layer or head that is not there, and above ``max_cells``."""
    stack = stack_of(model, spec.stack)
    own = is_own_batch(model, inputs.batch)
    items: TokenItems | Places = read_places(model, inputs, stack) if own else read_items(model, inputs, bos=spec.bos)
    sites, read = place_sites(model, stack, spec.layers, cross=False), items.real
    matrices = [model.weight(f"{prefix_of(stack)}blocks.{site.layer}.attn.W_O") for site in sites]
    heads = check_heads(spec.heads, len(matrices[0]))
    check_cells(len(sites) * len(heads) * len(items) * items.width**2, spec.max_cells, "norms")
    norms, lengths, weights = [], [], []
    for part, batch in _passes(model, items, spec.tokens_a_pass):
        found = _weigh(model, batch, sites, matrices, heads, read[part])
        for kept, one in zip((norms, lengths, weights), found, strict=True):
            kept.append(one.cpu())
        progress(part.stop, len(items), "items")
    norm, length, first = (torch.cat(kept, 2) for kept in (norms, lengths, weights))
    share = norm[..., 0].nansum(-1) / norm.nansum((-1, -2))
    grid_of, real = ("layer", "head", "batch", "query", "key"), read[None, None]
    values = xr.Dataset(
        {
            "norm": (grid_of, norm.numpy()),
            "value_norm": (("layer", "head", "batch", "key"), length.masked_fill(~real, float("nan")).numpy()),
            "norm_to_first": (("layer", "head", "batch"), share.numpy()),
            "weight_to_first": (("layer", "head", "batch"), first.numpy()),
        },
        coords={
            "layer": [site.layer for site in sites], "head": heads, "batch": np.arange(len(items)), "query": np.arange(items.width),
            "key": np.arange(items.width), "query_token": (("batch", "query"), items.pieces), "key_token": (("batch", "key"), items.pieces),
        },
    )  # fmt: skip
    return ValueNormsResult(
        kind=INSTRUMENT.name,
        values=values,
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=None, dtype=model_dtype(model), **items.data()),
        notes=(items.added,) if isinstance(items, TokenItems) else (),
    )


def _passes(model: HookedModel, items: TokenItems | Places, tokens_a_pass: int) -> Iterator[tuple[slice, Any]]:
    if isinstance(items, Places):
        yield from items.passes(device_of(model))
        return
    for part in slices(len(items), rows_a_pass(tokens_a_pass, items.width)):
        yield part, items.given(model, part, device_of(model))


def _weigh(
    model: HookedModel, batch: Any, sites: tuple[Site, ...], matrices: list[Tensor], heads: list[int], real: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of one pass: norms ``[layer, head, batch, query, key]`` (NaN at padding), value lengths ``[layer, head, batch, key]``, and the mean
    weight on position 0 ``[layer, head, batch]``. Raises BadValue for NaN or infinity at a real position."""
    values = [site.name.replace("hook_pattern", "hook_v") for site in sites]
    trace = model.run(batch, capture=[*sites, *values], logits=None)
    both, out = (real[:, :, None] & real[:, None, :])[:, None], []
    for site, name, matrix in zip(sites, values, matrices, strict=True):
        pattern = trace[site][:, heads].double().cpu()
        length = value_lengths(trace[name], matrix)[:, heads].cpu()
        norm = pattern * length[:, :, None, :]
        if not bool(torch.isfinite(norm.masked_fill(~both, 0.0)).all()):
            raise BadValue("the weighted attention", "NaN or infinity at a real position", "finite numbers", do="The weights are broken.")
        first = pattern[..., 0].masked_fill(~real[:, None], 0.0).sum(-1) / real.sum(1)[:, None]
        out.append([norm.masked_fill(~both, float("nan")), length, first])
    norms, lengths, firsts = (torch.stack(kept).transpose(1, 2) for kept in zip(*out, strict=True))
    return norms, lengths, firsts


# --- result and plot ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ValueNormsResult(Result):
    """``norm`` (NaN at padding), ``value_norm`` the length of what each key offers; ``norm_to_first`` the share of a head's summed norms
    that comes from position 0, beside ``weight_to_first``, the same of its weights."""

    columns: ClassVar[tuple[str, ...]] = (
        "layer", "head", "batch", "query", "key", "query_token", "key_token", "norm", "value_norm", "norm_to_first", "weight_to_first",
    )  # fmt: skip

    def summary(self) -> str:
        """How many heads rest on the first position by their weights, and how many bring most from there."""
        v: Any = self.values
        weights, norms = (v[name].mean("batch").values for name in ("weight_to_first", "norm_to_first"))
        return "\n".join(
            [
                f"{self.kind}: {v.sizes['layer']} layers x {v.sizes['head']} heads on {len(v.batch)} items; "
                f"{int((weights > 0.5).sum())} heads put more than half of their attention on position 0, "
                f"{int((norms > 0.5).sum())} bring more than half of what they move from there.",
                *self.notes,
            ]
        )

    def plot(self) -> Any:
        """Item 0: one map a head, query by key; the first layers and heads only where there are many."""
        item: Any = self.values.isel(batch=0)
        kept = np.flatnonzero(item.query_token.values != "")[:SHOWN]
        names = [str(token) for token in item.key_token.values[kept]]
        heads = [(layer, head) for layer in range(len(item["layer"])) for head in range(len(item["head"]))]
        charts = []
        for layer, head in heads[:MOST_MAPS]:
            part = item.norm.isel(layer=layer, head=head, query=kept, key=kept)
            frame = part.assign_coords(query=np.arange(len(kept)), key=np.arange(len(kept))).to_dataframe(name="norm").reset_index()
            words = {"title": f"Layer {int(item['layer'][layer])}, head {int(item['head'][head])}", "query": "query (reads)",
                     "key": "key (read from)", "norm": "length moved"}  # fmt: skip
            charts.append(grid(frame, "key", "query", "norm", titles=words, signed=False, x_labels=names))
        title = f"What each head brings in item 0, {len(charts)} of {len(heads)} heads"
        return charts[0] if len(charts) == 1 else joined(charts, title, columns=2)


INSTRUMENT = Instrument(
    name="value-norms",
    question="How much does each head bring from each token, rather than where does it look?",
    spec=ValueNormsSpec,
    needs=Needs(abilities=frozenset({"weights"}), sites=("*blocks.*.attn.hook_pattern", "*blocks.*.attn.hook_v")),
    compute=compute,
)
