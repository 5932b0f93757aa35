"""Attention rollout: attention followed back through all layers, the residual stream counted as half.

    R_0 = I,   R_l = normalise_rows(0.5 mean_over_heads(A_l) + 0.5 I) R_{l-1}

``rollout[layer, batch, query, key]`` is R after that layer. It treats heads as equal, values as identical and MLPs as
absent; it is a description of routing, not of effect. By the method ``flow`` the same mixed weights are pipes instead, see
``probes.attention_flow``.

Source: Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020 (arXiv:2005.00928), section 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from probes.attention import PATTERNS, check_cells, is_causal, pattern_passes, pattern_sites
from probes.attention_flow import flow
from probes.target import model_dtype
from probes.token_items import TokenItems, origin, read_items
from workbench.core.charts.heat import attention_map
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress, silent
from workbench.core.result import Result
from workbench.core.spec import Spec, later


class AttentionRolloutSpec(Spec):
    """How attention is followed."""

    method: Literal["rollout", "flow"] = later("rollout", description="rollout: weights multiplied; flow: weights as the widths of pipes")
    residual: float = Field(default=0.5, ge=0, lt=1, description="the share of each step that stays at its own position")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    max_cells: int = Field(default=20_000_000, ge=1, description="numbers kept at most")
    max_flows: int = later(200_000, ge=1, description="maximum flows found at most, one a layer, item, query and key")
    tokens_a_pass: int = Field(default=4096, ge=1, description="tokens in one forward pass at most")


# --- compute ------------------------------------------------------------------------------------------------


def mixed_weights(patterns: Float[Tensor, "layer batch head query key"], residual: float) -> Float[Tensor, "layer batch query key"]:
    """What each step moves, in float64: the heads' mean and the share that stays; rows sum to one."""
    eye = torch.eye(patterns.shape[-1], dtype=torch.float64)
    mixed = (1 - residual) * patterns.double().mean(2) + residual * eye
    return mixed / mixed.sum(-1, keepdim=True)


def rollout(patterns: Float[Tensor, "layer batch head query key"], residual: float = 0.5) -> Float[Tensor, "layer batch query key"]:
    """Rollout after each layer, in float64; rows sum to one."""
    mixed = mixed_weights(patterns, residual)
    out = [mixed[0]]
    for step in mixed[1:]:
        out.append(step @ out[-1])
    return torch.stack(out)


def flows(
    passes: Iterable[tuple[slice, Float[Tensor, "layer batch head query key"]]], items: TokenItems, residual: float, progress: Progress
) -> Float[Tensor, "layer batch query key"]:
    """Attention flow after each layer, item by item on its real tokens; zero at padding."""
    lengths, out = items.lengths.tolist(), []
    for part, patterns in passes:
        for row, length in enumerate(lengths[part]):
            mixed = mixed_weights(patterns[:, row : row + 1, :, :length, :length], residual)[:, 0].numpy()
            found = np.zeros((len(mixed), items.width, items.width))
            found[:, :length, :length] = flow(mixed)
            out.append(torch.from_numpy(found))
            progress(len(out), len(items), "flows")
    return torch.stack(out, dim=1)


def compute(model: HookedModel, inputs: Inputs, spec: AttentionRolloutSpec, progress: Progress) -> AttentionRolloutResult:
    """Rollout, or flow, of every item through all layers. Raises BadValue above ``max_cells`` and ``max_flows``."""
    items = read_items(model, inputs, bos=spec.bos)
    sites = pattern_sites(model, None)
    width = items.ids.shape[1]
    check_cells(len(sites) * len(items) * width * width, spec.max_cells, spec.method)
    count = (len(sites) - 1) * int((items.lengths**2).sum())
    if spec.method == "flow" and count > spec.max_flows:
        raise BadValue("the number of maximum flows", f"up to {count:,}", f"at most max_flows = {spec.max_flows:,}",
                       do="Ask fewer or shorter items, or raise max_flows.")  # fmt: skip
    # Padding is cut out before rows are normalised, so that an item's numbers do not depend on what it is batched with.
    followed = spec.method == "rollout"
    passes = pattern_passes(model, items, sites, spec.tokens_a_pass, progress if followed else silent)
    if followed:
        found = torch.cat([rollout(patterns, spec.residual) for _, patterns in passes], dim=1)
    else:
        found = flows(passes, items, spec.residual, progress)
    found = found.masked_fill(~(items.real[:, :, None] & items.real[:, None, :]), float("nan"))
    values = xr.Dataset(
        {spec.method: (("layer", "batch", "query", "key"), found.numpy())},
        coords={
            "layer": [site.layer for site in sites],
            "batch": np.arange(len(items)),
            "query": np.arange(width),
            "key": np.arange(width),
            "query_token": (("batch", "query"), items.pieces),
            "key_token": (("batch", "key"), items.pieces),
        },
    )
    return (AttentionRolloutResult if followed else AttentionFlowResult)(
        kind=INSTRUMENT.name,
        values=values,
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=None, dtype=model_dtype(model), ids=items.ids, lengths=items.lengths),
        notes=(
            items.added,
            f"{spec.method.capitalize()} follows attention weights only: values, output projections and MLPs are not in it.",
        ),
    )


# --- result and plot ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AttentionRolloutResult(Result):
    """``rollout`` after each layer; NaN at padding."""

    columns: ClassVar[tuple[str, ...]] = ("layer", "batch", "query", "key", "query_token", "key_token", "rollout")
    measure: ClassVar[str] = "rollout"

    def summary(self) -> str:
        """For the first item, where the last token's rollout lands."""
        v: Any = self.values
        item = v.isel(batch=0, layer=-1)
        found = item[self.measure].values
        last = int((~np.isnan(found).all(axis=1)).nonzero()[0][-1])
        row = np.nan_to_num(found[last])
        best = int(row.argmax())
        return (
            f"{self.kind}: {len(v.layer)} layers, {len(v.batch)} items; in item 0 the last token's {self.how} most on "
            f"position {best} ('{str(item.key_token.values[best]).strip()}', {row[best]:.2f}) and {row[0]:.2f} on position 0."
        )

    @property
    def how(self) -> str:
        """What is said of where it goes."""
        return "attention lands"

    def plot(self) -> Any:
        """Item 0 after the last layer, as a map."""
        item: Any = self.values.isel(batch=0, layer=-1)
        whole = item[self.measure].values
        real = ~np.isnan(whole).all(axis=1)
        tokens = [str(t) for t in item.query_token.values[real]]
        found = whole[np.ix_(real, real)]
        title = f"Attention {self.measure} through {len(self.values['layer'])} layers, item 0"
        return attention_map(found, tokens, title=title, causal=is_causal(found))


@dataclass(frozen=True)
class AttentionFlowResult(AttentionRolloutResult):
    """``flow`` after each layer (0 to 1; the flows of a query do not add up to one); NaN at padding."""

    columns: ClassVar[tuple[str, ...]] = (*AttentionRolloutResult.columns[:-1], "flow")
    measure: ClassVar[str] = "flow"

    @property
    def how(self) -> str:
        return "attention can flow"


INSTRUMENT = Instrument(
    name="attention-rollout",
    question="If attention is followed back through all layers, at which input tokens does it land?",
    spec=AttentionRolloutSpec,
    needs=Needs(reads=("tokens",), sites=(PATTERNS,)),
    compute=compute,
)
