"""DeepLIFT: differences from a reference handed back through every operation, so that the parts add up to the whole.

    attribution_j = sum_d (x - x0)_jd m_jd,      sum_j attribution_j = f(x) - f(x0)

with m the multipliers of the rescale rule, products shared over both orders (``differences``). A library whose rules hang on modules has
none for GELU, gates, norms and the products of attention, hands on plain slopes there, and then gives input x gradient under another name.
Here every operation has a rule or is refused by its name, and the sum is held against the answer before anything is given back.

Sources: Shrikumar, Greenside and Kundaje, ICML 2017 (arXiv:1704.02685); Lundberg and Lee, NeurIPS 2017 (arXiv:1705.07874), Deep SHAP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from probes.asked import Asked, ask
from probes.attribution import AttributionResult, attribution_values
from probes.differences import Differences
from probes.gradient_once import ANSWERS, GradientSpec
from probes.pictures import with_picture
from probes.places import noise_note
from probes.removal import Replacement, replacement_of
from probes.token_items import origin, rows_a_pass, slices
from workbench.core.errors import BadValue, Incompatible
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress

NAME = "deep-lift"
WITHIN = 0.01
"""How far the sum of attributions may lie from the change of the answer, as a share of it."""
ROUNDING = 100
"""… and beyond that, how many roundings of the answer's own size."""


class DeepLiftSpec(GradientSpec):
    """What is explained, and from which reference."""

    filler: Replacement = Field(default="mean", description="the reference: what stands at every position that is no control token")
    filler_id: int | None = Field(default=None, description="the id of the filler 'token'; None is the mask or padding id")


def attributed(
    asked: Asked, start: Float[Tensor, "batch pos d_model"], progress: Progress
) -> tuple[Float[Tensor, "batch pos"], dict[str, int]]:
    """Attributions from ``start`` (float64), one pass of inputs and references together, and how often each rule was used.

    Raises Incompatible for an operation without a rule, and for items that answer each other (their references would answer too).
    """
    if asked.paired:
        raise Incompatible(NAME, "this model", ["items of a batch answer one another, so an item has no reference of its own"],
                           do="Ask integrated-gradients or occlusion.")  # fmt: skip
    parts, met = [], {}
    for part in slices(len(asked), max(1, rows_a_pass(asked.tokens_a_pass, asked.items.width) // 2)):
        rows = torch.arange(part.start, part.stop)
        x, x0 = asked.x[part], start[part]
        with Differences(NAME) as passed:
            multiplier = asked.gradients(torch.cat([rows, rows]), torch.cat([x, x0]))[: len(rows)]
        parts.append(((x - x0).double() * multiplier.double()).sum(-1))
        met = dict(passed.met)
        progress(part.stop, len(asked), "items")
    return torch.cat(parts).cpu(), met


def checked(found: Float[np.ndarray, "batch pos"], value: np.ndarray, begun: np.ndarray, rounding: float) -> Float[np.ndarray, " batch"]:
    """The gap of every item. Raises BadValue for attributions that are not finite, Incompatible where they do not add up."""
    if not np.isfinite(found).all():
        raise BadValue("the multipliers", "NaN or infinity", "finite", do="Choose another reference, or run in float64.")
    whole, sums = value - begun, found.sum(1)
    gap = np.abs(sums - whole)
    if (wrong := gap > WITHIN * np.abs(whole) + ROUNDING * rounding * (np.abs(value) + np.abs(begun))).any():
        row = int(wrong.argmax())
        raise Incompatible(
            NAME, "this model",
            [f"the attributions of item {row} add up to {sums[row]:.4g} where the answer changes by {whole[row]:.4g}, more than "
             f"{WITHIN:.0%} apart: something in the model escapes the rules"],
            do="Take another reference (from zero embeddings norms blow rounding up), run in float64, or ask integrated-gradients.",
        )  # fmt: skip
    return gap


def compute(model: HookedModel, inputs: Inputs, spec: DeepLiftSpec, progress: Progress) -> DeepLiftResult:
    """DeepLIFT of every item. One forward and backward pass of twice the rows."""
    asked = ask(model, inputs, spec)
    there, said = replacement_of(asked, spec.filler, spec.filler_id)
    start = torch.where(asked.features.to(asked.x.device)[..., None], there.to(asked.x), asked.x)
    found, met = attributed(asked, start, progress)
    every = torch.arange(len(asked))
    begun = torch.cat([asked.values(every[part], start[part]) for part in asked.passes(len(asked))]).double().cpu().numpy()
    value = asked.value.double().cpu().numpy()
    attribution = np.where(asked.features.numpy(), found.numpy(), 0.0)
    gap = checked(attribution, value, begun, torch.finfo(asked.x.dtype).eps)
    items, target = asked.items, asked.target
    extra = {"baseline_value": ("batch", begun), "gap": ("batch", gap)}
    rules = ", ".join(f"{name} ({count})" for name, count in sorted(met.items())) or "none: this model is linear"
    return DeepLiftResult(
        kind=NAME,
        values=with_picture(attribution_values(items, target, attribution, asked.value, asked.features, extra), model, items),
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=None, dtype=asked.x.dtype, targets=target.ids, foils=target.foils, positions=target.positions,
                          start=start, **items.data()),
        notes=(said, f"Operations that went by a rule: {rules}.", *noise_note(items)),
    )  # fmt: skip


@dataclass(frozen=True)
class DeepLiftResult(AttributionResult):
    """AttributionResult with ``baseline_value``, the answer at the reference, and ``gap``, how far the sum
    lies from what the answer changes by."""

    columns: ClassVar[tuple[str, ...]] = (*AttributionResult.columns, "baseline_value", "gap")

    def account(self, item: Any) -> str:
        return f"the answer goes from {float(item.baseline_value):.3g} to {float(item.value):.3g}"


INSTRUMENT = Instrument(
    name=NAME,
    question="How much of the answer's difference from a reference does each input token carry, by rules that add up?",
    spec=DeepLiftSpec,
    needs=Needs(reads=ANSWERS, abilities=frozenset({"logits", "edit", "grad"}), sites=("*hook_embed",), inputs=("batch", "targets")),
    compute=compute,
)
