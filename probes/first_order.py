"""First-order effects of patching: the change an activation would make, by the slope of the answer at the run that is patched.

    effect[c] = sum over c of (a'_c - a_c) * dm/da_c

from one run, one backward pass, and the activations that would be put there. Of queries and keys the slope is taken at the attention
pattern instead, which is recomputed with the patched query or key (the QK fix of Kramár et al. 2024): softmax saturates, and there its
own slope says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import einsum
from torch import Tensor

from probes.patch_cells import COMPONENTS, Place
from probes.patch_given import Source
from probes.patch_metric import Metric
from probes.patch_plan import Plan, finite
from probes.places import embedding_of, stack_of
from workbench.core.errors import BadValue
from workbench.core.protocol import Apply, Edit, Replace, Trace
from workbench.core.sites import Site
from workbench.core.tolerance import agree

QUERIES, KEYS = ("q", "rot_q"), ("k", "rot_k")
SUBLAYERS = ("hook_attn_out", "hook_cross_attn_out", "hook_mlp_out")


@dataclass(frozen=True)
class Slopes:
    """The metric ``[batch]`` of an unedited run, its activations, and its slope at each site: ``[row, *site]``, the slope of the sum over
    items or, where items are answers to each other, of each item ``[item, row, *site]``."""

    value: np.ndarray
    trace: Trace
    at: Mapping[str, Tensor]


@dataclass(frozen=True)
class FirstOrder:
    """The first-order effects of a plan's cells. ``fixed``: whether queries and keys are judged through their pattern."""

    plan: Plan
    fixed: bool
    steps: int

    def sites(self) -> tuple[Site, ...]:
        """What must be known of both runs besides the cells' sites."""
        table = self.plan.given.clean.model.sites()
        names = [name for layer in self._fixed_layers() for name in _parts_of(layer, table).values()]
        if self.steps > 1:
            names.append(embedding_of(self.plan.given.clean.model, stack_of(self.plan.given.clean.model, self.plan.spec.stack)).name)
        wanted = [name for name in dict.fromkeys(names) if not name.endswith(("hook_pattern", "hook_attn_scores"))]
        return tuple(table[name] for name in wanted)

    def effects(self, rows: slice, source: Source, drop: int | None = None) -> tuple[np.ndarray, np.ndarray, Metric]:
        """Effects ``[cell, batch]``, the unedited run's metric ``[batch]``, and the metric itself. ``drop``: a layer whose sublayers hand
        back no slope (GradDrop). Raises BadValue for slopes or activations that are not finite."""
        metric = self.plan.metric(rows, source)
        slopes = self._slopes(rows, metric, source, drop)
        out = np.zeros((len(self.plan.places), len(slopes.value)))
        for site, numbers in _by_site(self.plan.places).items():
            places = [self.plan.places[k] for k in numbers]
            if self.fixed and places[0].component in (*QUERIES, *KEYS):
                found, words = self._through_pattern(places[0], slopes, source), ("head", "pos")
            else:
                found, words = self._product(site, slopes, source), tuple(COMPONENTS[places[0].component].axes)
                found = _summed(found, site, [COMPONENTS[places[0].component].axes[word] for word in words])
            out[numbers] = _picked(found, words, places).double().cpu().numpy()
        if not np.isfinite(out).all():
            raise BadValue("the slope of the answer", "NaN or infinity", "finite", do="The model's weights are broken, or the metric is.")
        return out, slopes.value, metric

    # --- slopes ------------------------------------------------------------------------------------------------

    def _slopes(self, rows: slice, metric: Metric, source: Source, drop: int | None) -> Slopes:
        """With several steps, the slopes are their mean over midpoints of the straight way between the two inputs' embeddings."""
        model = self.plan.given.clean.model
        here = [model.sites()[name] for name in self._wanted()]
        whole = self._run(rows, metric, here, [], drop, slopes=self.steps == 1)
        if self.steps == 1:
            return whole
        embed = embedding_of(model, stack_of(model, self.plan.spec.stack)).name
        assert source.trace is not None
        start, way = whole.trace[embed], source.trace[embed] - whole.trace[embed]
        total: dict[str, Tensor] = {}
        for step in range(self.steps):
            point = Replace(embed, value=start + (step + 0.5) / self.steps * way)
            one = self._run(rows, metric, here, [point], drop)
            total = {name: total[name] + slope if total else slope for name, slope in one.at.items()}
        return Slopes(whole.value, whole.trace, {name: slope / self.steps for name, slope in total.items()})

    def _wanted(self) -> tuple[str, ...]:
        table = self.plan.given.clean.model.sites()
        names = {site.name for site in self.plan.sites} | {site.name for site in self.sites()}
        names |= {name for layer in self._fixed_layers() for name in _parts_of(layer, table).values()}
        return tuple(name for name in table if name in names)

    def _run(
        self, rows: slice, metric: Metric, sites: Sequence[Site], edits: Sequence[Edit], drop: int | None, *, slopes: bool = True
    ) -> Slopes:
        given, side = self.plan.given, self.plan.side
        which = "clean" if self.plan.noising else "corrupt"
        if not slopes:
            plain = side.model.run(side.batch(rows), capture=sites, logits=given.logits(rows), edit=edits)
            assert plain.logits is not None
            return Slopes(finite(metric(plain.logits), which), plain, {})
        leaves: dict[str, Tensor] = {}

        def zero(value: Tensor, site: Site) -> Tensor:
            # Adding zeros makes the slope one of a leaf, whether or not the fast path would have used what was heard.
            leaves[site.name] = torch.zeros_like(value).requires_grad_(True)
            return value + leaves[site.name]

        with torch.enable_grad():
            asked = [*edits, *(Apply(site.name, fn=zero) for site in sites), *self._dropped(drop)]
            trace = side.model.run(side.batch(rows), capture=sites, edit=asked, logits=given.logits(rows), grad=True)
            assert trace.logits is not None
            values = metric(trace.logits)
            wanted = list(leaves.values())
            if not given.together:
                found = torch.autograd.grad(values.sum(), wanted, allow_unused=True, materialize_grads=True)
            else:
                each = [torch.autograd.grad(one, wanted, retain_graph=True, allow_unused=True, materialize_grads=True) for one in values]
                found = [torch.stack(of_each) for of_each in zip(*each, strict=True)]
        plain = Trace(None, {name: value.detach() for name, value in trace.at.items()}, trace.sites)
        return Slopes(finite(values, which), plain, dict(zip(leaves, found, strict=True)))

    def _dropped(self, drop: int | None) -> list[Edit]:
        if drop is None:
            return []
        stack = stack_of(self.plan.given.clean.model, self.plan.spec.stack)
        table = self.plan.given.clean.model.sites().values()
        chosen = [site for site in table if site.layer == drop and site.stack == stack and site.tensor in SUBLAYERS]
        return [Apply(site.name, fn=lambda value, _: value.detach()) for site in chosen]

    # --- what would be put there ---------------------------------------------------------------------------------

    def _change(self, site: Site, slopes: Slopes, source: Source) -> Tensor:
        """a' - a; zero where both are the same, as two scores that are minus infinity."""
        here = slopes.trace[site]
        there = torch.zeros_like(here) if source.trace is None else source.trace[site].to(here.device, here.dtype)
        if there.shape != here.shape:
            raise BadValue(
                f"the captured '{site.name}'", tuple(there.shape), f"of shape {tuple(here.shape)}, as in the run that is patched"
            )
        change = torch.where(there == here, torch.zeros_like(here), there - here)
        if not bool(torch.isfinite(change).all()):
            raise BadValue(
                f"the change at '{site.name}'", "NaN or infinity", "finite: an effect to first order is change times slope",
                do="Patch it with activation-patching, which runs it.",
            )  # fmt: skip
        return change

    def _product(self, site: Site, slopes: Slopes, source: Source) -> Tensor:
        """``[batch, *site]``: change times slope, of each item alone; where items are answers to each other, summed over rows."""
        change, slope = self._change(site, slopes, source), slopes.at[site.name]
        product = change * slope
        return product.sum(1) if self.plan.given.together else product

    # --- the QK fix ----------------------------------------------------------------------------------------------

    def _fixed_layers(self) -> list[Place]:
        """A cell of each layer whose queries or keys are judged through the pattern."""
        if not self.fixed:
            return []
        return list({place.layer: place for place in self.plan.places if place.component in (*QUERIES, *KEYS)}.values())

    def _through_pattern(self, place: Place, slopes: Slopes, source: Source) -> Tensor:
        """``[batch, head, pos]`` (of keys: kv_head), or ``[batch, head, 1]`` where a cell is all positions: the slope at the pattern times
        what the pattern changes by when it is computed again."""
        table = self.plan.given.clean.model.sites()
        names = _parts_of(place, table)
        q, k = slopes.trace[names["q"]], slopes.trace[names["k"]]
        scores, pattern, slope = slopes.trace[names["scores"]], slopes.trace[names["pattern"]], slopes.at[names["pattern"]]
        groups, scale = q.shape[2] // k.shape[2], 1 / math.sqrt(q.shape[-1])
        wide = lambda x: x.repeat_interleave(groups, dim=2).to(scores.dtype)  # noqa: E731
        _check_scores(q.to(scores.dtype), wide(k), scale, scores, names["scores"])
        is_query = place.component in QUERIES
        change = self._change(table[names["q" if is_query else "k"]], slopes, source)
        a, b = (change.to(scores.dtype), wide(k)) if is_query else (q.to(scores.dtype), wide(change))
        moved = einsum(a, b, "b q h d, b k h d -> b h q k") * scale
        if is_query:
            return self._gathered((slope * (_softmax(scores + moved) - pattern)).sum(-1))
        if "pos" in place.at:
            each = _one_key(pattern, moved, slope)
        else:
            each = (slope * (_softmax(scores + moved) - pattern)).sum((-2, -1)).unsqueeze(-1)
        return self._gathered(each).unflatten(1, (-1, groups)).sum(2)

    def _gathered(self, each: Tensor) -> Tensor:
        """Summed over rows where items are answers to each other (``[item, batch, …]``)."""
        return each.sum(1) if self.plan.given.together else each


def _one_key(pattern: Tensor, moved: Tensor, slope: Tensor) -> Tensor:
    """``[batch, head, key]``: the effect of changing one key's score by ``moved`` in every query's softmax, in closed form.

    With one score raised by d, the pattern p becomes p / z elsewhere and p e^d / z there, z = 1 + p (e^d - 1).
    """
    grow = torch.expm1(moved)
    z = 1 + pattern * grow
    before = (slope * pattern).sum(-1, keepdim=True)
    return ((before + slope * pattern * grow) / z - before).sum(-2)


def _softmax(scores: Tensor) -> Tensor:
    """Zeros for a query with no key."""
    nothing = (scores == -math.inf).all(-1, keepdim=True)
    return scores.masked_fill(nothing, 0.0).softmax(-1).masked_fill(nothing, 0.0)


def _check_scores(q: Tensor, k: Tensor, scale: float, scores: Tensor, name: str) -> None:
    """Raise BadValue where attention is not by q k / sqrt(d_head)."""
    own = einsum(q, k, "b q h d, b k h d -> b h q k") * scale
    if not agree(torch.where(torch.isfinite(scores), own, 0.0), torch.where(torch.isfinite(scores), scores, 0.0), "logits"):
        raise BadValue(
            "qk_fix", True, f"false for this model: '{name}' is not q·k / √d_head there", do="Leave it out with `--set qk_fix=false`."
        )


def _parts_of(place: Place, table: Mapping[str, Site]) -> dict[str, str]:
    """The sites of a layer's queries, keys (turned, where they are), scores and pattern."""
    before = place.site.name.rpartition("hook_")[0]
    turned = "rot_" if f"{before}hook_rot_q" in table else ""
    return {
        "q": f"{before}hook_{turned}q", "k": f"{before}hook_{turned}k",
        "scores": f"{before}hook_attn_scores", "pattern": f"{before}hook_pattern",
    }  # fmt: skip


# --- cells --------------------------------------------------------------------------------------------------------


def _by_site(places: Sequence[Place]) -> dict[Site, list[int]]:
    out: dict[Site, list[int]] = {}
    for k, place in enumerate(places):
        out.setdefault(place.site, []).append(k)
    return out


def _summed(product: Tensor, site: Site, axes: Sequence[str]) -> Tensor:
    """``[batch, *axes]``: the other axes summed, in float64."""
    places = [site.axis(word) for word in axes]
    others = [k for k in range(1, product.ndim) if k not in places]
    total = product.double().sum(others) if others else product.double()
    left = sorted(places)
    return total.permute(0, *[1 + left.index(k) for k in places])


def _picked(found: Tensor, words: Sequence[str], places: Sequence[Place]) -> Tensor:
    """``[cell, batch]`` of ``[batch, *words]``: words a cell does not name are summed."""
    named = [word for word in words if word in places[0].at]
    gone = [1 + k for k, word in enumerate(words) if word not in named]
    found = found.sum(gone) if gone else found
    numbers = [torch.tensor([place.at[word] for place in places], device=found.device) for word in named]
    return found[:, *numbers].T if named else found.unsqueeze(0).expand(len(places), -1)
