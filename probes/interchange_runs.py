"""Interchange interventions: runs of a base item in which a subspace of one activation is what it was in a source item's run.

    x  <-  x + (s - x) Q Q^T          x the base's activation, s the source's, Q [feature, dim] with orthonormal columns

What is not along Q stays the base's. With Q the identity the whole activation is exchanged; with Q = 0 nothing is.

Source: Geiger, Lu, Icard and Potts, Causal Abstractions of Neural Networks, NeurIPS 2021 (arXiv:2106.02997).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.attention import check_cells
from probes.patch_given import Side
from probes.target import device_of, read_target
from probes.token_items import TokenItems, read_items, rows_a_pass
from workbench.core.errors import BadValue
from workbench.core.protocol import Apply, HookedModel, Inputs, Resume
from workbench.core.sites import Site

STREAM = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post")
"""The ends of names of sites at which a run may begin."""


@dataclass(frozen=True)
class Pairs:
    """Base items, each with its source and the answer that is right once the variable is the source's.

    ``answers`` are the ids that are chosen among, ``wanted`` ``[pair]`` the place of the right one in it. ``here`` and ``there``
    ``[pair, place]`` are the positions exchanged in base and source (-1: no such position).
    """

    base: TokenItems
    source: TokenItems
    answers: Int[Tensor, " answer"]
    wanted: Int[Tensor, " pair"]
    here: Int[Tensor, "pair place"]
    there: Int[Tensor, "pair place"]
    tokens_a_pass: int

    def __len__(self) -> int:
        return len(self.wanted)

    def parts(self, rows: Int[Tensor, " row"]) -> Sequence[Int[Tensor, " part"]]:
        """``rows`` in parts of one pass each."""
        return rows.split(rows_a_pass(self.tokens_a_pass, self.base.width))


def read_pairs(model: HookedModel, inputs: Inputs, position: int | None, everywhere: bool, bos: bool, tokens_a_pass: int) -> Pairs:
    """The pairs of ``inputs``. Raises BadValue for a source that is missing or does not fit, and for fewer than two different answers."""
    base = read_items(model, inputs, bos=bos)
    source = read_items(model, _source(inputs), bos=bos)
    if len(source) != len(base):
        raise BadValue("the number of items of inputs.reference", len(source), f"{len(base)}, one source for each item of inputs.batch")
    named = Inputs(inputs.batch, inputs.lengths, targets=inputs.targets, foils=inputs.foils)
    target = read_target(model, base, named, "logit" if inputs.foils is None else "logit-difference", None)
    answers, places = torch.unique(torch.cat([target.ids, *([] if target.foils is None else [target.foils])]), return_inverse=True)
    if len(answers) < 2:
        raise BadValue("inputs.targets", f"the one answer {int(answers[0])}", "at least two different answers, foils among them: with one "
                       "nothing is chosen")  # fmt: skip
    here, there = _places(base, source, position, everywhere)
    return Pairs(base, source, answers, places[: len(base)], here, there, tokens_a_pass)


def _source(inputs: Inputs) -> Inputs:
    given = inputs.reference
    if isinstance(given, Inputs):
        return given
    same = isinstance(given, Tensor) and isinstance(inputs.batch, Tensor) and given.shape == inputs.batch.shape
    return Inputs(given, inputs.lengths if same else None)


def _places(base: TokenItems, source: TokenItems, position: int | None, everywhere: bool) -> tuple[Tensor, Tensor]:
    if not everywhere:
        return _at(base, position, "inputs.batch")[:, None], _at(source, position, "inputs.reference")[:, None]
    if position is not None:
        raise BadValue("position", position, "left out where every position is exchanged")
    if differs := (base.lengths != source.lengths).nonzero().flatten().tolist():
        raise BadValue(
            f"the length of source {differs[0]}", f"{int(source.lengths[differs[0]])} tokens",
            f"{int(base.lengths[differs[0]])}, as its base has: every position is exchanged", do="Or exchange one (`where` position).",
        )  # fmt: skip
    width = int(base.lengths.max())
    every = torch.arange(width).expand(len(base), width)
    every = torch.where(every < base.lengths[:, None], every, -1)
    return every, every


def _at(items: TokenItems, position: int | None, what: str) -> Int[Tensor, " item"]:
    if position is None:
        return items.lengths - 1
    found = torch.full_like(items.lengths, position) if position >= 0 else items.lengths + position
    if bool(((found < 0) | (found >= items.lengths)).any()):
        raise BadValue("position", position, f"within every item of {what}; the shortest has {int(items.lengths.min())} tokens")
    return found


@dataclass(frozen=True)
class Held:
    """What the pairs' runs hold at one site: ``source`` at the positions exchanged (zero where there is none), and the whole stream of the
    bases where a run can begin there (None: it is run from its start, and the site is edited)."""

    site: str
    source: Float[Tensor, "pair place feature"]
    base: Float[Tensor, "pair pos feature"] | None = None


def held_at(model: HookedModel, pairs: Pairs, sites: Sequence[Site], max_cells: int) -> dict[str, Held]:
    """What is exchanged, by site, and what runs begin with. Raises BadValue above ``max_cells`` numbers, and where one is not finite."""
    begins = [site for site in sites if site.name.rsplit(".", 1)[-1] in STREAM and "start" in getattr(model, "resumes", ())]
    sources = _captured(model, pairs, pairs.source, sites, max_cells)
    bases = _captured(model, pairs, pairs.base, begins, max_cells) if begins else {}
    out = {}
    for site in sites:
        flat = sources[site.name]
        where = pairs.there.to(flat.device)
        index = where.clamp_min(0)[..., None].expand(-1, -1, flat.shape[-1])
        out[site.name] = Held(site.name, flat.gather(1, index) * (where >= 0)[..., None], bases.get(site.name))
    return out


def _captured(model: HookedModel, pairs: Pairs, items: TokenItems, sites: Sequence[Site], max_cells: int) -> dict[str, Tensor]:
    side, found = Side(model, items), {site.name: list[Tensor]() for site in sites}
    for rows in torch.arange(len(pairs)).split(rows_a_pass(pairs.tokens_a_pass, items.width)):
        trace = model.run(side.batch(rows.tolist()), capture=sites, logits=None)
        for site in sites:
            flat = trace[site].detach().flatten(2)
            check_cells(items.ids.numel() * flat.shape[-1] * len(sites), max_cells, "activations")
            if not bool(flat[items.real[rows].to(flat.device)].isfinite().all()):
                raise BadValue(f"'{site.name}' in a run", "NaN or infinity", "finite", do="The model's weights are broken.")
            found[site.name].append(flat)
    return {name: torch.cat(parts) for name, parts in found.items()}


def exchanged(
    flat: Float[Tensor, "row pos feature"], source: Float[Tensor, "row place feature"], here: Int[Tensor, "row place"],
    along: Float[Tensor, "feature dim"],
) -> Float[Tensor, "row pos feature"]:  # fmt: skip
    """``flat`` with its part along ``along`` become that of ``source`` at the positions ``here`` (-1: nowhere)."""
    q, at = along.to(flat.device, flat.dtype), here.to(flat.device)
    index = at.clamp_min(0)[..., None].expand(-1, -1, flat.shape[-1])
    change = (source.to(flat.device, flat.dtype) - flat.gather(1, index)) @ q @ q.T
    return flat.scatter_add(1, index, change * (at >= 0)[..., None])


def answers_after(
    model: HookedModel, pairs: Pairs, rows: Int[Tensor, " row"], held: Held, along: Float[Tensor, "feature dim"] | None, *,
    grad: bool = False,
) -> Float[Tensor, "row answer"]:  # fmt: skip
    """The logits of the answers chosen among, at each base's last real token, in one pass; ``along`` None: nothing is exchanged.

    Raises BadValue where one is not finite.
    """
    asked, where = torch.unique(pairs.base.lengths[rows] - 1, return_inverse=True)
    batch, source, here = Side(model, pairs.base).batch(rows.tolist()), held.source[rows], pairs.here[rows]
    named: dict[str, Any] = {"logits": asked.tolist(), "grad": grad}
    if along is not None and held.base is not None:
        named["resume"] = Resume(start=held.site, residual=exchanged(held.base[rows], source, here, along))
    elif along is not None:
        moved = lambda old, site: exchanged(old.flatten(2), source, here, along).view(old.shape)  # noqa: E731
        named["edit"] = [Apply(held.site, fn=moved)]
    logits = model.run(batch, **named).logits
    assert logits is not None, "logits were asked for"
    found = logits[torch.arange(len(rows), device=logits.device), where.to(logits.device)][:, pairs.answers.to(logits.device)]
    if not bool(found.isfinite().all()):
        raise BadValue("an answer's logit", "NaN or infinity", "finite", do="The model's weights are broken.")
    return found


def credits(
    model: HookedModel, pairs: Pairs, rows: Int[Tensor, " row"], held: Held, along: Float[Tensor, "feature dim"] | None
) -> Float[Tensor, " row"]:  # fmt: skip
    """1 for each pair whose counterfactual answer comes out, 0 for one where another does; among equals its share of them."""
    out = []
    for part in pairs.parts(rows):
        logits = answers_after(model, pairs, part, held, along).detach().double().cpu()
        best = logits == logits.max(1, keepdim=True).values
        out.append(best.double()[torch.arange(len(part)), pairs.wanted[part]] / best.sum(1))
    return torch.cat(out)


def device_and_dtype(model: HookedModel, held: Held) -> tuple[torch.device, torch.dtype]:
    """Where directions are fitted, and in what: at least in float32."""
    return device_of(model), torch.promote_types(held.source.dtype, torch.float32)
