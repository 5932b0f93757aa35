"""In which direction of a site a concept lies: difference of means, probe weights and their patterns, and a concept activation vector.

At every site five directions are fitted to labelled training tokens (``probes.concept_fit``) and held against three questions: do they
agree (cosines), does one that was fitted to a label set tell another one's sides apart on held-out sentences (transfer), and, where
``targets`` are given, does an answer move along it more than along random concepts (TCAV). A direction that reads a concept need not be
one the model uses: ``steering`` asks that.

Source: Kim, Wattenberg, Gilmer, Cai, Wexler, Viegas and Sayres, Interpretability Beyond Feature Attribution: Quantitative Testing with
Concept Activation Vectors, ICML 2018 (arXiv:1711.11279). Haufe, Meinecke, Görgen, Dähne, Haynes, Blankertz and Bießmann, On the
interpretation of weight vectors of linear models in multivariate neuroimaging, NeuroImage 87, 2014. Transfer between label sets: Marks
and Tegmark, The Geometry of Truth, COLM 2024 (arXiv:2310.06824).
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from pydantic import Field
from torch import Tensor

from probes.concept_fit import METHODS, directions, threshold
from probes.concept_read import Concept, Read, read_concepts, read_features
from probes.concept_significance import Significance, significance
from probes.panels import joined
from probes.target import Quantity, model_dtype
from probes.token_items import origin, read_items
from workbench.core.charts.lines import curve_with_band
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.result import Result
from workbench.core.spec import Spec
from workbench.core.stats.resampling import bootstrap, fewest

TCAV = ("tcav", "tcav_random", "tcav_p", "slope", "slope_random", "slope_p_t", "slope_p_rank")


class ConceptDirectionSpec(Spec):
    """Where directions are fitted, how, and what they are held against."""

    sites: tuple[str, ...] = Field(default=("hook_embed", "blocks.*.hook_resid_post"), min_length=1, description="names or globs of sites")
    concept: str = Field(default="", description="the class that is the concept; '' takes the second of two classes")
    position: int | None = Field(default=None, description="where labels of whole items are read: None is the last real token")
    strength: float = Field(
        default=1e-3, gt=0, description="penalty of both regressions, as a share of n times the features' mean variance"
    )
    test_share: float = Field(default=0.3, gt=0, lt=1, description="share of sentence groups held out")
    draws: int = Field(default=5, ge=1, le=100, description="shuffled labels, averaged")
    quantity: Quantity = Field(default="logit", description="the answer that TCAV follows, where targets are given; at the last real token")
    random_concepts: int = Field(default=40, ge=3, le=1000, description="random concepts in TCAV")
    level: float = Field(default=0.95, gt=0.5, lt=1, description="level of the intervals")
    resamples: int = Field(default=1000, ge=400, description="bootstrap resamples of sentence groups")
    seed: int = Field(default=0, ge=0, description="seed of split, shuffles, halves and bootstrap")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    max_cells: int = Field(default=200_000_000, ge=1, description="numbers of features kept at most")
    tokens_a_pass: int = Field(default=16384, ge=1, description="tokens in one forward pass at most")


# --- compute ------------------------------------------------------------------------------------------------


def compute(model: HookedModel, inputs: Inputs, spec: ConceptDirectionSpec, progress: Progress) -> ConceptDirectionResult:
    """Fit and compare all directions. Raises BadValue for inputs that cannot be meant, and EmptySelection for sites that are not there."""
    items = read_items(model, inputs, bos=spec.bos)
    concepts, groups = read_concepts(items, inputs, spec)
    read = read_features(model, inputs, items, concepts, spec, progress)
    fitted: dict[tuple[str, str], Tensor] = {}
    cuts: dict[tuple[str, str], Tensor] = {}
    for site in read.sites:
        for one in concepts:
            x = read.at(site, one)[one.train]
            fitted[site, one.name] = directions(x, one.present[one.train], spec.strength)
            cuts[site, one.name] = threshold(x, one.present[one.train], fitted[site, one.name])
    facts = {f"{part}.{one.name}": getattr(one, part).numpy() for one in concepts for part in ("where", "present", "train")}
    return ConceptDirectionResult(
        kind=INSTRUMENT.name,
        values=_values(read, concepts, fitted, cuts, spec),
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=spec.seed, dtype=model_dtype(model), ids=items.ids, lengths=items.lengths, groups=groups,
                          targets=inputs.targets, foils=inputs.foils, **facts),
        notes=_notes(concepts, read, spec),
    )  # fmt: skip


def _values(
    read: Read, concepts: list[Concept], fitted: dict[tuple[str, str], Tensor], cuts: dict[tuple[str, str], Tensor],
    spec: ConceptDirectionSpec,
) -> xr.Dataset:  # fmt: skip
    shape, n = (len(read.sites), len(concepts)), len(METHODS)
    widest = max(ways.shape[1] for ways in fitted.values())
    accuracy, shuffled = np.full((3, *shape, n, len(concepts)), np.nan), np.full((*shape, n), np.nan)
    cosine, separation = np.full((*shape, n, len(concepts), n), np.nan), np.full(shape, np.nan)
    vectors, tcav = np.full((*shape, n, widest), np.nan), np.full((len(TCAV), *shape), np.nan)
    for s, site in enumerate(read.sites):
        for c, one in enumerate(concepts):
            ways, x = fitted[site, one.name], read.at(site, one)
            vectors[s, c, :, : ways.shape[1]] = ways
            train = x[one.train].double()
            separation[s, c] = float((train[one.present[one.train]].mean(0) - train[~one.present[one.train]].mean(0)).norm())
            shuffled[s, c] = _shuffled(x, one, spec)
            for o, other in enumerate(concepts):
                cosine[s, c, :, o] = ways @ fitted[site, other.name].T
                right = _right(read.at(site, other), other, ways, cuts[site, one.name])
                accuracy[:, s, c, :, o] = np.transpose([_mean(row, other.groups[~other.train.numpy()], spec) for row in right])
            if read.gradients is not None:
                found = _significance(read, site, one, spec)
                tcav[:, s, c] = astuple(found)
    far = ("site", "labels", "way", "to_labels")
    return xr.Dataset(
        {
            **{name: (far, values) for name, values in zip(("accuracy", "accuracy_low", "accuracy_high"), accuracy, strict=True)},
            "shuffled": (far[:3], shuffled), "cosine": ((*far, "to_way"), cosine), "separation": (far[:2], separation),
            **{name: (far[:2], values) for name, values in zip(TCAV, tcav, strict=True)},
            "direction": ((*far[:3], "feature"), vectors),
            "n_train": ("labels", [int(one.train.sum()) for one in concepts]),
            "n_test": ("labels", [int((~one.train).sum()) for one in concepts]),
            "share": ("labels", [float(one.present[~one.train].double().mean()) for one in concepts]),
        },
        coords={"site": read.sites, "depth": ("site", np.arange(len(read.sites))), "labels": [one.name for one in concepts],
                "concept": ("labels", [one.concept for one in concepts]), "way": list(METHODS),
                "to_labels": [one.name for one in concepts], "to_way": list(METHODS)},
    )  # fmt: skip


def _right(x: Tensor, one: Concept, ways: Tensor, cuts: Tensor) -> np.ndarray:
    """``[method, held-out token]``: 1 where the token lies on its own side of the threshold, 1/2 where no direction was found."""
    along = x[~one.train].double() @ ways.T
    right = ((along > cuts) == one.present[~one.train][:, None]).double()
    right[:, ways.norm(dim=1) == 0] = 0.5
    return right.T.numpy()


def _shuffled(x: Tensor, one: Concept, spec: ConceptDirectionSpec) -> np.ndarray:
    """``[method]``: accuracy on the true held-out labels of directions fitted to shuffled training labels."""
    rng, found = np.random.default_rng([spec.seed, 6]), []
    for _ in range(spec.draws):
        y = one.present[one.train][torch.from_numpy(rng.permutation(int(one.train.sum())))]
        ways = directions(x[one.train], y, spec.strength)
        found.append(_right(x, one, ways, threshold(x[one.train], y, ways)).mean(1))
    return np.mean(found, axis=0)


def _mean(right: np.ndarray, groups: np.ndarray, spec: ConceptDirectionSpec) -> tuple[float, float, float]:
    if len(np.unique(groups)) < fewest(spec.level):
        return float(right.mean()), np.nan, np.nan
    found = bootstrap(right, clusters=groups, level=spec.level, draws=spec.resamples, seed=spec.seed, bounds=(0.0, 1.0))
    return found.value, found.interval.low, found.interval.high


def _significance(read: Read, site: str, one: Concept, spec: ConceptDirectionSpec) -> Significance:
    assert read.gradients is not None, "targets were given"
    train = one.train
    return significance(
        read.at(site, one)[train], one.present[train], read.slopes(site, one)[~train],
        strength=spec.strength, concepts=spec.random_concepts, seed=spec.seed,
    )  # fmt: skip


def _notes(concepts: list[Concept], read: Read, spec: ConceptDirectionSpec) -> tuple[str, ...]:
    out = []
    for one in concepts:
        tested = len(np.unique(one.groups[~one.train.numpy()]))
        if tested < fewest(spec.level):
            out.append(f"'{one.name}': {tested} sentence groups are tested, too few for an interval.")
        if min(int(one.present[one.train].sum()), int((~one.present[one.train]).sum())) < 10:
            out.append(f"'{one.name}': one side has fewer than ten training tokens, and its directions are mostly noise.")
    if read.gradients is None:
        out.append("No targets were given, so no answer was followed along the directions (no TCAV).")
    return tuple(out)


# --- result and plot ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConceptDirectionResult(Result):
    """Directions by site, label set and method; their accuracy on held-out tokens of every label set, cosines, and TCAV scores."""

    columns: ClassVar[tuple[str, ...]] = (
        "site", "labels", "way", "to_labels", "to_way", "accuracy", "accuracy_low", "accuracy_high", "shuffled", "cosine",
        "separation", *TCAV, "n_train", "n_test", "share", "depth", "concept",
    )  # fmt: skip
    aside: ClassVar[tuple[str, ...]] = ("feature",)

    def direction(self, site: str, labels: str = "", way: str = "difference") -> Tensor:
        """One direction ``[d]`` of length 1 (float64), pointing to the concept. Raises BadValue for a name that is not there."""
        wanted = {"site": site, "labels": labels or str(self.values["labels"].values[0]), "way": way}
        for axis, name in wanted.items():
            if name not in self.values[axis].values:
                raise BadValue(axis, name, f"one of {', '.join(map(str, self.values[axis].values))}")
        found = self.values["direction"].sel(wanted).values.astype(float)
        return torch.from_numpy(found[np.isfinite(found)].copy())

    def summary(self) -> str:
        """The site at which the difference of means tells most, how the other methods agree there, and what the nulls say."""
        lines = []
        for name in self.values["labels"].values:
            v = self.values.sel(labels=name, to_labels=name)
            best = v.isel(site=int(np.nanargmax(v["accuracy"].sel(way="difference").values)))
            at, cosines = best.sel(way="difference"), best["cosine"].sel(way="difference")
            others = ", ".join(f"{m} {float(cosines.sel(to_way=m)):+.2f}" for m in METHODS[1:])
            lines.append(
                f"'{name}' ({best['concept'].item()}): at {best['site'].item()}, the best of {v.sizes['site']} sites, the mean difference "
                f"is right on {float(at['accuracy']):.3f} [{float(at['accuracy_low']):.3f}, {float(at['accuracy_high']):.3f}] of "
                f"{int(best['n_test'])} held-out tokens (shuffled labels {float(at['shuffled']):.3f}). Cosine with it: {others}."
            )
            if np.isfinite(float(best["tcav"])):
                lines.append(
                    f"  The answer rises along it in {float(best['tcav']):.2f} of held-out tokens (random concepts "
                    f"{float(best['tcav_random']):.2f}, p {float(best['tcav_p']):.2g}), by {float(best['slope']):+.3g} a unit (random "
                    f"concepts ±{float(best['slope_random']):.2g}; p by t {float(best['slope_p_t']):.2g}, by rank "
                    f"{float(best['slope_p_rank']):.2g})."
                )
        return "\n".join([*lines, *self.notes])

    def plot(self) -> Any:
        """Held-out accuracy over depth with its interval, one panel a label set, one line a method."""
        frame: Any = self.to_frame()
        panels = []
        frame = frame[(frame["labels"] == frame["to_labels"]) & (frame["way"] == frame["to_way"])]
        for name, part in frame.groupby("labels", sort=False):
            titles = {
                "title": f"Directions of '{name}'", "depth": "site, from the embedding up", "accuracy": "accuracy on held-out sentences",
                "way": "direction", "reference": "shuffled labels",
            }  # fmt: skip
            bands = ("depth", "accuracy", "accuracy_low", "accuracy_high")
            panels.append(curve_with_band(part, *bands, colour="way", titles=titles, reference=float(part["shuffled"].mean())))
        return panels[0] if len(panels) == 1 else joined(panels, "Directions over layers", columns=2)


INSTRUMENT = Instrument(
    name="concept-direction",
    question="In which direction of each layer does a concept lie, and do the ways of finding it agree?",
    spec=ConceptDirectionSpec,
    needs=Needs(abilities=frozenset({"logits"}), reads=("tokens",), inputs=("batch", "labels")),
    compute=compute,
)
