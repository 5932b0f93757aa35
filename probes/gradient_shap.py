"""GradientSHAP (expected gradients): gradients at random points between drawn baselines and a noisy input.

    attribution_j = mean over (x0, a, e) of  sum_d (x + e - x0)_jd  d f(x0 + a (x + e - x0)) / d x_jd

with a uniform in [0, 1], e normal noise, x0 drawn from the baselines. From one baseline and without noise it is integrated gradients with
random nodes. The mean comes with its standard error, and the sum with its gap to f(x) - mean f(x0), which sampling closes only slowly.

Sources: Lundberg and Lee, NeurIPS 2017 (arXiv:1705.07874) and its GradientExplainer; Erion, Janizek, Sturmfels, Lundberg and Lee, Nature
Machine Intelligence 2021 (arXiv:1906.10670), expected gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from probes.asked import Asked, ask
from probes.attribution import AttributionResult, attribution_values
from probes.gradient_once import ANSWERS, GradientSpec
from probes.noisy import averaged, drawn, each, noise_like, size_of
from probes.pictures import with_picture
from probes.places import noise_note
from probes.removal import replacement_of
from probes.token_items import origin
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress


class GradientShapSpec(GradientSpec):
    """What is explained, from which baselines, and how many points."""

    baseline: Literal["zero", "token", "mean", "items"] = Field(default="zero", description="where points start; 'items' draws other items")
    baseline_id: int | None = Field(default=None, description="the id of the baseline 'token'; None is the mask or padding id")
    samples: int = Field(default=32, ge=2, le=10_000, description="points drawn for each item")
    noise: float = Field(
        default=0.0, ge=0, le=10, description="spread of the input's noise, as a share of the embeddings' root mean square"
    )
    seed: int = Field(default=0, ge=0, description="of baselines, points and noise")

    @model_validator(mode="after")
    def _fits(self) -> GradientShapSpec:
        if self.baseline_id is not None and self.baseline != "token":
            raise ValueError(f"baseline_id with the baseline 'token' only, not '{self.baseline}'")
        return self


@dataclass(frozen=True)
class Drawn:
    """Points between baselines and noisy inputs: ``start`` ``[batch, pos, d_model]`` (None: other items), noise ``size`` ``[batch]``."""

    asked: Asked
    start: Float[Tensor, "batch pos d_model"] | None
    size: Float[np.ndarray, " batch"]
    seed: int

    def point(self, row: int, sample: int) -> tuple[float, Tensor, Tensor]:
        """How far along, the baseline, and the way from it to the noisy input."""
        rng = drawn(self.seed, row, sample)
        alpha, x = float(rng.random()), self.asked.x[row]
        if self.start is None:
            other = int(rng.integers(len(self.asked) - 1))
            base = torch.where(self.asked.features[row].to(x.device)[:, None], self.asked.x[other + (other >= row)], x)
        else:
            base = self.start[row]
        return alpha, base, x + noise_like(self.asked, row, float(self.size[row]), rng) - base

    def products(self, rows: Tensor, samples: Tensor) -> Float[Tensor, "n pos"]:
        """Gradient times way, summed over the embedding."""
        points = [self.point(row, k) for row, k in each(rows, samples)]
        at, way = torch.stack([base + alpha * way for alpha, base, way in points]), torch.stack([way for _, _, way in points])
        gradient = self.asked.gradients(rows, at)
        if not bool(torch.isfinite(gradient).all()):
            raise BadValue(
                "the gradient between baseline and input", "NaN or infinity", "finite", do="Choose another baseline, or float64."
            )
        return (gradient.double() * way.double()).sum(-1)


def compute(model: HookedModel, inputs: Inputs, spec: GradientShapSpec, progress: Progress) -> GradientShapResult:
    """Expected gradients of every item. ``samples`` forward and backward passes an item."""
    if inputs.reference is not None:
        raise BadValue("inputs.reference", "given", "left out: baselines are named by the spec")
    asked = ask(model, inputs, spec)
    start, said = _start(asked, spec)
    begun = _begun(asked, start)
    found = averaged(asked, spec.samples, Drawn(asked, start, size_of(asked, spec.noise), spec.seed).products, progress)
    items, target = asked.items, asked.target
    extra = {
        "standard_error": (("batch", "pos"), np.where(items.real.numpy(), found.error, np.nan)),
        "baseline_value": ("batch", begun),
        "gap": ("batch", np.abs(found.mean.sum(1) - (asked.value.numpy() - begun))),
    }
    return GradientShapResult(
        kind=INSTRUMENT.name,
        values=with_picture(attribution_values(items, target, found.mean, asked.value, asked.features, extra), model, items),
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=spec.seed, dtype=asked.x.dtype, targets=target.ids, foils=target.foils, positions=target.positions,
                          start=start, **items.data()),
        notes=(said, *noise_note(items)),
    )  # fmt: skip


def _start(asked: Asked, spec: GradientShapSpec) -> tuple[Tensor | None, str]:
    if spec.baseline != "items":
        start, _ = replacement_of(asked, spec.baseline, spec.baseline_id)
        standing = asked.features.to(asked.x.device)[..., None]
        return torch.where(standing, start, asked.x), f"Baseline: '{spec.baseline}' at every position that is no control token."
    lengths = asked.items.lengths
    if len(asked) < 2 or bool((lengths != lengths[0]).any()):
        raise BadValue("baseline", "items", "'zero', 'token' or 'mean' unless there are two items or more, all of one length")
    return None, "Baselines: the batch's other items, position by position."


def _begun(asked: Asked, start: Tensor | None) -> Float[np.ndarray, " batch"]:
    """The mean answer at an item's baselines."""
    every = torch.arange(len(asked))
    if start is not None:
        return asked.kept_values(every, ~asked.features, start).numpy()
    rows, others = torch.cartesian_prod(every, every).unbind(1)
    rows, others = rows[rows != others], others[rows != others]
    out: list[Any] = []
    for part in asked.passes(len(rows)):
        standing = asked.features[rows[part]].to(asked.x.device)[..., None]
        device = asked.x.device
        base = torch.where(standing, asked.x[others[part].to(device)], asked.x[rows[part].to(device)])
        out.append(asked.values(rows[part], base))
    return torch.cat(out).reshape(len(asked), -1).mean(1).numpy()


@dataclass(frozen=True)
class GradientShapResult(AttributionResult):
    """AttributionResult with ``standard_error`` ``[batch, pos]`` of the drawing, ``baseline_value``, the mean answer at the baselines, and
    ``gap``, |sum of attributions - (value - baseline_value)|."""

    columns: ClassVar[tuple[str, ...]] = (*AttributionResult.columns, "standard_error", "baseline_value", "gap")

    def account(self, item: Any) -> str:
        return f"the answer goes from {float(item.baseline_value):.3g} to {float(item.value):.3g}, gap {float(item.gap):.2g}"


INSTRUMENT = Instrument(
    name="gradient-shap",
    question="How much did each input token move the answer, on average over baselines and points between?",
    spec=GradientShapSpec,
    needs=Needs(reads=ANSWERS, abilities=frozenset({"logits", "edit", "grad"}), sites=("*hook_embed",), inputs=("batch", "targets")),
    compute=compute,
)
