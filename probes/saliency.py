"""Saliency: the length of the gradient of the answer at each token's embedding.

    attribution_j = || d f / d x_j ||_2

It has no sign and does not add up to anything: it says where a small change would move the answer most, not what made it.

Source: Simonyan, Vedaldi and Zisserman, Deep Inside Convolutional Networks, 2013 (arXiv:1312.6034), who take the largest
absolute entry; the Euclidean norm over an embedding is usual for text (Bastings et al. 2022, arXiv:2111.07367, "Grad L2").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from probes.attribution import AttributionResult, attribution_values
from probes.gradient_once import ANSWERS, GradientSpec, gradient_at_input
from probes.pictures import with_picture
from probes.places import noise_note
from probes.token_items import origin
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress


class SaliencySpec(GradientSpec):
    """What is explained."""


def compute(model: HookedModel, inputs: Inputs, spec: SaliencySpec, progress: Progress) -> SaliencyResult:
    """The gradient norm of every token. One forward and backward pass a batch."""
    items, target, x, gradient, value = gradient_at_input(model, inputs, spec, progress)
    attribution = gradient.double().norm(dim=-1).cpu().numpy()
    return SaliencyResult(
        kind=INSTRUMENT.name,
        values=with_picture(attribution_values(items, target, attribution, value, items.real & ~items.control), model, items),
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=None, dtype=x.dtype, targets=target.ids, foils=target.foils, positions=target.positions,
                          **items.data()),
        notes=("Saliency has no sign and no completeness: compare tokens of one item, not items.", *noise_note(items)),
    )  # fmt: skip


@dataclass(frozen=True)
class SaliencyResult(AttributionResult):
    """AttributionResult whose attributions are norms (0 or more, logit units per unit of embedding)."""

    signed: ClassVar[bool] = False


INSTRUMENT = Instrument(
    name="saliency",
    question="At which token would a small change of its embedding move the answer most?",
    spec=SaliencySpec,
    needs=Needs(reads=ANSWERS, abilities=frozenset({"logits", "edit", "grad"}), sites=("*hook_embed",), inputs=("batch", "targets")),
    compute=compute,
)
