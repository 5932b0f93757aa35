"""How much an attribution is worth: one method's scores beside those of random attributions.

The method runs on the inputs; what it says is scored by removal (``quality_removal``), by infidelity (``quality_infidelity``), by how
steady it is (``quality_stability``), by what is left of it on random weights (``quality_randomisation``), and, where a mask says which
positions matter, by where it points (``quality_mask``). A random attribution is the method's own with the values of each item's candidates
shuffled: a score that random ones reach as well says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from pydantic import Field
from torch import nn

from probes import INSTRUMENTS
from probes.asked import Asked, ask
from probes.attribution import AttributionResult
from probes.gradient_once import ANSWERS
from probes.quality_infidelity import infidelity, subsets
from probes.quality_mask import average_precision, is_mask, mask_of, mass, overlap, pointing
from probes.quality_randomisation import cascade, rank_correlation
from probes.quality_removal import placed, removed
from probes.quality_result import ExplanationQualityResult
from probes.quality_stability import Stood, nudges, sensitivity_max
from probes.removal import Replacement, replacement_of
from probes.target import Quantity
from probes.token_items import origin
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.spec import Spec

SHARED = ("quantity", "position", "stack", "bos")
"""Fields that say which scalar is meant: of this spec, handed to the method."""


class ExplanationQualitySpec(Spec):
    """Which method is scored, with which settings, and how thoroughly."""

    method: str = Field(default="input-x-gradient", description="the attribution to be scored, by its name in the catalogue")
    settings: dict[str, Any] = Field(default={}, description="fields of the method's own spec")
    quantity: Quantity = Field(default="logit", description="the scalar explained; 'logit-difference' is target minus foil")
    position: int | None = Field(default=None, description="whose logits are read: None is each item's last real token")
    stack: str = Field(default="", description="whose input is asked about, in a family of several stacks; '' is the first")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    filler: Replacement = Field(default="zero", description="what stands where a position was taken away")
    filler_id: int | None = Field(default=None, description="the id of the filler 'token'; None is the mask or padding id")
    order: Literal["signed", "abs"] = Field(default="signed", description="what comes first: the largest attribution, or the largest size")
    shares: tuple[float, ...] = Field(default=(0.01, 0.05, 0.1, 0.2, 0.5), min_length=1, description="of comprehensiveness and sufficiency")
    points: int = Field(default=10, ge=1, le=200, description="steps of the deletion and insertion curves")
    subsets: int = Field(default=32, ge=0, le=4096, description="random subsets for infidelity; 0 leaves it out")
    nudges: int = Field(default=4, ge=0, le=256, description="changed embeddings for sensitivity-max; 0 leaves it out")
    radius: float = Field(default=0.05, gt=0, le=1, description="size of a change, as a share of the embeddings' root mean square")
    randomise: Literal["cascade", "whole", "none"] = Field(
        default="cascade", description="weights shuffled block by block, all at once, or not"
    )
    draws: int = Field(default=20, ge=1, le=1000, description="random attributions beside the method's")
    seed: int = Field(default=0, ge=0, description="of shuffles, subsets and changes")
    tokens_a_pass: int = Field(default=16384, ge=1, description="tokens in one forward pass at most")


@dataclass(frozen=True)
class Method:
    """An attribution method ready to be asked again: its instrument, spec and inputs."""

    instrument: Instrument
    spec: Spec
    inputs: Inputs

    def __call__(self, model: Any) -> AttributionResult:
        result = self.instrument(model, self.inputs, self.spec)
        if not isinstance(result, AttributionResult):
            raise BadValue("method", self.instrument.name, "an instrument that gives every position one attribution")
        return result

    def numbers(self, model: Any) -> Float[np.ndarray, "batch pos"]:
        """Only the attributions."""
        return self(model).values.attribution.values


def method_of(spec: ExplanationQualitySpec, inputs: Inputs) -> Method:
    """The method of the spec. Raises UnknownName and BadValue. A mask says where the truth lies, so the method does not see it."""
    if spec.method == INSTRUMENT.name:
        raise BadValue("method", spec.method, "an instrument that gives every position one attribution")
    if twice := sorted(set(spec.settings) & set(SHARED)):
        raise BadValue("settings", twice, "without what this spec says itself", do=f"Give {', '.join(twice)} beside `method`.")
    instrument = INSTRUMENTS.load(spec.method)
    fields = instrument.spec.model_fields
    if spec.stack and "stack" not in fields:
        raise BadValue("stack", spec.stack, f"left out for '{spec.method}', which asks about token decoders only")
    shared = {name: getattr(spec, name) for name in SHARED if name in fields}
    own = instrument.spec.parse({**shared, **spec.settings}, what=f"settings of {spec.method}")
    return Method(instrument, own, replace(inputs, labels=None) if is_mask(inputs.labels) else inputs)


# --- compute ------------------------------------------------------------------------------------------------


def compute(model: HookedModel, inputs: Inputs, spec: ExplanationQualitySpec, progress: Progress) -> ExplanationQualityResult:
    """The method's attribution and its scores. Raises BadValue and Incompatible as the method does."""
    method = method_of(spec, inputs)
    asked = ask(model, inputs, spec)
    given = method(Stood(model, asked.site))
    attribution, candidate = given.values.attribution.values, given.values.candidate.values
    if attribution.shape != (len(asked), asked.items.width):
        raise BadValue("method", spec.method, "one whose positions are those of the stack asked about")
    mask = mask_of(inputs.labels, attribution.shape, candidate)
    progress(1, 4, spec.method)
    start, said = replacement_of(asked, spec.filler, spec.filler_id)
    rng = np.random.default_rng(spec.seed)
    everyone = np.stack([np.where(candidate, attribution, 0.0), *shuffled(attribution, candidate, spec.draws, rng)])
    scores, curves = by_removal(asked, start, everyone, candidate, spec, rng)
    if mask is not None:
        strength = everyone if spec.order == "signed" else np.abs(everyone)
        place = placed(strength, candidate, rng)
        scores["pointing"] = pointing(place, mask)
        scores["overlap"], scores["average_precision"] = (fn(place, candidate, mask) for fn in (overlap, average_precision))
        scores["mass"] = mass(everyone, candidate, mask)
    progress(2, 4, "removal")
    scores["sensitivity_max"] = _steadiness(asked, method, everyone, candidate, spec)
    progress(3, 4, "nudges")
    correlations, stages = _randomised(asked, method, everyone, candidate, spec)
    scores["randomised"] = np.concatenate([correlations[-1:], [rank_correlation(one, everyone[0], candidate) for one in everyone[1:]]])
    progress(4, 4, "random weights")
    return ExplanationQualityResult(
        kind=INSTRUMENT.name,
        values=_dataset(asked, given, scores, curves, (correlations, stages)),
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=spec.seed, dtype=asked.x.dtype, targets=asked.target.ids, foils=asked.target.foils,
                          positions=asked.target.positions, mask=mask, start=start, **asked.items.data()),
        notes=(said, *_notes(model, mask, spec), *given.notes),
    )  # fmt: skip


def shuffled(
    attribution: Float[np.ndarray, "batch pos"], candidate: Bool[np.ndarray, "batch pos"], draws: int, rng: np.random.Generator
) -> list[Float[np.ndarray, "batch pos"]]:
    """Random attributions: each item's values, dealt to its candidates anew."""
    out = []
    for _ in range(draws):
        dealt = np.zeros_like(attribution)
        for row, inside in enumerate(candidate):
            dealt[row, inside] = rng.permutation(attribution[row, inside])
        out.append(dealt)
    return out


def by_removal(
    asked: Asked, start: Any, everyone: Float[np.ndarray, "scored batch pos"], candidate: Bool[np.ndarray, "batch pos"],
    spec: ExplanationQualitySpec, rng: np.random.Generator,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:  # fmt: skip
    """The scores ``[scored, batch]`` that need edited runs, by name, and the curves ``[scored, share]`` (means over items)."""
    strength = everyone if spec.order == "signed" else np.abs(everyone)
    found = removed(asked, start, placed(strength, candidate, rng), candidate, spec.shares, spec.points)
    scores = {
        "comprehensiveness": found.comprehensiveness,
        "sufficiency": found.sufficiency,
        "deletion_area": found.area(found.deletion),
        "insertion_area": found.area(found.insertion),
    }
    if spec.subsets:
        scores["infidelity"], scores["infidelity_scaled"] = infidelity(asked, start, everyone, subsets(candidate, spec.subsets, rng))
    curves = {"deletion": found.deletion.mean(1), "insertion": found.insertion.mean(1), "share": found.share}
    return scores, curves


def _steadiness(
    asked: Asked, method: Method, everyone: np.ndarray, candidate: np.ndarray, spec: ExplanationQualitySpec
) -> Float[np.ndarray, "scored batch"]:
    """Sensitivity-max of the method, and of random attributions that are drawn anew each time they are asked."""
    out = np.full(everyone.shape[:2], np.nan)
    if spec.nudges:
        changes = nudges(asked, spec.radius, spec.nudges, spec.seed)
        out[0] = sensitivity_max(everyone[0], [method.numbers(Stood(asked.model, asked.site, one)) for one in changes], candidate)
        rng = np.random.default_rng([spec.seed, 1])
        for k, one in enumerate(everyone[1:], start=1):
            out[k] = sensitivity_max(one, shuffled(one, candidate, spec.nudges, rng), candidate)
    return out


def _randomised(
    asked: Asked, method: Method, everyone: np.ndarray, candidate: np.ndarray, spec: ExplanationQualitySpec
) -> tuple[Float[np.ndarray, "stage batch"], list[str]]:
    """The rank correlation with the attribution after each stage."""
    if spec.randomise == "none" or not isinstance(asked.model, nn.Module):
        return np.full((1, len(asked)), np.nan), ["not asked"]
    rows, stages = [], []
    for stage, other in cascade(asked.model, spec.seed, every=spec.randomise == "cascade"):
        rows.append(rank_correlation(method.numbers(Stood(other, asked.site)), everyone[0], candidate))
        stages.append(stage)
    return np.stack(rows), stages


def _dataset(
    asked: Asked,
    given: AttributionResult,
    scores: dict[str, np.ndarray],
    curves: dict[str, np.ndarray],
    randomised: tuple[np.ndarray, list[str]],
) -> xr.Dataset:
    count = len(curves["deletion"])
    empty = np.full((count, len(asked)), np.nan)
    named: Callable[[str], Any] = lambda name: (("batch", "scored"), scores.get(name, empty).T)  # noqa: E731
    return xr.Dataset(
        {
            **{name: named(name) for name in ExplanationQualityResult.measures},
            "value": ("batch", asked.value.numpy()),
            "candidates": ("batch", given.values.candidate.values.sum(1)),
            "deletion": (("scored", "share"), curves["deletion"]),
            "insertion": (("scored", "share"), curves["insertion"]),
            "left": (("batch", "stage"), randomised[0].T),
            "attribution": given.values.attribution,
            "candidate": given.values.candidate,
        },
        coords={
            "batch": np.arange(len(asked)),
            "scored": ["method", *(f"random {k}" for k in range(1, count))],
            "share": curves["share"],
            "stage": randomised[1],
            "pos": given.values.pos,
            "token": given.values.token,
        },
    )


def _notes(model: HookedModel, mask: Any, spec: ExplanationQualitySpec) -> list[str]:
    out = [f"A random attribution is the method's own, dealt anew among an item's candidates; {spec.draws} of them."]
    if spec.randomise != "none" and not isinstance(model, nn.Module):
        out.append("Not asked on random weights: this model's weights cannot be copied.")
    if mask is None:
        out.append("No mask was given (`labels` as booleans), so what is measured against one is left out.")
    return out


INSTRUMENT = Instrument(
    name="explanation-quality",
    question="Is an attribution of this model worth more than a random one?",
    spec=ExplanationQualitySpec,
    needs=Needs(reads=ANSWERS, abilities=frozenset({"logits", "edit"}), sites=("*hook_embed",), inputs=("batch", "targets")),
    compute=compute,
    floors={"planted word": "all measures better than every random attribution", "untrained": "at chance of the planted word"},
)
