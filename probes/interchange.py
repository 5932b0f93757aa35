"""In which few directions of a site a causal variable lives: exchanged between two runs, they carry the answer with them.

Each pair has a base, a source, and the answer that is right when the base's variable has the source's value. Directions are searched for
on some pairs (``probes.interchange_fit``) and scored on others by interchange accuracy: the share whose counterfactual answer comes out.
Beside them: nothing exchanged, the whole activation, random directions, and three placebos searched for with the same budget, in an
untrained network, for shuffled answers, and within directions that nothing reads. A search that finds anything there finds it anywhere.

Source: Geiger, Wu, Potts, Icard and Goodman, Finding Alignments Between Interpretable Causal Variables and Distributed Neural
Representations, CLeaR 2024 (arXiv:2303.02536).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from probes.interchange_fit import Found, Search, overlap, search
from probes.interchange_runs import Held, Pairs, credits, held_at, read_pairs
from probes.probe_labels import held_out, sentence_groups
from probes.probing import sites_of, untrained_copy
from probes.target import model_dtype
from probes.token_items import TokenItems, origin
from workbench.core.charts.lines import curve_with_band
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.result import Result
from workbench.core.sites import Site
from workbench.core.spec import Spec
from workbench.core.stats.intervals import wilson
from workbench.core.stats.resampling import bootstrap, fewest

SEARCHED = ("found", "permuted", "inert", "untrained")
WHO = ("none", "whole", "found", "given", "random", "permuted", "inert", "untrained")
"""What is exchanged: nothing, everything, the directions found, those given, random ones, and the three placebos'."""
DRAWN = ("found", "whole", "none", "permuted", "inert", "untrained")


class InterchangeSpec(Spec):
    """Where a variable is looked for, in how many directions, how long, and how it is scored."""

    sites: tuple[str, ...] = Field(default=("blocks.*.hook_resid_post",), min_length=1, description="names or globs of sites, each alone")
    dims: int = Field(default=1, ge=1, le=256, description="directions exchanged")
    where: Literal["position", "all"] = Field(default="position", description="exchanged at one position, or at all of them")
    position: int | None = Field(
        default=None, description="the position exchanged: None is the last real one, negative counts from the end"
    )
    steps: int = Field(default=200, ge=1, le=100_000, description="steps of each search")
    pairs_a_step: int = Field(default=64, ge=1, description="pairs drawn in a step")
    lr: float = Field(default=0.05, gt=0, le=1, description="rate of the first step; it falls to nothing in a line")
    starts: int = Field(default=1, ge=1, le=20, description="starts of each search; the one with the least loss on its pairs is kept")
    test_share: float = Field(default=0.4, gt=0, lt=1, description="share of groups of pairs held out and scored")
    subspace: tuple[tuple[float, ...], ...] = Field(default=(), description="vectors to compare with: exchanged along too ('given')")
    inert: tuple[tuple[float, ...], ...] = Field(default=(), description="vectors that nothing reads, within which 'inert' searches")
    randoms: int = Field(default=8, ge=1, le=200, description="random sets of as many directions")
    level: float = Field(default=0.95, gt=0.5, lt=1, description="level of the intervals")
    resamples: int = Field(default=1000, ge=400, description="bootstrap resamples of groups of several pairs")
    seed: int = Field(default=0, ge=0, description="seed of split, starts, draws, shuffle, untrained weights and bootstrap")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    max_cells: int = Field(default=200_000_000, ge=1, description="numbers of the sources' activations kept at most")
    tokens_a_pass: int = Field(default=8192, ge=1, description="tokens in one forward pass at most, but for a step's pairs")


# --- compute ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """Of what is exchanged at one site: a credit for each held-out pair (or none), the mean credit of the pairs fitted, chance, and the
    directions."""

    credit: np.ndarray
    fitted: float = np.nan
    chance: float = np.nan
    loss: float = np.nan
    along: Tensor | None = None


@dataclass(frozen=True)
class Split:
    """The pairs fitted and those held out, and the group number of each held-out one."""

    fit: Int[Tensor, " fit"]
    test: Int[Tensor, " held"]
    groups: np.ndarray


def compute(model: HookedModel, inputs: Inputs, spec: InterchangeSpec, progress: Progress) -> InterchangeResult:
    """Search and score at every site. Raises BadValue for inputs that cannot be meant, and EmptySelection for sites that are not there."""
    sites = sites_of(model, spec.sites)
    pairs = read_pairs(model, inputs, spec.position, spec.where == "all", spec.bos, spec.tokens_a_pass)
    groups = _groups(pairs, inputs)
    test = np.isin(groups, list(held_out(groups, spec.test_share, spec.seed, "different pairs or groups of pairs")))
    split = Split(torch.from_numpy(np.flatnonzero(~test)), torch.from_numpy(np.flatnonzero(test)), groups[test])
    held = held_at(model, pairs, sites, spec.max_cells)
    width = {name: one.source.shape[-1] for name, one in held.items()}
    if len(set(width.values())) > 1 or spec.dims > min(width.values()):
        raise BadValue("dims and sites", f"{spec.dims} directions at sites of {width} numbers", "sites of one width of at least dims")
    given, inert = (_span(name, getattr(spec, name), min(width.values())) for name in ("subspace", "inert"))
    if inert is not None and inert.shape[1] < spec.dims:
        raise BadValue("inert", f"{inert.shape[1]} vectors", f"at least {spec.dims}, as many as dims")
    shuffled = replace(pairs, wanted=pairs.wanted[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(spec.seed))])
    done, total = 0, len(sites) * len(SEARCHED)

    def tell(words: str) -> None:
        nonlocal done
        done += 1
        progress(done, total, words)

    found: dict[str, dict[str, Scores]] = {}
    for site in sites:
        found[site.name] = _site(model, pairs, shuffled, held[site.name], split, (given, inert), spec, tell)
    notes = _untrained(model, sites, pairs, split, found, spec, tell)
    return InterchangeResult(
        kind=INSTRUMENT.name,
        values=_values(found, split, given, spec),
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=spec.seed, dtype=model_dtype(model), ids=pairs.base.ids, lengths=pairs.base.lengths,
                          sources=pairs.source.ids, source_lengths=pairs.source.lengths, groups=groups, answers=pairs.answers,
                          wanted=pairs.wanted),
        notes=(f"Searched on {len(split.fit)} pairs, scored on {len(split.test)} others among {len(pairs.answers)} answers.",
               pairs.base.added, *notes, *_few(split, spec)),
    )  # fmt: skip


def _groups(pairs: Pairs, inputs: Inputs) -> np.ndarray:
    """A group number for every pair: from ``inputs.groups``; equal pairs always share one."""
    ids = torch.cat([torch.where(side.real, side.ids, -1) for side in (pairs.base, pairs.source)], 1)
    pieces = np.concatenate([pairs.base.pieces, pairs.source.pieces], 1)
    joined = TokenItems(ids, torch.full((len(ids),), ids.shape[1]), torch.zeros_like(ids, dtype=torch.bool), pieces, bos_added=False)
    return sentence_groups(joined, inputs.groups)


def _span(name: str, vectors: tuple[tuple[float, ...], ...], width: int) -> Tensor | None:
    """Orthonormal columns with the span of the vectors given; None where there are none."""
    if not vectors:
        return None
    if {len(vector) for vector in vectors} != {width}:
        raise BadValue(name, f"vectors of {sorted({len(v) for v in vectors})} numbers", f"vectors of {width} numbers, as the sites have")
    q, r = torch.linalg.qr(torch.tensor(vectors, dtype=torch.float64).T)
    if len(vectors) > width or float(r.diagonal().abs().min()) <= 1e-9 * float(r.abs().max()):
        raise BadValue(name, f"{len(vectors)} vectors that depend on each other", "vectors of which none is made of the others, nor zero")
    return q


def _site(
    model: HookedModel, pairs: Pairs, shuffled: Pairs, held: Held, split: Split, spans: tuple[Tensor | None, Tensor | None],
    spec: InterchangeSpec, tell: Any,
) -> dict[str, Scores]:  # fmt: skip
    """Everything at one site but the untrained network."""
    given, inert = spans
    feature = held.source.shape[-1]
    how = _how(spec)
    score = lambda along, of=pairs: _credit(model, of, split.test, held, along)  # noqa: E731
    whole = torch.eye(feature, dtype=torch.float64)
    out = {"none": Scores(score(None), chance=_chance(pairs, split)), "whole": Scores(score(whole), chance=_chance(pairs, split))}
    if given is not None:
        out["given"] = Scores(score(given), chance=_chance(pairs, split), along=given)
    draw = torch.Generator().manual_seed(spec.seed)
    chosen = [torch.linalg.qr(torch.randn(feature, spec.dims, generator=draw, dtype=torch.float64)).Q for _ in range(spec.randoms)]
    out["random"] = Scores(np.mean([score(along) for along in chosen], 0), chance=_chance(pairs, split))
    nowhere = torch.zeros(feature, spec.dims, dtype=torch.float64)  # coordinates beside the activation, which no weight reads
    for who, of, within in (("found", pairs, None), ("permuted", shuffled, None), ("inert", pairs, nowhere if inert is None else inert)):
        one = search(model, of, split.fit, held, how, within)
        out[who] = _scored(model, of, split, held, one)
        tell(f"{who} at {held.site}")
    return out


def _how(spec: InterchangeSpec) -> Search:
    return Search(spec.dims, spec.steps, spec.pairs_a_step, spec.lr, spec.starts, spec.seed)


def _credit(model: HookedModel, pairs: Pairs, rows: Tensor, held: Held, along: Tensor | None) -> np.ndarray:
    return credits(model, pairs, rows, held, along).numpy()


def _scored(model: HookedModel, pairs: Pairs, split: Split, held: Held, one: Found) -> Scores:
    test, fit = (_credit(model, pairs, rows, held, one.along) for rows in (split.test, split.fit))
    return Scores(test, float(fit.mean()), _chance(pairs, split), one.loss, one.along)


def _chance(pairs: Pairs, split: Split) -> float:
    """The best that can be done on the held-out pairs without looking at them: always the commonest answer."""
    return float(torch.bincount(pairs.wanted[split.test]).max()) / len(split.test)


def _untrained(
    model: Any, sites: tuple[Site, ...], pairs: Pairs, split: Split, found: dict[str, dict[str, Scores]], spec: InterchangeSpec, tell: Any
) -> list[str]:  # fmt: skip
    """The same search in a copy with fresh weights; a note where none can be made."""
    if not hasattr(type(model), "config_type"):
        for site in sites:
            tell(f"untrained at {site.name}")
        return ["No untrained copy of this model can be made here, so that placebo is missing."]
    fresh = untrained_copy(model, seed=spec.seed + 1)
    held = held_at(fresh, pairs, sites, spec.max_cells)
    for site in sites:
        one = search(fresh, pairs, split.fit, held[site.name], _how(spec))
        found[site.name]["untrained"] = _scored(fresh, pairs, split, held[site.name], one)
        tell(f"untrained at {site.name}")
    return []


def _few(split: Split, spec: InterchangeSpec) -> list[str]:
    count = len(np.unique(split.groups))
    return (
        [] if count >= fewest(spec.level) or count == len(split.test) else [f"{count} groups of pairs are held out, too few to resample."]
    )


def _interval(credit: np.ndarray, groups: np.ndarray, spec: InterchangeSpec) -> tuple[float, float, float]:
    """The mean credit with its interval: Wilson's where every pair is a group and right or wrong, else over groups; NaN for too few."""
    count, units = len(credit), len(np.unique(groups))
    if units == count and np.isin(credit, (0.0, 1.0)).all():
        bounds = wilson(int(credit.sum()), count, spec.level)
        return float(credit.mean()), bounds.low, bounds.high
    if units < fewest(spec.level):
        return float(credit.mean()), np.nan, np.nan
    made = bootstrap(credit, clusters=groups, level=spec.level, draws=spec.resamples, seed=spec.seed, bounds=(0.0, 1.0))
    return made.value, made.interval.low, made.interval.high


def _values(found: Mapping[str, Mapping[str, Scores]], split: Split, given: Tensor | None, spec: InterchangeSpec) -> xr.Dataset:
    sites, both = list(found), ("site", "who")
    missing = Scores(np.zeros(0))
    table = [[found[site].get(who, missing) for who in WHO] for site in sites]
    rates = np.array([[_interval(one.credit, split.groups, spec) if len(one.credit) else (np.nan,) * 3 for one in row] for row in table])
    along = np.stack([_numpy(found[site]["found"].along) for site in sites])
    near = [np.nan if given is None else overlap(torch.from_numpy(one), given) for one in along]
    variables: dict[str, Any] = {
        "accuracy": (both, rates[..., 0]), "accuracy_low": (both, rates[..., 1]), "accuracy_high": (both, rates[..., 2]),
        "chance": (both, np.array([[one.chance for one in row] for row in table])),
        "fitted": (both, np.array([[one.fitted for one in row] for row in table])),
        "loss": (both, np.array([[one.loss for one in row] for row in table])),
        "cosine": (("site",), np.array(near)),
        "n_fit": len(split.fit), "n_test": len(split.test),
        "along": (("site", "feature", "dim"), along),
    }  # fmt: skip
    return xr.Dataset(variables, coords={"site": sites, "depth": ("site", np.arange(len(sites))), "who": list(WHO)})


def _numpy(along: Tensor | None) -> Float[np.ndarray, "feature dim"]:
    assert along is not None, "the search was made"
    return along.double().cpu().numpy()


# --- result and plot ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InterchangeResult(Result):
    """By site and what is exchanged (``who``): ``accuracy`` on held-out pairs with its interval, its ``chance``, the accuracy (``fitted``)
    and ``loss`` on the pairs of the search. By site ``cosine``, of the directions found with those given. ``along`` are the directions."""

    columns: ClassVar[tuple[str, ...]] = (
        "site", "who", "depth", "accuracy", "accuracy_low", "accuracy_high", "chance", "fitted", "loss", "cosine", "n_fit", "n_test",
    )  # fmt: skip
    aside: ClassVar[tuple[str, ...]] = ("feature", "dim")

    def directions(self, site: str) -> Float[Tensor, "feature dim"]:
        """The directions found at a site, orthonormal columns."""
        return torch.from_numpy(np.array(self.values["along"].sel(site=site).values))

    @property
    def _best(self) -> int:
        return int(np.nanargmax(self.values["accuracy"].sel(who="found").values))

    def summary(self) -> str:
        """The site at which most counterfactual answers come out, what the placebos do there, and how near the directions are to others."""
        v = self.values.isel(site=self._best)
        lines = [
            f"At {v['site'].item()}, the best of {self.values.sizes['site']} sites asked, exchanging {self.values.sizes['dim']} "
            f"direction{'s' if self.values.sizes['dim'] > 1 else ''} gives the counterfactual answer in {_said(v, 'found')} of held-out "
            f"pairs (chance {float(v['chance'].sel(who='found')):.3f}; nothing exchanged {_said(v, 'none')}; the whole activation "
            f"{_said(v, 'whole')}).",
            "Placebos of the same budget: " + "; ".join(
                f"{who} {_said(v, who)} (chance {float(v['chance'].sel(who=who)):.3f})"
                for who in ("untrained", "permuted", "inert") if np.isfinite(float(v["accuracy"].sel(who=who)))
            ) + f". Random directions: {_said(v, 'random')}.",
        ]  # fmt: skip
        if np.isfinite(float(v["cosine"])):
            lines.append(f"Cosine with the directions given: {float(v['cosine']):.3f}; exchanged themselves: {_said(v, 'given')}.")
        return "\n".join([*lines, *self.notes])

    def plot(self) -> Any:
        """Interchange accuracy over sites: directions found, everything, nothing, and the placebos."""
        frame: Any = self.to_frame()
        frame = frame[frame["who"].isin(DRAWN) & frame["accuracy"].notna()].copy()
        frame["order"] = frame["who"].map(DRAWN.index)
        titles = {"title": "Interchange accuracy on held-out pairs", "depth": "site, in the model's order", "accuracy": "accuracy",
                  "who": "exchanged", "reference": "chance"}  # fmt: skip
        chance = float(self.values["chance"].sel(who="found").isel(site=0))
        bands = ("depth", "accuracy", "accuracy_low", "accuracy_high")
        return curve_with_band(frame.sort_values(["order", "depth"]), *bands, colour="who", titles=titles, reference=chance)


def _said(v: xr.Dataset, who: str) -> str:
    one = v.sel(who=who)
    return f"{float(one['accuracy']):.3f} [{float(one['accuracy_low']):.3f}, {float(one['accuracy_high']):.3f}]"


INSTRUMENT = Instrument(
    name="interchange",
    question="In which few directions does a causal variable live, so that exchanging them between two runs carries the answer along?",
    spec=InterchangeSpec,
    needs=Needs(
        reads=("tokens",), abilities=frozenset({"logits", "edit", "grad"}), sites=("blocks.*.hook_resid_post",),
        inputs=("batch", "reference", "targets"), reference="texts",
    ),
    compute=compute,
    items=192,
)  # fmt: skip
