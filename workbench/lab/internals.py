"""From failure to internals: which heads and MLPs carry a failure, and whether taking them out mends it on items not looked at before.

Items of a failed suite are divided by cluster into a half to locate on and a half to test on; where the clusters are few, into as many to
locate on as can decide and the rest to test on. On the first, every part (each head's output
``hook_z``, each layer's ``hook_mlp_out``) is replaced by its mean over the items, and compared, item by item, with changes of the same part
by random vectors of the same length at each token: a part *carries* the failure when replacing it takes away more of it than random changes
of equal size do (paired permutation over clusters, one-sided, Holm over all parts). The smallest set of carrying parts, strongest first,
that takes away most of the failure is the *repair*. On the others, and on ordinary texts, it is compared with random sets of as many
other parts: what it does to the failure, and what it costs.

A repair that works shows where the failure can be cut, not that nothing else could carry it: parts that stand in for one another are found
only as far as the first of them. Mean ablation: Wang et al. 2023; controls of equal size: an in-model null.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from workbench.core.errors import BadValue
from workbench.core.protocol import Apply, Edit, HookedModel, Progress, Replace, silent
from workbench.core.result import Provenance, Result
from workbench.core.sites import Site
from workbench.core.spec import Spec
from workbench.core.stats.multiplicity import holm
from workbench.core.stats.permutation import paired_permutation
from workbench.engine.sweep import sweep

KIND = "failure-internals"
CELLS = 30_000_000
"""Logits of ordinary texts that are made at a time."""
LEAST_HELD = 4
"""Clusters that a repair is tested on at least."""


class InternalsSpec(Spec):
    """``alpha`` of Holm's procedure; ``controls`` random changes a part; ``most`` parts in a repair; ``enough``: a repair that takes away
    this share of the failure needs no further part; ``sets`` random sets that the repair is compared with; ``draws`` of a permutation."""

    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    controls: int = Field(default=3, ge=1)
    most: int = Field(default=6, ge=1)
    enough: float = Field(default=0.8, gt=0, le=1)
    sets: int = Field(default=8, ge=2)
    draws: int = Field(default=4999, ge=99)
    seed: int = 0


@dataclass(frozen=True)
class Failure:
    """What fails. ``batch`` [row, pos] token ids, right-padded, of ``lengths`` [row]; ``clusters`` one an item; ``ordinary`` texts
    [text, pos] of ``ordinary_lengths``, on which capability is the log-likelihood of their tokens. ``unit`` is that of the score.

    How much an item fails (0: not at all) is ``score(logits, items)`` of the logits [item, d_vocab] at the last token, a row an item; or,
    without one, the sum over its rows of ``weights`` [item, row of it] times the log-likelihood of the row's tokens from ``starts`` [row].
    """

    of: str
    batch: Tensor
    lengths: Tensor
    score: Callable[[Tensor, Tensor], Tensor] | None
    clusters: Sequence[str]
    ordinary: Tensor
    ordinary_lengths: Tensor
    unit: str = "log-odds"
    starts: Tensor | None = None
    weights: Tensor | None = None


@dataclass(frozen=True)
class Part:
    """A head of a layer, or a layer's MLP (``head`` None)."""

    layer: int
    head: int | None

    @property
    def name(self) -> str:
        return f"mlp {self.layer}" if self.head is None else f"head {self.layer}.{self.head}"

    @property
    def site(self) -> str:
        return f"blocks.{self.layer}." + ("hook_mlp_out" if self.head is None else "attn.hook_z")

    @property
    def at(self) -> dict[str, Any]:
        return {} if self.head is None else {"head": self.head}


@dataclass(frozen=True)
class InternalsResult(Result):
    """``effect`` and ``control`` [part, item]: how much of the failure replacing the part, and changing it at random, takes away; ``p``,
    ``holm`` [part]; ``chosen`` [part]. On the held half ``failure``, ``repaired`` [held] and ``random`` [set, held]; on ordinary texts
    ``nats``, ``repaired_nats`` [text], ``random_nats`` [set, text] a token. ``cluster`` [item], ``held_cluster`` [held]."""

    def summary(self) -> str:
        v = self.values
        names = [str(name) for name in v.part.values[v.chosen.values]]
        if not names:
            return f"{v.attrs['of']}: no part carries the failure beyond random changes of equal size ({v.sizes['part']} parts, Holm)"
        before, after = float(v.failure.mean()), float(v.repaired.mean())
        cost = float((v.repaired_nats - v.nats).mean())
        found = f"{before:.3g} becomes {after:.3g} on held-out items, at {cost:+.3g} nats a token"
        return f"{v.attrs['of']}: {', '.join(names)} carry it; without them {found}"


def parts_of_model(model: HookedModel) -> list[Part]:
    """Every head and MLP of a decoder. Raises BadValue for a model whose layers are in several stacks."""
    sites = model.sites()
    layers = sorted({site.layer for site in sites.values() if site.layer is not None})
    if any(f"blocks.{layer}.attn.hook_z" not in sites for layer in layers):
        raise BadValue("the model", model.family, "a decoder or encoder of one stack, whose layers are called blocks.0 …")
    heads = int(model.config.n_heads)
    return [Part(layer, head) for layer in layers for head in (*range(heads), None)]


def locate(model: HookedModel, failure: Failure, spec: InternalsSpec | None = None, progress: Progress = silent) -> InternalsResult:
    """Which parts carry the failure, and what taking them out does. Raises BadValue for fewer clusters than can decide."""
    spec = spec or InternalsSpec()
    parts, rng = parts_of_model(model), random.Random(spec.seed)
    here, held = _halves(failure.clusters, clusters_needed(len(parts), spec.alpha), rng)
    seen, unseen = _taken(failure, here), _taken(failure, held)
    means = _means(model, seen, parts)
    before = scores_of(model, seen, [()])[0]
    cells = [[_ablate(part, means[part])] for part in parts]
    cells += [[_shake(part, means[part], spec.seed, c)] for part in parts for c in range(spec.controls)]
    after = scores_of(model, seen, cells, progress)
    effect = before[None] - after[: len(parts)]
    control = before[None] - after[len(parts) :].reshape(len(parts), spec.controls, -1).mean(1)
    p, adjusted = tested(effect, control, seen.clusters, spec)
    carrying = [n for n in np.argsort(-effect.mean(1), kind="stable").tolist() if adjusted[n] <= spec.alpha and effect[n].mean() > 0]
    chosen = _repair(model, seen, [parts[n] for n in carrying[: spec.most]], means, float(before.mean()), spec)
    sets = _random_sets(parts, chosen, carrying, spec, rng)
    edits = [[_ablate(part, means[part]) for part in group] for group in ([*([chosen] if chosen else []), *sets])]
    held_after = scores_of(model, unseen, [(), *edits], progress)
    nats = np.stack([nats_of(model, failure, group) for group in ((), *edits)])
    k = 1 if chosen else 0
    values = xr.Dataset(
        {
            "effect": (("part", "item"), effect), "control": (("part", "item"), control), "p": ("part", p), "holm": ("part", adjusted),
            "chosen": ("part", np.array([part in chosen for part in parts])), "cluster": ("item", np.array(seen.clusters, dtype=object)),
            "failure": ("held", held_after[0]), "repaired": ("held", held_after[k]),
            "random": (("set", "held"), held_after[1 + k :]),
            "held_cluster": ("held", np.array(unseen.clusters, dtype=object)), "nats": ("text", nats[0]),
            "repaired_nats": ("text", nats[k]), "random_nats": (("set", "text"), nats[1 + k :]),
        },
        coords={"part": np.array([part.name for part in parts], dtype=object)},
        attrs={"of": failure.of, "unit": failure.unit, "before": float(before.mean())},
    )  # fmt: skip
    origin = Provenance.here(
        model=getattr(model, "name", model.family), model_digest=model.digest(), data=failure.of, seed=spec.seed,
        dtype=str(getattr(model, "dtype", "float32")).removeprefix("torch."),
    )  # fmt: skip
    return InternalsResult(KIND, values, spec.model_dump(mode="json"), origin)


# --- how ------------------------------------------------------------------------------------------------------


def tested(effect: np.ndarray, control: np.ndarray, clusters: Sequence[str], spec: InternalsSpec) -> tuple[np.ndarray, np.ndarray]:
    """One-sided p [part] that replacing a part takes away more than random changes of it do, and the same by Holm's procedure."""
    each = [
        paired_permutation(e, k, clusters=list(clusters), draws=spec.draws, seed=spec.seed) for e, k in zip(effect, control, strict=True)
    ]
    p = np.array([t.p / 2 if t.effect > 0 else 1 - t.p / 2 for t in each])
    return p, holm(p)


def clusters_needed(parts: int, alpha: float) -> int:
    """Clusters with which one part of so many can be significant at all: its smallest p is 2^-clusters, times ``parts``."""
    return math.ceil(math.log2(parts / alpha))


def _halves(clusters: Sequence[str], needed: int, rng: random.Random) -> tuple[list[int], list[int]]:
    """The items of a random half of the clusters, and those of the others. Where half of them cannot decide, ``needed`` are located on:
    testing one repair has no multiplicity to pay for, and does with ``LEAST_HELD`` and a wider interval."""
    names = sorted(set(clusters))
    if len(names) < needed + LEAST_HELD:
        allowed = f"at least {needed + LEAST_HELD}: {needed} to locate on, {LEAST_HELD} to test on"
        raise BadValue("the number of clusters of failed items", len(names), allowed)
    first = set(rng.sample(names, max(needed, len(names) // 2)))
    return [n for n, c in enumerate(clusters) if c in first], [n for n, c in enumerate(clusters) if c not in first]


def _taken(failure: Failure, items: Sequence[int]) -> Failure:
    index = torch.tensor(items)
    clusters = [failure.clusters[n] for n in items]
    if (score := failure.score) is not None:
        of = lambda logits, _: score(logits, index)  # noqa: E731
        return replace(failure, batch=failure.batch[index], lengths=failure.lengths[index], clusters=clusters, score=of)
    assert failure.starts is not None, "without a score there are starts"
    assert failure.weights is not None, "without a score there are weights"
    per = failure.weights.shape[1]
    rows = (index[:, None] * per + torch.arange(per)).flatten()
    return replace(failure, batch=failure.batch[rows], lengths=failure.lengths[rows], clusters=clusters, starts=failure.starts[rows],
                   weights=failure.weights[index])  # fmt: skip


def scores_of(model: HookedModel, failure: Failure, cells: Sequence[Sequence[Edit]], progress: Progress = silent) -> np.ndarray:
    """``[cell, item]`` in float64: how much each item fails under each cell's edits; an empty cell is the model as it is."""
    where, read = _reading(failure)
    out: list[Tensor] = []
    with torch.no_grad():
        for cell in [cell for cell in cells if not cell]:
            plain = model.run(failure.batch, edit=cell, logits=where).logits
            assert plain is not None
            out.append(read(plain))
        edited = [list(cell) for cell in cells if cell]
        if edited:
            out.extend(sweep(model, failure.batch, edited, read, logits=where, progress=progress))
    return torch.stack(out).double().numpy()


def _reading(failure: Failure) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The positions ``[row, n]`` whose logits are read, and what they are read as, in float64 an item."""
    if (score := failure.score) is not None:
        every = torch.arange(len(failure.batch))
        return (failure.lengths - 1)[:, None], lambda logits: score((logits[:, 0] if logits.ndim == 3 else logits).double(), every)
    assert failure.starts is not None, "without a score there are starts"
    assert failure.weights is not None, "without a score there are weights"
    starts, weights, last = failure.starts, failure.weights, failure.lengths - 1
    at = starts[:, None] + torch.arange(int((failure.lengths - starts).max()))
    real = at <= last[:, None]
    at = at.minimum(last[:, None])
    targets = failure.batch.gather(1, at)

    def read(logits: Tensor) -> Tensor:
        said = logits.double().log_softmax(-1).gather(-1, targets[..., None])[..., 0] * real
        return (said.sum(1).view(weights.shape) * weights).sum(1)

    return at - 1, read


def _means(model: HookedModel, failure: Failure, parts: Sequence[Part]) -> dict[Part, Float[Tensor, " width"]]:
    """Each part's mean over the real tokens of the items."""
    with torch.no_grad():
        trace = model.run(failure.batch, capture=sorted({part.site for part in parts}), logits=None)
    real = torch.arange(failure.batch.shape[1])[None] < failure.lengths[:, None]
    whole = {site: trace[site][real].mean(0) for site in {part.site for part in parts}}
    return {part: whole[part.site] if part.head is None else whole[part.site][part.head] for part in parts}


def _ablate(part: Part, mean: Tensor) -> Edit:
    return Replace(part.site, at=part.at, value=mean)


def _shake(part: Part, mean: Tensor, seed: int, number: int) -> Edit:
    """The part moved at each token as far as its ablation would move it, in one random direction."""
    way = torch.randn(
        mean.shape, generator=torch.Generator().manual_seed(hash_of(seed, part.layer, part.head or 0, part.head is None, number))
    )
    way = way / way.norm()

    def moved(old: Tensor, site: Site) -> Tensor:
        far = (old - mean.to(old)).norm(dim=-1, keepdim=True)
        return old + far * way.to(old)

    return Apply(part.site, at=part.at, fn=moved)


def hash_of(*numbers: int) -> int:
    """One seed from several numbers, the same on every machine."""
    return int(np.random.SeedSequence([int(n) for n in numbers]).generate_state(1)[0])


def _repair(
    model: HookedModel, seen: Failure, carrying: Sequence[Part], means: dict[Part, Tensor], before: float, spec: InternalsSpec
) -> list[Part]:
    """The shortest beginning of the carrying parts that takes away enough of the failure; all of them where none does."""
    if not carrying:
        return []
    cells = [[_ablate(part, means[part]) for part in carrying[: n + 1]] for n in range(len(carrying))]
    left = scores_of(model, seen, cells).mean(1)
    enough = [n for n, one in enumerate(left) if before - one >= spec.enough * before]
    return list(carrying[: (enough[0] if enough else int(np.argmin(left))) + 1])


def _random_sets(
    parts: Sequence[Part], chosen: Sequence[Part], carrying: Sequence[int], spec: InternalsSpec, rng: random.Random
) -> list[list[Part]]:
    """As many heads and MLPs as the repair has (one head where there is none), drawn from the parts that do not carry the failure."""
    free = [part for n, part in enumerate(parts) if n not in carrying] or list(parts)
    wanted = [part.head is None for part in chosen] or [False]
    sets: list[list[Part]] = []
    for _ in range(spec.sets):
        pools = {kind: [part for part in free if (part.head is None) == kind] for kind in (True, False)}
        group = []
        for kind in wanted:
            pool = [part for part in (pools[kind] or pools[not kind]) if part not in group]
            if pool:
                group.append(rng.choice(pool))
        sets.append(group)
    return sets


def nats_of(model: HookedModel, failure: Failure, edits: Sequence[Edit]) -> np.ndarray:
    """``[text]``: negative log-likelihood a token of the ordinary texts, in nats."""
    step = max(1, CELLS // (failure.ordinary.shape[1] * int(getattr(model.config, "d_vocab", 1))))
    out = []
    for first in range(0, len(failure.ordinary), step):
        ids, lengths = failure.ordinary[first : first + step], failure.ordinary_lengths[first : first + step]
        with torch.no_grad():
            logits = model.run(ids, edit=list(edits)).logits
        assert logits is not None, "logits were asked for"
        said = logits[:, :-1].double().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        real = torch.arange(said.shape[1])[None] < (lengths - 1)[:, None]
        out.append(-(said * real).sum(1) / real.sum(1))
    return torch.cat(out).numpy()
