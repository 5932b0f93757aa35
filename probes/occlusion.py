"""Occlusion: what the answer loses when a position, a window or a named group is taken away.

    attribution_j = f(x) - f(x without j)

An effect of several positions together is shared evenly by them; a position in several windows gets the mean of its shares.

Source: Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014 (arXiv:1311.2901); of words, Li, Monroe and
Jurafsky, Understanding Neural Networks through Representation Erasure, 2016 (arXiv:1612.08220).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from pydantic import Field, model_validator

from probes.asked import ask
from probes.attribution import AttributionResult, attribution_values
from probes.gradient_once import ANSWERS, GradientSpec
from probes.pictures import with_picture
from probes.places import noise_note
from probes.players import Players, players_of
from probes.removal import Replacement, replacement_of
from probes.token_items import origin
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress


class OcclusionSpec(GradientSpec):
    """What is explained, what is taken away together, and what stands in its place."""

    filler: Replacement = Field(default="zero", description="what stands where a position was taken away")
    filler_id: int | None = Field(default=None, description="the id of the filler 'token'; None is the mask or padding id")
    window: int = Field(default=1, ge=1, description="neighbouring positions taken away together")
    stride: int = Field(default=1, ge=1, description="positions from one window to the next")

    @model_validator(mode="after")
    def _fits(self) -> OcclusionSpec:
        if self.stride > self.window:
            raise ValueError(f"stride at most as many as window, or positions are left out, not {self.stride} > {self.window}")
        return self


def windows(players: Players, row: int, spec: OcclusionSpec) -> Bool[np.ndarray, "n pos"]:
    """Positions of an item taken away together, one row each: its players, or runs of ``window`` of them."""
    count = int(players.count[row])
    first = np.arange(0, max(count - spec.window, 0) + spec.stride, spec.stride)
    gone = (np.arange(count) >= first[:, None]) & (np.arange(count) < first[:, None] + spec.window)
    return ~players.kept(row, ~gone)


def compute(model: HookedModel, inputs: Inputs, spec: OcclusionSpec, progress: Progress) -> OcclusionResult:
    """What each position's absence costs. One run for everything taken away, shared passes; raises BadValue as every attribution does."""
    if inputs.labels is not None and spec.window > 1:
        raise BadValue("window", spec.window, "1 where `labels` name the groups")
    asked = ask(model, inputs, spec)
    players = players_of(asked, inputs.labels)
    start, said = replacement_of(asked, spec.filler, spec.filler_id)
    gone = [windows(players, row, spec) for row in range(len(asked))]
    rows = np.repeat(np.arange(len(asked)), [len(one) for one in gone])
    found = asked.kept_values(torch.from_numpy(rows), torch.from_numpy(~np.concatenate(gone)), start).numpy()
    attribution = np.zeros((len(asked), asked.items.width))
    for row, one in enumerate(gone):
        share = (asked.value[row].item() - found[rows == row]) / one.sum(1)
        attribution[row] = (one * share[:, None]).sum(0) / np.maximum(one.sum(0), 1)
    progress(len(asked), len(asked), "items")
    items, target = asked.items, asked.target
    values = attribution_values(items, target, attribution, asked.value, torch.from_numpy(players.candidate))
    together = () if spec.window == 1 else (f"Taken away {spec.window} at a time; each position gets the mean of its even shares.",)
    return OcclusionResult(
        kind=INSTRUMENT.name,
        values=with_picture(values, model, items),
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=None, dtype=asked.x.dtype, targets=target.ids, foils=target.foils, positions=target.positions,
                          players=players.number, start=start, **items.data()),
        notes=(said, *(together or (players.note,)), *noise_note(items)),
    )  # fmt: skip


@dataclass(frozen=True)
class OcclusionResult(AttributionResult):
    """AttributionResult in units of the target's scalar."""


INSTRUMENT = Instrument(
    name="occlusion",
    question="What does the answer lose when a token, a window or a named group is taken away?",
    spec=OcclusionSpec,
    needs=Needs(reads=ANSWERS, abilities=frozenset({"logits", "edit"}), sites=("*hook_embed",), inputs=("batch", "targets")),
    compute=compute,
)
