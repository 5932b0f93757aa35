"""All heads of a model on one input at once, from one forward pass, and one of them whole.

All patterns of a long text on a deep model are too many numbers to keep or to send; what is kept of each head is a small picture and two
numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from probes.places import is_own_batch
from probes.target import device_of
from workbench.core.charts.cells import pictures
from workbench.core.charts.multiples import picture_of
from workbench.core.charts.patterns import counted, pattern_view
from workbench.core.errors import BadValue, Incompatible
from workbench.core.protocol import HookedModel, Inputs
from workbench.core.sites import Site
from workbench.lab.pokes import batch_of

MAPPED = 64
"""Tokens up to which the rollout is drawn, weight by weight."""
KEPT = 40_000_000
"""Weights of all heads together that are kept, so that looking at another head runs nothing; as the model made them, since counting all
of them for the one that is looked at takes longer than the pictures."""


@dataclass(frozen=True)
class Stack:
    """Layers that have attention patterns: ``name`` of the stack ('' is the only one), ``cross`` whether they read the other stack."""

    name: str
    cross: bool
    layers: tuple[int, ...]

    @property
    def words(self) -> str:
        own = self.name or "the layers"
        return f"{own}, reading the first stack" if self.cross else own


def stacks(model: HookedModel) -> tuple[Stack, ...]:
    """The stacks with patterns, in order. Raises Incompatible where there are none."""
    found: dict[tuple[str, bool], list[int]] = {}
    for site in model.sites().values():
        if site.tensor == "hook_pattern" and site.layer is not None:
            found.setdefault((site.stack, ".cross_attn." in f".{site.name}"), []).append(site.layer)
    if not found:
        raise Incompatible("attention", f"this {model.family} model", ["it has no attention patterns"])
    return tuple(Stack(name, cross, tuple(sorted(set(layers)))) for (name, cross), layers in found.items())


def sites_of(model: HookedModel, stack: Stack) -> list[Site]:
    """The pattern sites of a stack by layer."""
    mine = [
        site for site in model.sites().values()
        if site.tensor == "hook_pattern" and site.stack == stack.name and (".cross_attn." in f".{site.name}") == stack.cross
    ]  # fmt: skip
    return sorted((site for site in mine if site.layer is not None), key=lambda site: site.layer or 0)


@dataclass(frozen=True)
class HeadViews:
    """Every head of a stack on one input: small pictures, the weight on the first position and on the position before (means over
    queries), how many positions there are, and where they are few enough the patterns themselves, ``[head, query, key]`` of each layer."""

    stack: Stack
    heads: int
    sources: tuple[tuple[str, ...], ...]
    to_first: np.ndarray
    to_last: np.ndarray
    width: int
    patterns: tuple[np.ndarray, ...] | None = None

    def grid(self, chosen: str = "") -> dict[str, Any]:
        """The pictures as a grid to press."""
        rows, columns = [f"layer {layer}" for layer in self.stack.layers], [f"head {head}" for head in range(self.heads)]
        said = [
            [
                f"Layer {layer}, head {head}: {self.to_first[i, head]:.0%} on the first position, "
                f"{self.to_last[i, head]:.0%} on the one before"
                for head in range(self.heads)
            ]
            for i, layer in enumerate(self.stack.layers)
        ]
        return pictures(self.sources, said, rows, columns, title=f"All heads{chosen}", unit="attention weight")


def head_views(model: HookedModel, given: str | Inputs, stack: Stack) -> HeadViews:
    """One forward pass, all patterns of a stack; of a batch, its first item. Raises BadValue for a prompt that cannot be read."""
    sites = sites_of(model, stack)
    if isinstance(given, str):
        batch: Any = batch_of(model, given)
    else:
        batch = given.batch.to(device_of(model)) if hasattr(given.batch, "to") else given.batch
    trace = model.run(batch, capture=sites, logits=None)
    sources, first, last, kept, length = [], [], [], [], 0
    for site in sites:  # one layer at a time: all of them would be copied whole
        item = trace[site][0].detach().float().cpu()
        layer = item.numpy()
        length = _length(given, layer.shape[-2], batch, model)
        layer = layer[:, :length] if stack.cross else layer[:, :length, :length]
        if not np.isfinite(layer.sum()):
            raise BadValue("the attention patterns", "NaN or infinity", "finite numbers", do="The weights are broken.")
        sources.append(tuple(picture_of(head) for head in layer))
        before = np.diagonal(layer, offset=-1, axis1=1, axis2=2)
        first.append(layer[..., 0].mean(-1))
        last.append(before.mean(-1) if before.shape[-1] else np.zeros(len(layer)))
        if layer.size * len(sites) <= KEPT:
            shares = item.untyped_storage().nbytes() > layer.nbytes  # a view would keep what the model made for the whole batch
            kept.append(layer.copy() if shares else layer)
    return HeadViews(stack, len(sources[0]), tuple(sources), np.stack(first), np.stack(last), length, tuple(kept) or None)


def _length(given: str | Inputs, width: int, batch: Any, model: HookedModel) -> int:
    """How many positions of the first item are real, where its mask says so."""
    mask = getattr(batch, "mask", None)
    if isinstance(given, str) or not isinstance(mask, Tensor) or not is_own_batch(model, batch) or mask.shape[1] != width:
        return width
    return int(mask[0].sum())


def one_head(result: Any) -> dict[str, Any]:
    """The only head of an attention pattern (item 0) as plain values to look at (``core.charts.patterns``)."""
    item = result.values.isel(batch=0, layer=0, head=0)
    known = np.isfinite(item.pattern.values)
    rows, columns = known.any(axis=1), known.any(axis=0)
    queries, keys = ([str(token) for token in item[name].values[real]] for name, real in (("query_token", rows), ("key_token", columns)))
    weights = item.pattern.values[np.ix_(rows, columns)]
    return pattern_view(counted(weights), queries, keys, title=title_of(int(item.layer), int(item["head"])))


def kept_head(views: HeadViews, layer: int, head: int, tokens: Sequence[str]) -> dict[str, Any] | None:
    """The same of a stack's own attention out of what was kept of all heads, or None where nothing was. ``tokens``: those of the text."""
    if views.patterns is None or views.stack.cross:
        return None
    weights = views.patterns[views.stack.layers.index(layer)][head]
    return pattern_view(counted(weights), tokens, tokens, title=title_of(layer, head))


def title_of(layer: int, head: int) -> str:
    return f"Layer {layer}, head {head}"


def one_query(result: Any, query: int) -> tuple[Sequence[str], np.ndarray]:
    """What one position of a single head reads: the keys' tokens with their weights (item 0)."""
    item = result.values.isel(batch=0, layer=0, head=0)
    known = np.isfinite(item.pattern.values).any(axis=0)
    rows = int(np.isfinite(item.pattern.values).any(axis=1).sum())
    if not 0 <= query < rows:
        raise BadValue("the position that reads", query, f"from 0 to {rows - 1}")
    return [str(token) for token in item.key_token.values[known]], item.pattern.values[query][known]
