"""SmoothGrad: saliency averaged over noisy copies of the input.

    attribution_j = mean over e of || d f(x + e) / d x_j ||_2,  e normal, of spread ``noise`` times the embeddings' root mean square

Source: Smilkov, Thorat, Kim, Viegas and Wattenberg, SmoothGrad, 2017 (arXiv:1706.03825), with the Euclidean norm over an embedding as the
map that is averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from probes.asked import Asked, ask
from probes.attribution import AttributionResult, attribution_values
from probes.gradient_once import ANSWERS, GradientSpec
from probes.noisy import averaged, drawn, each, noise_like, size_of
from probes.pictures import with_picture
from probes.places import noise_note
from probes.token_items import origin
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress


class SmoothGradSpec(GradientSpec):
    """What is explained, and over which noise."""

    samples: int = Field(default=24, ge=2, le=10_000, description="noisy copies of each item")
    noise: float = Field(default=0.15, gt=0, le=10, description="spread of the noise, as a share of the embeddings' root mean square")
    seed: int = Field(default=0, ge=0, description="of the noise")


def noisy_gradients(asked: Asked, rows: Tensor, samples: Tensor, size: np.ndarray, seed: int) -> Tensor:
    """Gradients ``[n, pos, d_model]`` at noisy copies: one for each pair of an item and a sample."""
    noise = [noise_like(asked, row, float(size[row]), drawn(seed, row, k)) for row, k in each(rows, samples)]
    found = asked.gradients(rows, asked.x[rows.to(asked.x.device)] + torch.stack(noise))
    if not bool(torch.isfinite(found).all()):
        raise BadValue("the gradient at a noisy copy", "NaN or infinity", "finite", do="Run in float64, or with less noise.")
    return found


def compute(model: HookedModel, inputs: Inputs, spec: SmoothGradSpec, progress: Progress) -> SmoothGradResult:
    """The mean gradient norm of every position. ``samples`` forward and backward passes an item."""
    asked = ask(model, inputs, spec)
    size = size_of(asked, spec.noise)
    found = averaged(asked, spec.samples, lambda rows, k: noisy_gradients(asked, rows, k, size, spec.seed).norm(dim=-1), progress)
    items, target = asked.items, asked.target
    extra = {"standard_error": (("batch", "pos"), np.where(items.real.numpy(), found.error, np.nan))}
    return SmoothGradResult(
        kind=INSTRUMENT.name,
        values=with_picture(attribution_values(items, target, found.mean, asked.value, asked.features, extra), model, items),
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=spec.seed, dtype=asked.x.dtype, targets=target.ids, foils=target.foils, positions=target.positions,
                          **items.data()),
        notes=("SmoothGrad has no sign and no completeness: compare tokens of one item, not items.", *noise_note(items)),
    )  # fmt: skip


@dataclass(frozen=True)
class SmoothGradResult(AttributionResult):
    """AttributionResult whose attributions are mean norms (0 or more), with their ``standard_error`` over the noise."""

    signed: ClassVar[bool] = False
    columns: ClassVar[tuple[str, ...]] = (*AttributionResult.columns, "standard_error")


INSTRUMENT = Instrument(
    name="smooth-grad",
    question="At which token would a small change move the answer most, on average over the input's neighbours?",
    spec=SmoothGradSpec,
    needs=Needs(reads=ANSWERS, abilities=frozenset({"logits", "edit", "grad"}), sites=("*hook_embed",), inputs=("batch", "targets")),
    compute=compute,
)
