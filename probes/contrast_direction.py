"""The direction along which the two sides of contrast pairs differ: found without being told which side is true, beside one that is told.

A pair is a statement and its contrast (``inputs.batch`` and ``inputs.reference``); ``labels`` say of each which of the two is true. At each
site directions are fitted to training pairs (``probes.contrast_fit``), and held-out pairs are asked which side lies further along them.
Labels are used for one bit, which end is the true one, and for scoring (and by ``labelled``). Random axes, turned by the same bit, are the
null. Whatever differs most between the sides is found: it need not be truth.

Source: Burns, Ye, Klein and Steinhardt, Discovering Latent Knowledge in Language Models Without Supervision, ICLR 2023 (arXiv:2212.03827).
What else such a search finds: Farquhar, Varma, Kenton, Gasteiger, Mikulik and Shah, Challenges with Unsupervised LLM Knowledge Discovery,
2023 (arXiv:2312.10029).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from probes.concept_fit import unit
from probes.contrast_fit import WAYS, axes, turned
from probes.over_groups import Sampling, mean_over_groups
from probes.probe_labels import Task, held_out, read_labels, sentence_groups
from probes.probing import sites_of
from probes.target import device_of, model_dtype
from probes.token_items import TokenItems, origin, read_items, rows_a_pass, slices
from workbench.core.charts.lines import curve_with_band
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.result import Result
from workbench.core.sites import Site
from workbench.core.spec import Spec
from workbench.core.stats.resampling import fewest


class ContrastDirectionSpec(Spec):
    """Where directions are fitted, how, and what they are held against."""

    sites: tuple[str, ...] = Field(default=("hook_embed", "blocks.*.hook_resid_post"), min_length=1, description="names or globs of sites")
    concept: str = Field(default="", description="the class of pairs whose first side is the true one; '' takes the second of two")
    position: int | None = Field(default=None, description="where both sides are read: None is the last real token")
    starts: int = Field(default=5, ge=1, le=100, description="starts of the consistent search, the best kept")
    steps: int = Field(default=300, ge=1, description="steps of the consistent search")
    test_share: float = Field(default=0.4, gt=0, lt=1, description="share of groups of pairs held out")
    randoms: int = Field(default=100, ge=19, le=10_000, description="random axes")
    level: float = Field(default=0.95, gt=0.5, lt=1, description="level of the intervals")
    resamples: int = Field(default=1000, ge=400, description="bootstrap resamples of groups of pairs")
    seed: int = Field(default=0, ge=0, description="seed of split, starts, random axes and bootstrap")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    max_cells: int = Field(default=200_000_000, ge=1, description="numbers of features kept at most")
    tokens_a_pass: int = Field(default=16384, ge=1, description="tokens in one forward pass at most")


@dataclass(frozen=True)
class Pairs:
    """Both ``sides``, where each is read (flat positions), whether the ``first`` is the true one, the pairs' groups, and which train."""

    sides: tuple[TokenItems, TokenItems]
    where: tuple[np.ndarray, np.ndarray]
    first: Bool[Tensor, " pair"]
    groups: np.ndarray
    train: Bool[Tensor, " pair"]
    name: str
    concept: str


# --- compute ------------------------------------------------------------------------------------------------


def compute(model: HookedModel, inputs: Inputs, spec: ContrastDirectionSpec, progress: Progress) -> ContrastDirectionResult:
    """Fit and score all directions. Raises BadValue for inputs that cannot be meant, and EmptySelection for sites that are not there."""
    pairs, sites = read_pairs(model, inputs, spec), sites_of(model, spec.sites)
    found: dict[str, dict[str, np.ndarray]] = {}
    one, two = (_vectors(model, items, where, sites, spec) for items, where in zip(pairs.sides, pairs.where, strict=True))
    for number, site in enumerate(sites):
        found[site.name] = _site(one[site.name], two[site.name], pairs, spec)
        progress(number + 1, len(sites), "sites")
    a, b = pairs.sides
    return ContrastDirectionResult(
        kind=INSTRUMENT.name,
        values=_values(found, pairs, spec),
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=spec.seed, dtype=model_dtype(model), ids=a.ids, lengths=a.lengths, contrasts=b.ids,
                          contrast_lengths=b.lengths, first=pairs.first, groups=pairs.groups),
        notes=_notes(pairs, spec),
    )  # fmt: skip


def read_pairs(model: HookedModel, inputs: Inputs, spec: ContrastDirectionSpec) -> Pairs:
    """The labelled pairs. Raises BadValue where the two sides are not as many, labels are not one a pair of two classes, or one side of the
    split has pairs of one class alone."""
    if inputs.reference is None:
        raise BadValue("inputs.reference", "left out", "the contrast of each item",
                       do="At the command line `--set 'inputs.corrupt=[…]'`, one a text.")  # fmt: skip
    given = inputs.reference if isinstance(inputs.reference, Inputs) else Inputs(inputs.reference)
    a, b = (read_items(model, Inputs(side.batch, side.lengths), bos=spec.bos) for side in (inputs, given))
    if len(a) != len(b):
        raise BadValue("the number of items of inputs.reference", len(b), f"{len(a)}, one contrast for each item of inputs.batch")
    tasks = read_labels(a, inputs.labels, spec.position)
    if len(tasks) > 1 or not tasks[0].whole:
        raise BadValue(
            "inputs.labels", f"{len(tasks)} label sets" if len(tasks) > 1 else "one a token", "one set, one label a pair [batch]"
        )
    (task,), (other,) = tasks, read_labels(b, inputs.labels, spec.position)
    concept = _concept(task, spec.concept)
    groups = _groups(a, b, inputs)[task.where // a.width]
    first = torch.from_numpy(task.codes == task.classes.index(concept))
    train = torch.from_numpy(~np.isin(groups, list(held_out(groups, spec.test_share, spec.seed, "different pairs or groups of pairs"))))
    for words, part in (("training", train), ("held-out", ~train)):
        if bool(first[part].all()) or not bool(first[part].any()):
            raise BadValue(f"the {words} pairs of '{task.name}'", "of one class alone", "some of both", do="Give more pairs.")
    return Pairs((a, b), (task.where, other.where), first, groups, train, task.name, concept)


def _concept(task: Task, concept: str) -> str:
    if len(task.classes) > 2:
        raise BadValue(f"the classes of '{task.name}'", f"{len(task.classes)} of them", "two: which side of the pair is true")
    if concept and concept not in task.classes:
        raise BadValue("concept", concept, f"a class of '{task.name}': {', '.join(task.classes)}")
    return concept or list(task.classes)[-1]


def _groups(a: TokenItems, b: TokenItems, inputs: Inputs) -> np.ndarray:
    """A group number for every pair: pairs that share a sentence, on whichever side, are of one group, as are those of one of
    ``inputs.groups``."""
    if inputs.groups is not None and len(inputs.groups) != len(a):
        raise BadValue("the length of inputs.groups", len(inputs.groups), f"{len(a)}, one a pair")
    names = list(range(len(a))) if inputs.groups is None else list(inputs.groups)
    width = max(a.width, b.width)
    ids = torch.cat([torch.nn.functional.pad(side.ids, (0, width - side.width)) for side in (a, b)])
    pieces = np.full(tuple(ids.shape), "", dtype=object)
    both = TokenItems(ids, torch.cat([a.lengths, b.lengths]), torch.zeros_like(ids, dtype=torch.bool), pieces, bos_added=False)
    return sentence_groups(both, [*names, *names])[: len(a)]


def _vectors(
    model: HookedModel, items: TokenItems, where: np.ndarray, sites: tuple[Site, ...], spec: ContrastDirectionSpec
) -> dict[str, Float[Tensor, "pair feature"]]:
    """One side's vectors at every site, float64."""
    found: dict[str, list[Tensor]] = {site.name: [] for site in sites}
    for part in slices(len(items), rows_a_pass(spec.tokens_a_pass, items.width)):
        trace = model.run(items.given(model, part, device_of(model)), capture=sites, logits=None)
        inside = torch.from_numpy(where[(where >= part.start * items.width) & (where < part.stop * items.width)] - part.start * items.width)
        for site in sites:
            flat = trace[site].detach().flatten(2).flatten(0, 1)
            if (size := 2 * len(where) * flat.shape[1] * len(sites)) > spec.max_cells:
                raise BadValue("the size of the features", f"{size:,} numbers", f"at most max_cells = {spec.max_cells:,}",
                               do="Give fewer pairs or sites, or raise max_cells.")  # fmt: skip
            chosen = flat[inside.to(flat.device)].cpu().double()
            if not bool(torch.isfinite(chosen).all()):
                raise BadValue(f"the activation at '{site.name}'", "NaN or infinity", "finite numbers", do="The weights are broken.")
            found[site.name].append(chosen)
    return {name: torch.cat(rows) for name, rows in found.items()}


def _site(
    one: Float[Tensor, "pair feature"], two: Float[Tensor, "pair feature"], pairs: Pairs, spec: ContrastDirectionSpec
) -> dict[str, np.ndarray]:
    """Directions of one site, and what they and random ones get right on held-out pairs ``[way, pair]``."""
    train, first = pairs.train, pairs.first
    a, b = one - one[train].mean(0), two - two[train].mean(0)
    ways, share = axes(a[train], b[train], first[train], starts=spec.starts, steps=spec.steps, seed=spec.seed)
    draw = torch.Generator().manual_seed(spec.seed)
    others = turned(unit(torch.randn(spec.randoms, a.shape[1], generator=draw, dtype=torch.float64)), (a - b)[train], first[train])
    apart = (a - b)[~train]

    def right(along: Tensor) -> np.ndarray:
        further = apart @ along.T
        told = ((further > 0) == first[~train][:, None]).double()
        return torch.where(further == 0, 0.5, told).T.numpy()

    return {"direction": ways.numpy(), "right": right(ways), "random": right(others).mean(1), "share": np.array(share)}


def _values(found: dict[str, dict[str, np.ndarray]], pairs: Pairs, spec: ContrastDirectionSpec) -> xr.Dataset:
    sites, how = list(found), Sampling(spec.level, spec.resamples, spec.seed)
    at = pairs.groups[~pairs.train.numpy()]
    accuracy = np.array([[mean_over_groups(right, at, how, (0.0, 1.0)) for right in found[site]["right"]] for site in sites])
    widest = max(one["direction"].shape[1] for one in found.values())
    vectors = np.stack([np.pad(one["direction"], ((0, 0), (0, widest - one["direction"].shape[1])), constant_values=np.nan)
                        for one in found.values()])  # fmt: skip
    cosine = np.stack([one["direction"] @ one["direction"][WAYS.index("labelled")] for one in found.values()])
    random = np.stack([one["random"] for one in found.values()])
    dims = ("site", "way")
    return xr.Dataset(
        {
            **{f"accuracy{end}": (dims, accuracy[..., k]) for k, end in enumerate(("", "_low", "_high"))},
            "cosine": (dims, cosine), "random": ("site", random.mean(1)), "random_high": ("site", np.quantile(random, spec.level, axis=1)),
            "share": ("site", np.array([float(one["share"]) for one in found.values()])),
            "direction": ((*dims, "feature"), vectors),
            "n_train": ((), int(pairs.train.sum())), "n_test": ((), int((~pairs.train).sum())),
            "first": ((), float(pairs.first[~pairs.train].double().mean())),
        },
        coords={"site": sites, "depth": ("site", np.arange(len(sites))), "way": list(WAYS)},
        attrs={"labels": pairs.name, "concept": pairs.concept},
    )  # fmt: skip


def _notes(pairs: Pairs, spec: ContrastDirectionSpec) -> tuple[str, ...]:
    out = ["Which end of an unlabelled axis is the true one was taken from the training labels."]
    if (tested := len(np.unique(pairs.groups[~pairs.train.numpy()]))) < fewest(spec.level):
        out.append(f"{tested} groups of pairs are tested, too few for an interval.")
    if min(int(pairs.first[pairs.train].sum()), int((~pairs.first[pairs.train]).sum())) < 10:
        out.append("One class has fewer than ten training pairs.")
    return tuple(out)


# --- result and plot ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ContrastDirectionResult(Result):
    """By site and way ``accuracy`` on held-out pairs with its interval, and ``cosine`` with the labelled direction; by site what ``random``
    axes get (mean, and the ``level`` quantile), and the ``share`` of the differences along the top axis."""

    columns: ClassVar[tuple[str, ...]] = (
        "site", "way", "depth", "accuracy", "accuracy_low", "accuracy_high", "cosine", "random", "random_high", "share",
        "n_train", "n_test", "first",
    )  # fmt: skip
    aside: ClassVar[tuple[str, ...]] = ("feature",)

    def direction(self, site: str, way: str = "top") -> Tensor:
        """One direction ``[d]`` of length 1 (float64), to the true side. Raises BadValue for a name that is not there."""
        for axis, name in (("site", site), ("way", way)):
            if name not in self.values[axis].values:
                raise BadValue(axis, name, f"one of {', '.join(map(str, self.values[axis].values))}")
        found = self.values["direction"].sel(site=site, way=way).values.astype(float)
        return torch.from_numpy(found[np.isfinite(found)].copy())

    def summary(self) -> str:
        """The site at which the top axis tells most pairs, beside the other ways and random axes."""
        v: Any = self.values
        best = v.isel(site=int(v.accuracy.sel(way="top").values.argmax()))
        said = ", ".join(f"{way} {_told(best.sel(way=way))}" for way in WAYS)
        return "\n".join([
            f"{self.kind}: at {best.site.item()}, the best of {len(v.site)} sites by the top axis, right on held-out pairs: {said}; random "
            f"axes {float(best.random):.3f}, {100 * self.spec['level']:g} in 100 of them at most {float(best.random_high):.3f}.",
            f"The top axis holds {100 * float(best.share):.0f} % of the differences; cosine with the labelled direction "
            f"{float(best.cosine.sel(way='top')):+.2f}, of the consistent one {float(best.cosine.sel(way='consistent')):+.2f}. "
            f"{int(v.n_train)} pairs train, {int(v.n_test)} test.",
            *self.notes,
        ])  # fmt: skip

    def plot(self) -> Any:
        """Held-out accuracy over depth with its interval, one line a way; the dashed line is chance."""
        titles = {
            "title": "Directions from contrast pairs", "depth": "site, from the embedding up", "accuracy": "accuracy on held-out pairs",
            "way": "direction", "reference": "chance",
        }  # fmt: skip
        return curve_with_band(
            self.to_frame(), "depth", "accuracy", "accuracy_low", "accuracy_high", colour="way", titles=titles, reference=0.5
        )


def _told(one: Any) -> str:
    value, low, high = (float(one[f"accuracy{end}"]) for end in ("", "_low", "_high"))
    return f"{value:.3f}" if np.isnan(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


INSTRUMENT = Instrument(
    name="contrast-direction",
    question="Along which direction do the sides of contrast pairs differ, found without knowing which side is true?",
    spec=ContrastDirectionSpec,
    needs=Needs(
        reads=("tokens",), sites=("blocks.*.hook_resid_post",), inputs=("batch", "labels", "reference"), reference="texts", whole=True
    ),
    compute=compute,
)  # fmt: skip
