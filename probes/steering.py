"""What pushing a model along a direction does to an answer, and what it costs: dose and response, beside random directions.

At each site the direction (fitted to labelled training items, or given) is added to the stream times a dose, or taken out of it:

    add      x + dose * unit * d          ablate      x - (x . d) d          d of length 1

``unit`` is the distance of the two sides' training means along d: dose 1 carries an item from one mean to the other. On held-out items
the change of the answer is measured, and the change of the next-token loss as the price. Random directions of the same length are the
null: what any push of that size does.

Source: Turner, Thiergart, Leech, Udell, Vazquez, Mini and MacDiarmid, Activation Addition, 2023 (arXiv:2308.10248); Rimsky et al., Steering
Llama 2 via Contrastive Activation Addition, ACL 2024 (arXiv:2312.06681). Ablation: Arditi et al., Refusal in Language Models Is Mediated by
a Single Direction, NeurIPS 2024 (arXiv:2406.11717).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import xarray as xr
from pydantic import Field, field_validator
from torch import Tensor

from probes.concept_fit import METHODS, directions, unit
from probes.concept_read import Concept, Read, read_concepts, read_features
from probes.over_groups import Sampling, mean_over_groups
from probes.panels import joined
from probes.steering_runs import Outcome, Push, Runs, read_runs
from probes.target import Quantity, model_dtype
from probes.token_items import origin, read_items
from workbench.core.charts.lines import curve_with_band
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.result import Result
from workbench.core.spec import Spec
from workbench.core.stats.intervals import mean_interval
from workbench.core.stats.resampling import fewest

WHO = ("direction", "random")
WHAT = ("change", "loss_change")


class SteeringSpec(Spec):
    """Where a model is pushed, how far, along what, and what is measured."""

    sites: tuple[str, ...] = Field(default=("blocks.*.hook_resid_post",), min_length=1, description="names or globs of sites, each alone")
    way: Literal["difference", "ridge", "ridge-pattern", "logistic", "logistic-pattern"] = Field(
        default="difference", description="how the direction is fitted to labels (see concept-direction)"
    )
    doses: tuple[float, ...] = Field(default=(-2.0, -1.0, 1.0, 2.0), min_length=1, description="how far, in distances of the two means")
    where: Literal["all", "last"] = Field(default="all", description="pushed at every token, or at each item's last")
    quantity: Quantity = Field(default="logit", description="the answer; 'logit-difference' is target minus foil")
    concept: str = Field(default="", description="the class that is the concept; '' takes the second of two classes")
    position: int | None = Field(default=None, description="where labels of whole items are read: None is the last real token")
    strength: float = Field(default=1e-3, gt=0, description="penalty of a regression, as a share of n times the mean variance")
    test_share: float = Field(default=0.5, gt=0, lt=1, description="share of sentence groups held out; answers are measured on them")
    randoms: int = Field(default=8, ge=2, le=200, description="random directions")
    write: int = Field(default=0, ge=0, le=200, description="tokens written after the first held-out texts, before and after; 0: none")
    level: float = Field(default=0.95, gt=0.5, lt=1, description="level of the intervals")
    resamples: int = Field(default=1000, ge=400, description="bootstrap resamples of sentence groups")
    seed: int = Field(default=0, ge=0, description="seed of split, random directions and bootstrap")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    max_cells: int = Field(default=200_000_000, ge=1, description="numbers of features kept at most")
    tokens_a_pass: int = Field(default=16384, ge=1, description="tokens in one forward pass at most")

    @field_validator("doses")
    @classmethod
    def _ascending(cls, doses: tuple[float, ...]) -> tuple[float, ...]:
        if 0.0 in doses or list(doses) != sorted(set(doses)):
            raise ValueError("doses are ascending, each once, and not 0 (which is measured anyway)")
        return doses


# --- compute ------------------------------------------------------------------------------------------------


def compute(model: HookedModel, inputs: Inputs, spec: SteeringSpec, progress: Progress) -> SteeringResult:
    """Push at every site. Raises BadValue for inputs that cannot be meant, and EmptySelection for sites that are not there."""
    items = read_items(model, inputs, bos=spec.bos)
    concepts, groups = read_concepts(items, inputs, spec)
    if len(concepts) > 1:
        raise BadValue("inputs.labels", f"{len(concepts)} label sets", "one: a direction is of one concept")
    (concept,) = concepts
    bare = Inputs(inputs.batch, inputs.lengths)
    read = read_features(model, bare, items, concepts, spec, lambda *_: None)
    runs = read_runs(model, inputs, items, groups, concept, spec, spec.write)
    plain = runs.outcome()
    found: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    for number, site in enumerate(read.sites):
        way, size = _direction(read, site, concept, inputs.reference, spec)
        if size == 0:
            notes.append(f"At {site} the two sides have one mean: there is no direction, and nothing was pushed.")
        found[site] = _site(runs, site, way, size, plain, spec)
        progress(number + 1, len(read.sites), "sites")
    return SteeringResult(
        kind=INSTRUMENT.name,
        values=_values(found, plain, spec),
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=spec.seed, dtype=model_dtype(model), ids=items.ids, lengths=items.lengths, groups=groups,
                          where=concept.where, present=concept.present, targets=inputs.targets, foils=inputs.foils,
                          reference=inputs.reference, texts=None if inputs.texts is None else np.array(inputs.texts)),
        notes=(*notes, *runs.notes, *_few(runs, spec)),
    )  # fmt: skip


def _direction(read: Read, site: str, one: Concept, given: Any, spec: SteeringSpec) -> tuple[Tensor, float]:
    """The direction (length 1, float64) and how long dose 1 is: the distance of the means along it, or the length of what was given."""
    x, y = read.at(site, one)[one.train].double(), one.present[one.train]
    if given is None:
        way = directions(x, y, spec.strength)[METHODS.index(spec.way)]
        return way, float((x[y].mean(0) - x[~y].mean(0)) @ way)
    if not isinstance(given, Tensor | np.ndarray | list | tuple):
        raise BadValue("inputs.reference", type(given).__name__, "a direction, or left out to have it fitted to the labels")
    vector = torch.as_tensor(given).detach().cpu().double().flatten()
    if vector.shape != x.shape[1:] or not bool(vector.isfinite().all()) or not bool(vector.any()):
        raise BadValue("inputs.reference", f"{tuple(torch.as_tensor(given).shape)}", f"{x.shape[1]} finite numbers, as at '{site}'",
                       do="Leave it out to have the direction fitted to the labels.")  # fmt: skip
    return unit(vector), float(vector.norm())


def _site(runs: Runs, site: str, way: Tensor, size: float, plain: Outcome, spec: SteeringSpec) -> dict[str, Any]:
    """All pushes at one site: changes ``[what][who][push]`` with their bounds, p-values, and what is written."""
    draw = torch.Generator().manual_seed(spec.seed)
    ways = [way, *unit(torch.randn(spec.randoms, len(way), generator=draw, dtype=torch.float64))]
    pushes = [*spec.doses, None]  # None: taken out
    changes = np.full((len(ways), len(pushes), 2), np.nan)
    bounds = np.full((2, 2, 3, len(pushes)), np.nan)  # what, who, (value, low, high), push
    for p, dose in enumerate(pushes):
        for w, along in enumerate(ways):
            moved = runs.outcome(Push(site, along, None if dose is None else dose * size, spec.where))
            pairs = ((moved.answers - plain.answers, runs.groups), (moved.losses - plain.losses, runs.loss_groups))
            for k, (change, of) in enumerate(pairs):
                changes[w, p, k] = change.mean() if len(change) else np.nan
                if w == 0:
                    bounds[k, 0, :, p] = mean_over_groups(change, of, Sampling(spec.level, spec.resamples, spec.seed))
        for k in range(2):
            others = changes[1:, p, k]
            if np.isfinite(others).all():
                spread = mean_interval(others, spec.level) if np.ptp(others) > 0 else None
                bounds[k, 1, :, p] = (others.mean(), spread.low, spread.high) if spread else (others.mean(),) * 3
    beyond = np.abs(changes[1:]) >= np.abs(changes[0]) - 1e-12
    p_values = np.where(np.isfinite(changes[0]), (1 + beyond.sum(0)) / (len(ways)), np.nan)
    written = runs.written([None, *(Push(site, way, None if d is None else d * size, spec.where)
                                    for d in (spec.doses[0], spec.doses[-1], None))], spec.write)  # fmt: skip
    return {"bounds": bounds, "p": p_values, "size": size, "written": written}


def _values(found: dict[str, dict[str, Any]], plain: Outcome, spec: SteeringSpec) -> xr.Dataset:
    sites = list(found)
    bounds = np.stack([found[site]["bounds"] for site in sites])  # site, what, who, bound, push
    p = np.stack([found[site]["p"] for site in sites])  # site, push, what
    out: dict[str, Any] = {}
    for k, what in enumerate(WHAT):
        for b, name in enumerate(("", "_low", "_high")):
            out[f"{what}{name}"] = (("site", "who", "dose"), bounds[:, k, :, b, :-1])
            out[f"ablated_{what}{name}"] = (("site", "who"), bounds[:, k, :, b, -1])
        out[f"{what}_p"], out[f"ablated_{what}_p"] = (("site", "dose"), p[:, :-1, k]), (("site",), p[:, -1, k])
    out["unit"] = ("site", np.array([found[site]["size"] for site in sites]))
    out["answer"], out["loss"] = ((), float(plain.answers.mean())), ((), float(plain.losses.mean()) if len(plain.losses) else np.nan)
    coords = {"site": sites, "depth": ("site", np.arange(len(sites))), "who": list(WHO), "dose": list(spec.doses)}
    if spec.write and found[sites[0]]["written"]:
        rows = np.array([found[site]["written"] for site in sites], dtype=object)
        out["written"] = (("site", "version", "prompt"), rows)
        coords["version"] = ["plain", f"dose {spec.doses[0]:g}", f"dose {spec.doses[-1]:g}", "ablated"]
    return xr.Dataset(out, coords=coords)


def _few(runs: Runs, spec: SteeringSpec) -> list[str]:
    tested = len(np.unique(runs.groups))
    out = [f"{spec.randoms} random directions: no p-value is below {1 / (spec.randoms + 1):.2g}."] if spec.randoms < 19 else []
    return [*out, f"{tested} sentence groups are measured, too few for an interval."] if tested < fewest(spec.level) else out


# --- result and plot ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SteeringResult(Result):
    """Changes of the answer and of the loss by site, dose and direction (the concept's, or the mean of random ones), with intervals."""

    columns: ClassVar[tuple[str, ...]] = (
        "site", "who", "dose", *(f"{a}{w}{b}" for a in ("", "ablated_") for w in WHAT for b in ("", "_low", "_high", "_p")),
        "unit", "answer", "loss", "depth",
    )  # fmt: skip
    aside: ClassVar[tuple[str, ...]] = ("version", "prompt")

    @property
    def _best(self) -> int:
        """The site at which the largest dose moves the answer most."""
        moved = np.abs(self.values["change"].sel(who="direction").isel(dose=-1).values)
        return int(np.nanargmax(moved)) if np.isfinite(moved).any() else 0

    def summary(self) -> str:
        """The site with the largest change: its dose and response, its price, and what random directions do."""
        v = self.values.isel(site=self._best)
        top = v.isel(dose=-1)
        say = lambda d, name: f"{float(d[name]):+.3g} [{float(d[name + '_low']):+.3g}, {float(d[name + '_high']):+.3g}]"  # noqa: E731
        own, null = top.sel(who="direction"), top.sel(who="random")
        gone = v.sel(who="direction")
        lines = [
            f"At {v['site'].item()}, where the answer moves most ({self.values.sizes['site']} sites asked), dose {float(top['dose']):g} "
            f"changes it by {say(own, 'change')} from {float(v['answer']):.3g} (random directions {say(null, 'change')}; p "
            f"{float(top['change_p']):.2g}).",
            f"Taken out, the direction changes the answer by {say(gone, 'ablated_change')} (p {float(v['ablated_change_p']):.2g}).",
        ]
        if np.isfinite(float(v["loss"])):
            lines.append(
                f"The price is {say(own, 'loss_change')} nats of next-token loss from {float(v['loss']):.3g} (random "
                f"{say(null, 'loss_change')})."
            )
        return "\n".join([*lines, *self.notes])

    def plot(self) -> Any:
        """Response and price over the dose, at the site where the answer moves most."""
        site = str(self.values["site"].values[self._best])
        frame: Any = self.to_frame()
        frame, panels = frame[frame["site"] == site], []
        for what, words in (("change", "change of the answer"), ("loss_change", "change of next-token loss, nats")):
            if frame[what].notna().any():
                titles = {"title": f"Steering at {site}", "dose": "dose", what: words, "who": "along", "reference": "no change"}
                bands = ("dose", what, f"{what}_low", f"{what}_high")
                panels.append(curve_with_band(frame.dropna(subset=[what]), *bands, colour="who", titles=titles, reference=0.0))
        return panels[0] if len(panels) == 1 else joined(panels, f"Steering at {site}", columns=2)


INSTRUMENT = Instrument(
    name="steering",
    question="What does pushing the model along a concept's direction do to an answer, and what does it cost?",
    spec=SteeringSpec,
    needs=Needs(abilities=frozenset({"logits", "edit"}), reads=("tokens",), inputs=("batch", "labels", "targets")),
    compute=compute,
)
