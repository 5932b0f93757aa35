"""What a patching found: one number a cell and item, beside the values of the unedited runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import xarray as xr

from probes.patch_cells import WHOLE, WORDS
from probes.patch_chart import chart
from probes.patch_plan import Plan, own
from probes.places import noise_note
from probes.target import model_dtype
from probes.token_items import TokenItems, origin
from workbench.core.charts.frame import number
from workbench.core.errors import BadValue
from workbench.core.protocol import Inputs
from workbench.core.result import Provenance, Result

FLAT = 1e-5
"""Clean and corrupt values closer than this share of the larger (at least 1) have no scale between them: rounding would be the score."""


@dataclass(frozen=True)
class Found:
    """Values ``[cell, batch]``, and of the unedited runs ``[batch]``; NaN where not computed."""

    value: np.ndarray
    base: np.ndarray
    clean: np.ndarray
    corrupt: np.ndarray

    @classmethod
    def of(cls, cells: int, items: int) -> Found:
        return cls(np.full((cells, items), np.nan), *(np.full(items, np.nan) for _ in range(3)))


def _flat(found: Found) -> np.ndarray:
    """Which items' clean and corrupt values are the same."""
    most = np.maximum(1.0, np.maximum(np.abs(found.clean), np.abs(found.corrupt)))
    return np.abs(found.clean - found.corrupt) <= FLAT * most


def patch_values(plan: Plan, found: Found, more: Mapping[str, np.ndarray] | None = None) -> xr.Dataset:
    """The table of a patching; ``more`` are further columns ``[cell, batch]`` or ``[cell]``."""
    items, places = plan.given.clean.items, plan.places
    scale, flat = found.clean - found.corrupt, _flat(found)
    with np.errstate(invalid="ignore", divide="ignore"):
        change = (found.value - found.corrupt) / scale
    score = np.where(flat | np.isnan(scale), np.nan, change)
    token = np.full(found.value.shape, "", dtype=object)
    for k, place in enumerate(places):
        if place.pos != WHOLE and own(place):
            token[k] = items.pieces[:, place.pos]
    return xr.Dataset(
        {
            "value": (("cell", "batch"), found.value),
            "effect": (("cell", "batch"), found.value - found.base),
            "score": (("cell", "batch"), score),
            **{name: (("cell", "batch")[: values.ndim], values) for name, values in (more or {}).items()},
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


def patch_origin(plan: Plan) -> Provenance:
    """The model and all that was put into it."""
    given, target = plan.given, plan.given.metric.target
    other = {f"other_{name}": value for name, value in given.other.items.data().items()} if given.other is not None else {}
    told = {"targets": target.ids, "foils": target.foils, "positions": target.positions}
    dtype = model_dtype(given.clean.model)
    return origin(given.clean.model, seed=plan.spec.seed, dtype=dtype, **told, **given.clean.items.data(), **other)


def patch_notes(plan: Plan, inputs: Inputs, found: Found, name: str) -> tuple[str, ...]:
    """What was put where, what was read, and what cannot be known."""
    given, spec = plan.given, plan.spec
    reference = "the items themselves" if inputs.reference is None else f"{len(given.other) if given.other else 0} reference rows"
    what = {
        "counterfactual": "Denoising: the corrupt input is run, and clean activations are put into it."
        if spec.direction == "denoising"
        else "Noising: the clean input is run, and corrupt activations are put into it.",
        "zero": "Zero ablation: the clean input is run, and activations are set to zero.",
        "mean": f"Mean ablation: the clean input is run, and activations are set to their mean over {reference}, position by position.",
        "resample": f"Resample ablation: the clean input is run, and activations are set to those of another row of {reference}.",
    }[spec.replacement]
    out = [what, f"The number read is {name or spec.quantity}."]
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
class PatchResult(Result):
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
        corrupt, over items whose scores are defined); undefined (NaN) where these means are the same, as of items that swap places."""
        v: Any = self.values
        of = of or self.of
        if of != "score":
            return known_mean(v[of].values)
        known = np.isfinite(v.score.values)
        above = known_mean(np.where(known, v.value.values - v.corrupt.values, np.nan))
        scale = known_mean(np.where(known, (v.clean - v.corrupt).values, np.nan))
        most = known_mean(np.where(known, np.maximum(1.0, np.maximum(np.abs(v.clean.values), np.abs(v.corrupt.values))), np.nan))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(np.abs(scale) <= FLAT * most, np.nan, above / scale)

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


def known_mean(values: np.ndarray) -> np.ndarray:
    """The mean over known items, NaN where none is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, values, 0.0).sum(-1) / known.sum(-1)
