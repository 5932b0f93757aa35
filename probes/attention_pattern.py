"""Attention patterns: how much each token attends to each earlier one, by layer and head.

    pattern[layer, head, batch, query, key] = softmax over key of (q . k / sqrt(d_head)), as captured

A weight says where a head reads, not what it does with it: a large weight on a small value moves nothing.

Source: Vaswani et al., Attention Is All You Need, 2017 (arXiv:1706.03762); on what weights do not show, Jain and Wallace,
Attention is not Explanation, 2019 (arXiv:1902.10186).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from pydantic import Field

from probes.attention import PATTERNS, check_cells, check_heads, is_causal, pattern_passes, pattern_sites, row_error
from probes.panels import joined
from probes.pictures import AXES, over_picture, picture_alone, shows_picture, with_picture, words_of
from probes.places import is_own_batch, noise_note, place_sites, read_places, stack_of
from probes.target import device_of, model_dtype
from probes.token_items import origin, read_items
from workbench.core.charts.heat import attention_map
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.result import Result
from workbench.core.spec import Spec

MOST_MAPS = 8


class AttentionPatternSpec(Spec):
    """Which heads are looked at."""

    layers: tuple[int, ...] | None = Field(default=None, description="layers, counted from 0; None is all")
    heads: tuple[int, ...] | None = Field(default=None, description="heads in each layer, counted from 0; None is all")
    stack: str = Field(default="", description="whose layers, in a family of several stacks; '' is the first")
    cross: bool = Field(default=False, description="the attention to the other stack instead of the stack's own")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    max_cells: int = Field(default=20_000_000, ge=1, description="numbers kept at most")
    tokens_a_pass: int = Field(default=16384, ge=1, description="tokens in one forward pass at most")


# --- compute ------------------------------------------------------------------------------------------------


def compute(model: HookedModel, inputs: Inputs, spec: AttentionPatternSpec, progress: Progress) -> AttentionPatternResult:
    """Capture the patterns. Raises BadValue for a layer or head that is not there, and above ``max_cells``."""
    if is_own_batch(model, inputs.batch):
        return of_places(model, inputs, spec, progress)
    if spec.cross or spec.stack:
        raise BadValue("stack", spec.stack or "cross", "left out for token ids or text; give a batch of the family's own type")
    items = read_items(model, inputs, bos=spec.bos)
    sites = pattern_sites(model, spec.layers)
    width = items.ids.shape[1]
    parts, heads = [], []
    for _, part in pattern_passes(model, items, sites, spec.tokens_a_pass, progress):
        heads = check_heads(spec.heads, part.shape[2])
        check_cells(len(sites) * len(heads) * len(items) * width * width, spec.max_cells, "patterns")
        parts.append(part[:, :, heads])
    captured = torch.cat(parts, dim=1)
    patterns = captured.transpose(1, 2)  # layer head batch query key
    real = items.real
    both = (real[:, :, None] & real[:, None, :])[None, None]
    first = patterns[..., 0].double().masked_fill(~real, 0.0).sum(-1) / items.lengths
    values = xr.Dataset(
        {
            "pattern": (("layer", "head", "batch", "query", "key"), patterns.double().masked_fill(~both, float("nan")).numpy()),
            "to_first": (("layer", "head", "batch"), first.numpy()),
            "row_error": (("layer", "head"), row_error(captured, items)),
        },
        coords={
            "layer": [site.layer for site in sites],
            "head": heads,
            "batch": np.arange(len(items)),
            "query": np.arange(width),
            "key": np.arange(width),
            "query_token": (("batch", "query"), items.pieces),
            "key_token": (("batch", "key"), items.pieces),
        },
    )
    return AttentionPatternResult(
        kind=INSTRUMENT.name,
        values=values,
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=None, dtype=model_dtype(model), ids=items.ids, lengths=items.lengths),
        notes=(items.added,),
    )


def of_places(model: HookedModel, inputs: Inputs, spec: AttentionPatternSpec, progress: Progress) -> AttentionPatternResult:
    """The same for a batch of the family's own type: any stack, and its attention to another."""
    stack = stack_of(model, spec.stack)
    sites = place_sites(model, stack, spec.layers, cross=spec.cross)
    queries = read_places(model, inputs, stack)
    keys = read_places(model, inputs, stack_of(model, "")) if spec.cross else queries
    parts, heads = [], []
    for part, batch in queries.passes(device_of(model)):
        trace = model.run(batch, capture=sites, logits=None)
        patterns = torch.stack([trace[site].detach().cpu() for site in sites])
        heads = check_heads(spec.heads, patterns.shape[2])
        check_cells(len(sites) * len(heads) * len(queries) * queries.width * keys.width, spec.max_cells, "patterns")
        parts.append(patterns[:, :, heads])
        progress(part.stop, len(queries), "items")
    patterns = torch.cat(parts, dim=1).transpose(1, 2).double()
    both = (queries.real[:, :, None] & keys.real[:, None, :])[None, None]
    if not bool(torch.isfinite(patterns.masked_fill(~both, 0.0)).all()):
        raise BadValue("the attention pattern", "NaN or infinity at a real position", "finite numbers", do="The weights are broken.")
    away = (patterns.sum(-1) - 1).abs().masked_fill(~queries.real[None, None], 0.0)
    first = patterns[..., 0].masked_fill(~queries.real, 0.0).sum(-1) / queries.lengths
    values = xr.Dataset(
        {
            "pattern": (("layer", "head", "batch", "query", "key"), patterns.masked_fill(~both, float("nan")).numpy()),
            "to_first": (("layer", "head", "batch"), first.numpy()),
            "row_error": (("layer", "head"), away.amax(dim=(2, 3)).numpy()),
        },
        coords={
            "layer": [site.layer for site in sites],
            "head": heads,
            "batch": np.arange(len(queries)),
            "query": np.arange(queries.width),
            "key": np.arange(keys.width),
            "query_token": (("batch", "query"), queries.pieces),
            "key_token": (("batch", "key"), keys.pieces),
        },
    )
    values = with_picture(with_picture(values, model, queries, "query"), model, keys, "key")
    where = f"{stack or 'the only'} stack{' reading the first' if spec.cross else ''}"
    return AttentionPatternResult(
        kind=INSTRUMENT.name,
        values=values,
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=None, dtype=model_dtype(model), **queries.data()),
        notes=(
            f"Attention of {where}; positions are {queries.pieces[0][0]} to {queries.pieces[0][-1] or 'the end'}.",
            *noise_note(queries),
        ),
    )


# --- result and plot ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AttentionPatternResult(Result):
    """``pattern`` (NaN at padding), ``to_first`` the mean weight a head puts on position 0, ``row_error`` the largest distance of a row's
    sum from one; ``picture`` and ``box`` where keys (or, of words, the queries) are parts of a picture."""

    columns: ClassVar[tuple[str, ...]] = (
        "layer", "head", "batch", "query", "key", "query_token", "key_token", "pattern", "to_first", "row_error",
    )  # fmt: skip

    aside: ClassVar[tuple[str, ...]] = AXES

    def summary(self) -> str:
        """Sizes, the heads that rest on the first token, and the largest row error."""
        v: Any = self.values
        resting = int((v.to_first.mean("batch") > 0.5).sum())
        return (
            f"{self.kind}: {v.sizes['layer']} layers x {v.sizes['head']} heads on {len(v.batch)} items; {resting} heads put more than half "
            f"of their attention on position 0; rows sum to one within {float(v.row_error.max()):.1e}."
        )

    def plot(self) -> Any:
        """Item 0: one map a head, the first layers and heads only where there are many. Where positions are parts of a picture, the map is
        laid over it: what each head reads, or (keys are words) from where each word is read."""
        if shows_picture(self.values):
            return over_keys(self.values) if self.values.attrs["picture"]["along"] == "key" else over_queries(self.values)
        item: Any = self.values.isel(batch=0)
        real = ~np.isnan(item.pattern.values[0, 0]).all(axis=1)
        read = ~np.isnan(item.pattern.values[0, 0]).all(axis=0)
        tokens, keys = ([str(t) for t in item[name].values[kept]] for name, kept in (("query_token", real), ("key_token", read)))
        heads = [(layer, head) for layer in range(len(item["layer"])) for head in range(len(item["head"]))]
        maps = []
        for layer, head in heads[:MOST_MAPS]:
            pattern = item.pattern.values[layer, head][np.ix_(real, read)]
            name = f"Layer {int(item['layer'][layer])}, head {int(item['head'][head])}"
            other = keys if keys != tokens else None
            causal = other is None and is_causal(pattern)
            maps.append(attention_map(pattern, tokens, title=name, key_tokens=other, causal=causal))
        title = f"Attention patterns of item 0, {len(maps)} of {len(heads)} heads"
        return maps[0] if len(maps) == 1 else joined(maps, title, columns=2)


def over_keys(values: Any) -> Any:
    """Item 0: what each head reads of the picture, from the class token where there is one, else on average over the queries."""
    item = values.isel(batch=0)
    names, keys = item.query_token.values, item.key_token.values
    first = bool(names[0] == "class")
    count = int((names != "").sum())
    reader = "the class token" if first else f"the mean of {count} positions" if count > 1 else "the only position"
    heads = [(layer, head) for layer in range(len(item["layer"])) for head in range(len(item["head"]))]
    panels = [picture_alone(values, 0, f"Item 0: {words_of(values)}")]
    for layer, head in heads[: MOST_MAPS - 1]:
        pattern = item.pattern.values[layer, head]
        read = pattern[0] if first else pattern[names != ""].mean(0)
        title = f"Layer {int(item['layer'][layer])}, head {int(item['head'][head])}"
        panels.append(over_picture(values, 0, read, keys, title=title, unit="attention weight"))
    return joined(panels, f"What {reader} reads of item 0, {len(panels) - 1} of {len(heads)} heads", columns=_columns(values))


def over_queries(values: Any) -> Any:
    """Item 0: how much each part of the picture reads each word, the mean over the heads of the last layer."""
    item = values.isel(batch=0, layer=-1)
    pattern, words = item.pattern.values.mean(0), item.key_token.values  # query key
    told = [place for place in range(len(words)) if words[place] != ""]
    panels = [picture_alone(values, 0, f"Item 0: {words_of(values)}")]
    for place in told[: MOST_MAPS - 1]:
        title = f"Reading '{str(words[place]).strip()}' (word {place})"
        panels.append(over_picture(values, 0, pattern[:, place], item.query_token.values, title=title, unit="attention weight"))
    heads = f"layer {int(item['layer'])}, mean of {len(item['head'])} heads"
    return joined(panels, f"Where each word is read in item 0, {heads}, {len(panels) - 1} of {len(told)} words", columns=_columns(values))


def _columns(values: Any) -> int:
    return 4 if values.attrs["picture"]["square"] else 2


INSTRUMENT = Instrument(
    name="attention-pattern",
    question="Which earlier tokens does each head read from?",
    spec=AttentionPatternSpec,
    needs=Needs(sites=(f"*{PATTERNS}",)),
    compute=compute,
)
