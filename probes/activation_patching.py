"""Activation patching: how far one activation, put into another run, moves the answer.

    value[c] = m(run of x with a_c := a'_c)        score[c] = (value[c] - m(corrupt)) / (m(clean) - m(corrupt))

for each cell c (a component of a layer, at a position, a head, a neuron, or whole), with m a number read from the logits. Denoising runs
the corrupt input, puts clean activations into it, and finds what is enough to bring the answer back; noising runs the clean input, puts
corrupt ones into it, and finds what the answer needs. The two differ wherever parts can stand in for each other, so direction and
kind of replacement are named in every result. Zero, mean and resample replacements run the clean input and need no corrupt one; they have
effects, and no score.

Source: Vig et al., Investigating Gender Bias in Language Models Using Causal Mediation Analysis, 2020 (arXiv:2004.12265); Meng et al.,
Locating and Editing Factual Associations in GPT, 2022 (arXiv:2202.05262); on directions, metrics and corruptions, Zhang and Nanda, Towards
Best Practices of Activation Patching, 2024 (arXiv:2309.16042); Heimersheim and Nanda, How to Use and Interpret Activation Patching, 2024
(arXiv:2404.15255).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import xarray as xr
from pydantic import Field
from torch import Tensor

from probes.patch_cells import WHOLE, WORDS, Choice, Place, sites_of
from probes.patch_chart import chart
from probes.patch_given import ROWS, Given, Replacement, Source, donors_of, means_of, of_means, read_given
from probes.patch_metric import PatchQuantity, Read
from probes.places import noise_note, stack_of
from probes.target import model_dtype
from probes.token_items import TokenItems, origin
from workbench.core.charts.frame import number
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress, silent
from workbench.core.result import Result
from workbench.core.sites import Site
from workbench.core.spec import Spec
from workbench.engine.sweep import prepare

FLAT = 1e-5
"""Clean and corrupt values closer than this share of the larger (at least 1) have no scale between them: rounding would be the score."""


class ActivationPatchingSpec(Spec):
    """What is patched, with what, and how the answer is read."""

    components: tuple[str, ...] = Field(default=("resid_pre",), description="streams, heads' parts, readers' inputs or neurons")
    per: tuple[Literal["pos", "head", "key", "neuron"], ...] | None = Field(
        default=None, description="one cell each: None is pos for streams, head for heads, neuron for neurons; () is a whole layer"
    )
    layers: tuple[int, ...] | None = Field(default=None, description="layers, counted from 0; None is all")
    heads: tuple[int, ...] | None = Field(default=None, description="heads in each layer (of keys and values, their groups); None is all")
    positions: tuple[int, ...] | None = Field(default=None, description="positions, counted from 0; None is all")
    neurons: tuple[int, ...] | None = Field(default=None, description="neurons in each layer; None is all")
    replacement: Replacement = Field(default="counterfactual", description="what is put there: the other run's activation, or less")
    direction: Literal["denoising", "noising"] = Field(default="denoising", description="clean into corrupt, or corrupt into clean")
    quantity: PatchQuantity = Field(default="logit", description="the number read; 'logit-difference' is target minus foil")
    position: int | None = Field(default=None, description="whose logits are read: None is the last real one, negative counts from it")
    stack: str = Field(default="", description="whose layers, in a family of several stacks; '' is the first")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    seed: int = Field(default=0, ge=0, description="draws the rows of 'resample'")
    max_cells: int = Field(default=200_000, ge=1, description="edited runs at most, items counted")
    memory_mib: int = Field(default=1024, ge=1, description="memory of the edited runs at most, by estimate")


# --- compute ------------------------------------------------------------------------------------------------


def compute(model: HookedModel, inputs: Inputs, spec: ActivationPatchingSpec, progress: Progress) -> ActivationPatchingResult:
    """Patch every cell. Raises BadValue for inputs that cannot be meant, NaN included."""
    return patched(model, inputs, spec, progress=progress)


def patched(
    model: HookedModel,
    inputs: Inputs,
    spec: ActivationPatchingSpec,
    *,
    metric: Read | None = None,
    name: str = "",
    progress: Progress = silent,
) -> ActivationPatchingResult:
    """The same with a ``metric`` of one's own: logits ``[batch, answer]`` at each item's position to one number an item. ``name`` says in
    the result what it is. Ctrl-C ends the sweep: cells not reached are NaN, and a note counts them."""
    given = read_given(model, inputs, spec.replacement, spec.quantity, spec.position, spec.stack, spec.bos, metric)
    sites = sites_of(model, spec.components, spec.layers, stack_of(model, spec.stack))
    numbers = {"head": spec.heads, "pos": spec.positions, "neuron": spec.neurons}
    flat = [site for by_layer in sites.values() for site in by_layer.values()]
    places = Choice(spec.per, numbers).places(sites, _shapes(given, flat))
    if len(places) * len(given.clean) > spec.max_cells:
        asked = f"{len(places)} cells of {len(given.clean)} items"
        raise BadValue("the number of edited runs", asked, f"at most max_cells = {spec.max_cells:,}",
                       do="Choose fewer layers, positions, heads or neurons, or raise max_cells.")  # fmt: skip
    found = _Found.of(len(places), len(given.clean))
    words, stopped = "", False
    try:
        for rows, sources in _parts(given, flat, spec):
            words = _sweep(given, rows, sources, places, spec, found, progress) or words
    except KeyboardInterrupt:
        if not np.isfinite(found.value).any():
            raise
        stopped = True
    notes = _notes(given, inputs, spec, found, name or ("the given metric" if metric is not None else ""))
    notes = (*notes, *([f"Memory by estimate: {words}."] if words else []))
    if stopped:
        done = f"{int(np.isfinite(found.value).sum())} of {found.value.size} values were computed"
        notes = (*notes, f"Interrupted: {done}, and the rest is missing.")
    return _result(given, spec, places, found, notes)


@dataclass(frozen=True)
class _Found:
    """Values ``[cell, batch]``, and of the unedited runs ``[batch]``; NaN where not computed."""

    value: np.ndarray
    base: np.ndarray
    clean: np.ndarray
    corrupt: np.ndarray

    @classmethod
    def of(cls, cells: int, items: int) -> _Found:
        return cls(np.full((cells, items), np.nan), *(np.full(items, np.nan) for _ in range(3)))


def _shapes(given: Given, sites: Sequence[Site]) -> Mapping[str, Sequence[int]]:
    rows = slice(0, len(given.clean) if given.together else 1)
    trace = given.clean.model.run(given.clean.batch(rows), capture=sites, logits=None)
    return {name: tuple(value.shape) for name, value in trace.at.items()}


def _parts(given: Given, sites: Sequence[Site], spec: ActivationPatchingSpec) -> Iterator[tuple[slice, Source]]:
    """Items in parts, with what replaces their activations; for a counterfactual its trace has the logits of the run it comes from."""
    count, other = len(given.clean), given.other
    size = count if given.together else ROWS
    items, sampled = given.clean.items, spec.replacement == "resample"
    donors = donors_of(other, items, own=_same(given), seed=spec.seed) if sampled and other is not None else None
    means = means_of(other, sites, items) if spec.replacement == "mean" and other is not None else {}
    model = given.clean.model
    for start in range(0, count, size):
        rows = slice(start, min(count, start + size))
        if other is None:
            yield rows, Source(None)
        elif spec.replacement == "mean":
            yield rows, Source(of_means(means, sites, rows.stop - rows.start, lambda _: model_dtype(model)))
        elif donors is not None:
            yield rows, Source(model.run(other.batch(donors[rows].tolist()), capture=sites, logits=None))
        else:
            side = given.clean if spec.direction == "denoising" else other
            yield rows, Source(model.run(side.batch(rows), capture=sites, logits=given.logits(rows)))


def _same(given: Given) -> bool:
    """Whether the rows sampled from are the items themselves."""
    assert given.other is not None
    ours, theirs = given.clean.items.data(), given.other.items.data()
    return all(
        a is b or (isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b))
        for a, b in zip(ours.values(), theirs.values(), strict=True)
    )


def _sweep(
    given: Given, rows: slice, source: Source, places: Sequence[Place], spec: ActivationPatchingSpec, found: _Found, progress: Progress
) -> str:
    """Fill ``found`` for some items; the estimate of memory in words."""
    counterfactual = spec.replacement == "counterfactual"
    noising = not counterfactual or spec.direction == "noising"  # the clean input is run
    side = given.clean if noising else given.other
    assert side is not None
    metric, batch, asked = given.metric.rows(rows), side.batch(rows), given.logits(rows)
    if metric.quantity == "kl":
        metric = metric.compared_with(_clean_logits(given, rows, source, noising))
    since = given.shared(rows) if counterfactual else 0
    real = side.items.real[rows].numpy()
    moving = [k for k, place in enumerate(places) if _moves(place, since, real)]
    edits = [source.edit(places[k].site, places[k].index(since)) for k in moving] or [source.edit(places[0].site, {})]
    ready = prepare(side.model, batch, edits, logits=asked, memory=spec.memory_mib << 20)
    base = ready.plain(metric).double().cpu().numpy()
    _check_finite(base, "clean" if noising else "corrupt")
    found.base[rows] = base
    (found.clean if noising else found.corrupt)[rows] = base
    if counterfactual:
        assert source.trace is not None
        assert source.trace.logits is not None
        there = metric(source.trace.logits).detach().double().cpu().numpy()
        _check_finite(there, "corrupt" if noising else "clean")
        (found.corrupt if noising else found.clean)[rows] = there
    shown = np.stack([real[:, place.pos] if place.pos != WHOLE and _own(place) else real[:, 0] | True for place in places])
    for k in set(range(len(places))) - set(moving):  # what is put there is what was there
        found.value[k, rows] = np.where(shown[k], base, np.nan)
    total = len(places) * len(found.base)
    before = len(places) * rows.start
    step = lambda done, _, words: progress(min(total, before + done * (rows.stop - rows.start)), total, words)  # noqa: E731
    if moving:
        for index, value in ready.results(metric, progress=step):
            found.value[moving[index], rows] = np.where(shown[moving[index]], value.double().cpu().numpy(), np.nan)
    progress(before + len(places) * (rows.stop - rows.start), total, str(ready.estimate))
    return str(ready.estimate)


def _own(place: Place) -> bool:
    """Whether a cell's position is one of the stack whose items these are."""
    return any(word in place.site.axes for word in ("pos", "query"))


def _moves(place: Place, since: int, real: np.ndarray) -> bool:
    """Whether there can be anything to replace: a position that is the same in both, or padding in every item, has nothing."""
    if not _own(place):
        return True
    width = real.shape[1]
    if place.pos == WHOLE:
        return since < width
    return place.pos >= since and bool(real[:, place.pos].any())


def _clean_logits(given: Given, rows: slice, source: Source, noising: bool) -> Tensor:
    if not noising and source.trace is not None and source.trace.logits is not None:
        return source.trace.logits
    logits = given.clean.model.run(given.clean.batch(rows), logits=given.logits(rows)).logits
    assert logits is not None
    return logits


def _check_finite(values: np.ndarray, which: str) -> None:
    if not np.isfinite(values).all():
        broken = f"NaN or infinity in {int((~np.isfinite(values)).sum())} of {len(values)} items"
        raise BadValue(f"the {which} run's value", broken, "finite", do="The model's weights are broken, or the metric is.")


# --- result -------------------------------------------------------------------------------------------------


def _flat(found: _Found) -> np.ndarray:
    """Which items' clean and corrupt values are the same."""
    most = np.maximum(1.0, np.maximum(np.abs(found.clean), np.abs(found.corrupt)))
    return np.abs(found.clean - found.corrupt) <= FLAT * most


def _result(
    given: Given, spec: ActivationPatchingSpec, places: Sequence[Place], found: _Found, notes: tuple[str, ...]
) -> ActivationPatchingResult:
    items, target = given.clean.items, given.metric.target
    scale, flat = found.clean - found.corrupt, _flat(found)
    with np.errstate(invalid="ignore", divide="ignore"):
        score = np.where(flat | np.isnan(scale), np.nan, (found.value - found.corrupt) / scale)
    token = np.full(found.value.shape, "", dtype=object)
    for k, place in enumerate(places):
        if place.pos != WHOLE and _own(place):
            token[k] = items.pieces[:, place.pos]
    values = xr.Dataset(
        {
            "value": (("cell", "batch"), found.value),
            "effect": (("cell", "batch"), found.value - found.base),
            "score": (("cell", "batch"), score),
            "clean": ("batch", found.clean),
            "corrupt": ("batch", found.corrupt),
        },
        coords={
            "cell": np.arange(len(places)),
            "batch": np.arange(len(items)),
            "component": ("cell", np.array([place.component for place in places], dtype=object)),
            "layer": ("cell", np.array([place.layer for place in places])),
            **{word: ("cell", np.array([place.at.get(word, WHOLE) for place in places])) for word in WORDS},
            "token_at": (("cell", "batch"), token),
        },
    )
    other = {f"other_{name}": value for name, value in given.other.items.data().items()} if given.other is not None else {}
    told = {"targets": target.ids, "foils": target.foils, "positions": target.positions}
    return ActivationPatchingResult(
        kind=INSTRUMENT.name,
        values=values,
        spec=spec.model_dump(mode="json"),
        provenance=origin(given.clean.model, seed=spec.seed, dtype=model_dtype(given.clean.model), **told, **items.data(), **other),
        notes=notes,
    )


def _notes(given: Given, inputs: Inputs, spec: ActivationPatchingSpec, found: _Found, own: str) -> tuple[str, ...]:
    reference = "the items themselves" if inputs.reference is None else f"{len(given.other) if given.other else 0} reference rows"
    what = {
        "counterfactual": "Denoising: the corrupt input is run, and clean activations are put into it."
        if spec.direction == "denoising"
        else "Noising: the clean input is run, and corrupt activations are put into it.",
        "zero": "Zero ablation: the clean input is run, and activations are set to zero.",
        "mean": f"Mean ablation: the clean input is run, and activations are set to their mean over {reference}, position by position.",
        "resample": f"Resample ablation: the clean input is run, and activations are set to those of another row of {reference}.",
    }[spec.replacement]
    out = [what, f"The number read is {own or spec.quantity}."]
    if spec.replacement != "counterfactual":
        out.append("There is no corrupt run, so there are effects and no scores.")
    if isinstance(given.clean.items, TokenItems):
        out.append(given.clean.items.added)
    if flat := int(_flat(found).sum()):
        out.append(
            f"In {flat} of {len(found.base)} items the clean and the corrupt value are the same: their scores are undefined, not zero."
        )
    return (*out, *noise_note(given.clean.items))


@dataclass(frozen=True)
class ActivationPatchingResult(Result):
    """One row a cell and item. ``value``: the number read with the cell patched; ``effect``: that less the unedited run's; ``score``: 0 at
    the corrupt and 1 at the clean value, undefined (NaN) where there is no corrupt run or the two are the same; ``clean`` and ``corrupt``:
    the unedited values. A cell's ``layer``, ``head``, ``pos``, ``key`` and ``neuron`` are -1 where all of them are patched together."""

    columns: ClassVar[tuple[str, ...]] = (
        "cell", "batch", "component", "layer", *WORDS, "token_at", "value", "effect", "score", "clean", "corrupt",
    )  # fmt: skip

    @property
    def of(self) -> Literal["score", "effect"]:
        """What cells are compared by: scores where there are any, else effects."""
        return "score" if bool(np.isfinite(self.values.score.values).any()) else "effect"

    def mean(self, of: Literal["value", "effect", "score"] | None = None) -> np.ndarray:
        """One number a cell: the mean over items, of scores the ratio of the means (mean value less mean corrupt over mean clean less mean
        corrupt, over items whose scores are defined)."""
        v: Any = self.values
        of = of or self.of
        if of != "score":
            return _mean(v[of].values)
        known = np.isfinite(v.score.values)
        above = _mean(np.where(known, v.value.values - v.corrupt.values, np.nan))
        scale = _mean(np.where(known, (v.clean - v.corrupt).values, np.nan))
        with np.errstate(invalid="ignore", divide="ignore"):
            return above / scale

    def grid(self, component: str = "", of: Literal["value", "effect", "score"] | None = None) -> xr.DataArray:
        """``mean`` of one component's cells along the axes they differ in, such as layer by pos. Raises BadValue for one not patched."""
        v: Any = self.values
        names = list(dict.fromkeys(v.component.values.tolist()))
        component = component or names[0]
        if component not in names:
            raise BadValue("the component", component, f"one of those patched: {', '.join(names)}")
        mine = np.flatnonzero(v.component.values == component)
        dims = ["layer", *(word for word in WORDS if (v[word].values[mine] != WHOLE).any())]
        numbers = {word: sorted(set(v[word].values[mine].tolist())) for word in dims}
        out = np.full([len(numbers[word]) for word in dims], np.nan)
        for k, value in zip(mine, self.mean(of)[mine], strict=True):
            out[tuple(numbers[word].index(int(v[word].values[k])) for word in dims)] = value
        return xr.DataArray(out, dims=dims, coords=numbers, name=of or self.of)

    def cell(self, number: int) -> str:
        """A cell in words."""
        v: Any = self.values.isel(cell=number)
        named = [f"{word} {int(v[word])}" for word in WORDS if int(v[word]) != WHOLE]
        token = str(v.token_at.values[0]) if len(set(v.token_at.values.tolist())) == 1 and v.token_at.values[0] else ""
        return ", ".join([f"{v.component.item()} of layer {int(v.layer)}", *named]) + (
            f" ({token.strip() or repr(token)})" if token else ""
        )

    def summary(self) -> str:
        """How many cells, the values of the unedited runs, and the strongest cells."""
        v: Any = self.values
        means = self.mean()
        order = [int(k) for k in np.argsort(-np.abs(np.nan_to_num(means)))[:3]]
        best = "; ".join(f"{self.cell(k)}: {number(float(means[k]), signed=True)}" for k in order)
        kind = f"{self.spec['replacement']}" + (f", {self.spec['direction']}" if self.spec["replacement"] == "counterfactual" else "")
        ends = f"clean {number(float(v.clean.mean()))}"
        if self.spec["replacement"] == "counterfactual":
            ends += f", corrupt {number(float(v.corrupt.mean()))}"
        return f"{self.kind} ({kind}): {len(v.cell)} cells on {len(v.batch)} items; {ends}. Largest {self.of}s: {best}."

    def plot(self) -> Any:
        """One grid a component: layers by positions with the tokens, layers by heads, or heads by positions."""
        return chart(self)


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean over known items, NaN where none is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, values, 0.0).sum(-1) / known.sum(-1)


INSTRUMENT = Instrument(
    name="activation-patching",
    question="Which activations, put into another run, carry the answer with them?",
    spec=ActivationPatchingSpec,
    needs=Needs(abilities=frozenset({"logits", "edit"}), sites=("*blocks.*.hook_resid_pre",), inputs=("batch", "targets")),
    compute=compute,
)
