"""Edited versions of token sequences that agree up to somewhere, run so that what they share is computed once.

Where no token reads what comes after it, two versions that agree up to a position have the same keys and values up to there. The versions
are sorted, cut into stages along the positions, and in each stage every distinct beginning is one row that goes on from its own beginning's
past. Nothing is run behind the position whose logits are read. One run a version gives the same, up to rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.target import device_of
from probes.token_items import TokenItems
from workbench.core.protocol import HookedModel, Replace, Resume

if TYPE_CHECKING:
    from probes.asked import Asked

ENOUGH, STAGES = 512, 8
"""Tokens in a stage below which a run gains nothing from being cut further; stages at most."""
MEMORY = 256 << 20
"""Bytes of keys and values held at most."""


def can_share(model: HookedModel) -> bool:
    """Whether the model goes on from keys and values it left."""
    return "cache" in model.abilities and "past" in getattr(model, "resumes", frozenset())


def prefix_values(
    asked: Asked, rows: Int[Tensor, " n"], kept: Bool[Tensor, "n pos"], start: Float[Tensor, "batch pos d_model"]
) -> Float[Tensor, " n"]:
    """The scalar of each version, float64 on the CPU. For ``TokenItems`` of a model that ``can_share``."""
    positions = asked.target.positions[rows]
    keys = np.concatenate([positions[:, None].numpy(), rows[:, None].numpy(), kept.numpy()], axis=1)
    order = torch.from_numpy(np.lexsort(keys.T[::-1].copy()))
    out = torch.empty(len(rows), dtype=torch.float64)
    for part in _chunks(asked, positions[order]):
        here = order[part]
        out[here] = _chunk(asked, rows[here], kept[here], start)
    return out


def _chunks(asked: Asked, positions: Int[Tensor, " n"]) -> Iterator[slice]:
    """Sorted versions cut into what runs together: a budget of tokens, and of memory for keys and values."""
    first = asked.items.ids[:1, :1] if isinstance(asked.items, TokenItems) else torch.zeros(1, 1, dtype=torch.long)
    past = asked.model.run(first.to(device_of(asked.model)), logits=None, cache=True).past
    each = max(1, sum(held.nbytes for pair in past.layers for held in pair))
    budget = max(1, min(asked.tokens_a_pass, MEMORY // each))
    begin, listed = 0, positions.tolist()
    while begin < len(listed):
        end = begin + 1
        while end < len(listed) and (end + 1 - begin) * (listed[end] + 1) <= budget:
            end += 1
        yield slice(begin, end)
        begin = end


def cuts(count: int, shortest: int, longest: int) -> list[int]:
    """Where the stages of ``count`` versions begin and end: evenly up to the first position that is read, the last stage to the end."""
    stages = max(1, min(STAGES, shortest, count * longest // ENOUGH))
    edges = [shortest * k // stages for k in range(stages)]
    return [*edges, longest]


def _chunk(asked: Asked, rows: Tensor, kept: Tensor, start: Tensor) -> Tensor:
    items, model, device = asked.items, asked.model, asked.x.device
    assert isinstance(items, TokenItems)
    positions = asked.target.positions[rows]
    edges = cuts(len(rows), int(positions.min()) + 1, int(positions.max()) + 1)
    group, past = torch.zeros(len(rows), dtype=torch.long), None
    for begin, end in itertools.pairwise(edges):
        last = end == edges[-1]
        new = torch.ones(len(rows), dtype=torch.bool)
        if not last:  # sorted, so versions with one beginning lie together
            new[1:] = (rows[1:] != rows[:-1]) | (kept[1:, :end] != kept[:-1, :end]).any(1)
        lead = new.nonzero()[:, 0]
        at, standing = rows[lead].to(device), kept[lead, begin:end].to(device)[..., None]
        value = torch.where(standing, asked.x[at, begin:end], start[at, begin:end])
        resume = None if past is None else Resume(past=past.rows(group[lead].to(device)))
        read: Any = (positions - begin)[:, None].to(device) if last else None
        ids = items.ids[rows[lead], begin:end].to(device)
        trace = model.run(ids, edit=[Replace(asked.site, value=value)], logits=read, resume=resume, cache=not last)
        if last:
            assert trace.logits is not None
            return asked.target.rows(rows).read(trace.logits[:, 0]).detach().double().cpu()
        group, past = new.long().cumsum(0) - 1, trace.past
    raise AssertionError("the last stage returns")
