"""Attention rollout: attention followed back through all layers, the residual stream counted as half.

    R_0 = I,   R_l = normalise_rows(0.5 mean_over_heads(A_l) + 0.5 I) R_{l-1}

``rollout[layer, batch, query, key]`` is R after that layer. It treats heads as equal, values as identical and MLPs as
absent; it is a description of routing, not of effect.

Source: Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020 (arXiv:2005.00928), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from probes.attention import PATTERNS, check_cells, is_causal, pattern_passes, pattern_sites
from probes.target import model_dtype
from probes.token_items import origin, read_items
from workbench.core.charts.heat import attention_map
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.result import Result
from workbench.core.spec import Spec


class AttentionRolloutSpec(Spec):
    """How attention is followed."""

    residual: float = Field(default=0.5, ge=0, lt=1, description="the share of each step that stays at its own position")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    max_cells: int = Field(default=20_000_000, ge=1, description="numbers kept at most")
    tokens_a_pass: int = Field(default=4096, ge=1, description="tokens in one forward pass at most")


# --- compute ------------------------------------------------------------------------------------------------


def rollout(patterns: Float[Tensor, "layer batch head query key"], residual: float = 0.5) -> Float[Tensor, "layer batch query key"]:
    """Rollout after each layer, in float64; rows sum to one."""
    eye = torch.eye(patterns.shape[-1], dtype=torch.float64)
    mixed = (1 - residual) * patterns.double().mean(2) + residual * eye
    mixed = mixed / mixed.sum(-1, keepdim=True)
    out = [mixed[0]]
    for step in mixed[1:]:
        out.append(step @ out[-1])
    return torch.stack(out)


def compute(model: HookedModel, inputs: Inputs, spec: AttentionRolloutSpec, progress: Progress) -> AttentionRolloutResult:
    """Rollout of every item through all layers. Raises BadValue above ``max_cells``."""
    items = read_items(model, inputs, bos=spec.bos)
    sites = pattern_sites(model, None)
    width = items.ids.shape[1]
    check_cells(len(sites) * len(items) * width * width, spec.max_cells, "rollout")
    # Padding is cut out before rows are normalised, so that an item's numbers do not depend on what it is batched with.
    passes = pattern_passes(model, items, sites, spec.tokens_a_pass, progress)
    found = torch.cat([rollout(patterns, spec.residual) for _, patterns in passes], dim=1)
    found = found.masked_fill(~(items.real[:, :, None] & items.real[:, None, :]), float("nan"))
    values = xr.Dataset(
        {"rollout": (("layer", "batch", "query", "key"), found.numpy())},
        coords={
            "layer": [site.layer for site in sites],
            "batch": np.arange(len(items)),
            "query": np.arange(width),
            "key": np.arange(width),
            "query_token": (("batch", "query"), items.pieces),
            "key_token": (("batch", "key"), items.pieces),
        },
    )
    return AttentionRolloutResult(
        kind=INSTRUMENT.name,
        values=values,
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=None, dtype=model_dtype(model), ids=items.ids, lengths=items.lengths),
        notes=(items.added, "Rollout follows attention weights only: values, output projections and MLPs are not in it."),
    )


# --- result and plot ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AttentionRolloutResult(Result):
    """``rollout`` after each layer; NaN at padding."""

    columns: ClassVar[tuple[str, ...]] = ("layer", "batch", "query", "key", "query_token", "key_token", "rollout")

    def summary(self) -> str:
        """For the first item, where the last token's rollout lands."""
        v: Any = self.values
        item = v.isel(batch=0, layer=-1)
        last = int((~np.isnan(item.rollout.values).all(axis=1)).nonzero()[0][-1])
        row = np.nan_to_num(item.rollout.values[last])
        best = int(row.argmax())
        return (
            f"{self.kind}: {len(v.layer)} layers, {len(v.batch)} items; in item 0 the last token's attention lands most on "
            f"position {best} ('{str(item.key_token.values[best]).strip()}', {row[best]:.2f}) and {row[0]:.2f} on position 0."
        )

    def plot(self) -> Any:
        """Item 0 after the last layer, as a map."""
        item: Any = self.values.isel(batch=0, layer=-1)
        real = ~np.isnan(item.rollout.values).all(axis=1)
        tokens = [str(t) for t in item.query_token.values[real]]
        found = item.rollout.values[np.ix_(real, real)]
        title = f"Attention rollout through {len(self.values['layer'])} layers, item 0"
        return attention_map(found, tokens, title=title, causal=is_causal(found))


INSTRUMENT = Instrument(
    name="attention-rollout",
    question="If attention is followed back through all layers, at which input tokens does it land?",
    spec=AttentionRolloutSpec,
    needs=Needs(reads=("tokens",), sites=(PATTERNS,)),
    compute=compute,
)
