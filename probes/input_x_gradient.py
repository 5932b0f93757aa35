"""Input times gradient: the first-order effect of taking each token's embedding to zero.

    attribution_j = sum_d x_jd * d f / d x_jd

This is integrated gradients from the zero baseline with one step at the input itself (the right rule), and exact only where
f is linear in the embeddings. The completeness gap is left to integrated gradients.

Source: Shrikumar, Greenside, Shcherbina and Kundaje, Not Just a Black Box, 2016 (arXiv:1605.01713); Denil, Demiraj and
de Freitas, Extraction of Salient Sentences from Labelled Documents, 2014 (arXiv:1412.6815).
"""

from __future__ import annotations

from dataclasses import dataclass

from probes.attribution import AttributionResult, attribution_values
from probes.gradient_once import ANSWERS, GradientSpec, gradient_at_input
from probes.pictures import with_picture
from probes.places import noise_note
from probes.token_items import origin
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress


class InputXGradientSpec(GradientSpec):
    """What is explained."""


def compute(model: HookedModel, inputs: Inputs, spec: InputXGradientSpec, progress: Progress) -> InputXGradientResult:
    """Embedding times gradient of every token, summed over the embedding. One forward and backward pass a batch."""
    items, target, x, gradient, value = gradient_at_input(model, inputs, spec, progress)
    attribution = (x.double() * gradient.double()).sum(-1).cpu().numpy()
    return InputXGradientResult(
        kind=INSTRUMENT.name,
        values=with_picture(attribution_values(items, target, attribution, value, items.real & ~items.control), model, items),
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=None, dtype=x.dtype, targets=target.ids, foils=target.foils, positions=target.positions,
                          **items.data()),
        notes=("First order only: the attributions need not add up to the effect of removing the tokens.", *noise_note(items)),
    )  # fmt: skip


@dataclass(frozen=True)
class InputXGradientResult(AttributionResult):
    """AttributionResult in units of the target's scalar."""


INSTRUMENT = Instrument(
    name="input-x-gradient",
    question="To first order, how much would the answer lose if a token's embedding were zero?",
    spec=InputXGradientSpec,
    needs=Needs(reads=ANSWERS, abilities=frozenset({"logits", "edit", "grad"}), sites=("*hook_embed",), inputs=("batch", "targets")),
    compute=compute,
)
