"""What the attention instruments share: which layers and heads, and the patterns themselves, captured under a memory cap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.target import device_of
from probes.token_items import TokenItems, rows_a_pass, slices
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel, Progress
from workbench.core.sites import Site

PATTERNS = "blocks.*.attn.hook_pattern"


def pattern_sites(model: HookedModel, layers: Sequence[int] | None) -> tuple[Site, ...]:
    """The pattern sites of the chosen layers (None: all), in the order asked. Raises BadValue for a layer that is not there."""
    by_layer = {site.layer: site for site in model.sites().select(PATTERNS)}
    if layers is None:
        return tuple(by_layer.values())
    _check_choice("layers", layers, len(by_layer))
    return tuple(by_layer[layer] for layer in layers)


def check_heads(heads: Sequence[int] | None, n_heads: int) -> list[int]:
    """The chosen heads (None: all). Raises BadValue for a head that is not there."""
    if heads is None:
        return list(range(n_heads))
    _check_choice("heads", heads, n_heads)
    return list(heads)


def check_cells(asked: int, most: int, what: str) -> None:
    """Raise BadValue before memory runs out, saying how much was asked for."""
    if asked > most:
        raise BadValue(f"the size of the {what}", f"{asked:,} numbers ({asked * 4 / 2**20:,.0f} MiB)", f"at most max_cells = {most:,}",
                       do="Choose fewer layers, heads or items, or raise max_cells.")  # fmt: skip


def pattern_passes(
    model: HookedModel, items: TokenItems, sites: Sequence[Site], tokens_a_pass: int, progress: Progress
) -> Iterator[tuple[slice, Float[Tensor, "layer batch head query key"]]]:
    """The items in slices with their patterns at ``sites``, on the CPU, zero where query or key is padding.

    Raises BadValue for NaN or infinity at a real token.
    """
    device = device_of(model)
    for part in slices(len(items), rows_a_pass(tokens_a_pass, items.ids.shape[1])):
        trace = model.run(items.given(model, part, device), capture=sites, logits=None)
        real = items.real[part]
        outside = ~(real[:, :, None] & real[:, None, :])[None, :, None]
        patterns = torch.stack([trace[site].detach().cpu() for site in sites]).masked_fill(outside, 0.0)
        if not bool(torch.isfinite(patterns).all()):
            raise BadValue("the attention pattern", "NaN or infinity at a real token", "finite numbers", do="The weights are broken.")
        yield part, patterns
        progress(part.stop, len(items), "items")


def row_error(patterns: Float[Tensor, "layer batch head query key"], items: TokenItems) -> Float[np.ndarray, "layer head"]:
    """The largest |row sum - 1| over real queries: above rounding it says that attention leaves the real tokens."""
    away = (patterns.double().sum(-1) - 1).abs().masked_fill(~items.real[None, :, None, :], 0.0)
    return away.amax(dim=(1, 3)).numpy()


def is_causal(pattern: Float[np.ndarray, "query key"]) -> bool:
    """Whether no query reads from a later key."""
    return not np.triu(pattern, 1).any()


def _check_choice(field: str, chosen: Sequence[int], count: int) -> None:
    if not chosen or min(chosen) < 0 or max(chosen) >= count or len(set(chosen)) != len(chosen):
        raise BadValue(field, list(chosen), f"different numbers from 0 to {count - 1}, at least one")
