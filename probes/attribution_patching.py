"""Attribution patching: what patching would do, for all cells at once, from the slope of the answer.

    effect[c] = sum over c of (a'_c - a_c) * dm/da_c          (activation patching, to first order)

with a the activations of the run that is patched, a' those that would be put there, m the number read. Two forward passes and one
backward pass in place of one run a cell. It is exact where the answer is linear in the cell, and wrong where it is not: a saturated
softmax, MLPs, two ways that cancel. AtP* mends the two that are known and bounds the rest:

* ``qk_fix``: queries and keys are judged through the attention pattern, computed again with the patched query or key;
* ``grad_drop``: ``reach[c]`` is the mean of |effect| over all layers but the cell's own, with that layer's sublayers handing back no slope,
  so that two ways whose slopes cancel cannot hide a cell; |effect| itself counts as one more, so that a shallow model's only way does not
  vanish with the layer it leads through (the paper's mean leaves it out, and divides by one less);
* ``verify``: the strongest cells are patched exactly, and with ``subsets`` the rest is patched in random subsets, from which the largest
  effect that could still be there is bounded.

With ``steps`` the slope is the mean over the straight way between the two inputs' embeddings (integrated gradients, as in EAP-IG).

Source: Nanda, Attribution Patching, 2023; Kramár, Lieberum, Shah and Nanda, AtP*: An efficient and scalable method for localizing LLM
behaviour to components, 2024 (arXiv:2403.00745); steps: Hanna, Pezzelle and Belinkov, Have Faith in Faithfulness, 2024 (arXiv:2403.17806).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from probes.false_negatives import LEVEL, bounds
from probes.first_order import FirstOrder
from probes.patch_metric import Read
from probes.patch_plan import Plan, read_plan
from probes.patch_result import Found, PatchResult, known_mean, patch_notes, patch_origin, patch_values
from probes.patch_spec import PatchSpec
from probes.patch_sweep import swept
from probes.places import is_own_batch, stack_of
from workbench.core.charts.frame import number
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress, silent
from workbench.core.result import STOPPED_EARLY


class AttributionPatchingSpec(PatchSpec):
    """What would be patched, with what, how the answer is read, and how far the estimate is checked."""

    qk_fix: bool = Field(default=True, description="judge queries and keys through the attention pattern, computed again")
    grad_drop: bool = Field(default=False, description="also the mean |effect| with each other layer's slope dropped: one backward a layer")
    steps: int = Field(default=1, ge=1, le=256, description="slopes averaged between the two inputs; 1 is at the run that is patched")
    verify: int = Field(default=0, ge=0, description="how many of the strongest cells are patched exactly")
    subsets: int = Field(default=0, ge=0, description="runs with random subsets of the other cells, to bound what was missed; 0 is none")


# --- compute ------------------------------------------------------------------------------------------------


def compute(model: HookedModel, inputs: Inputs, spec: AttributionPatchingSpec, progress: Progress) -> AttributionPatchingResult:
    """Estimate every cell. Raises BadValue for inputs that cannot be meant, NaN included."""
    return attributed(model, inputs, spec, progress=progress)


def attributed(
    model: HookedModel,
    inputs: Inputs,
    spec: AttributionPatchingSpec,
    *,
    metric: Read | None = None,
    name: str = "",
    progress: Progress = silent,
) -> AttributionPatchingResult:
    """The same with a ``metric`` of one's own, as in ``activation_patching.patched``; it must have a gradient."""
    plan = read_plan(model, inputs, spec, metric)
    _check(plan, model, inputs, spec)
    found, reach = _estimated(plan, spec, progress)
    strength = _strength(found.value - found.base, reach)
    order = np.argsort(-np.nan_to_num(strength), kind="stable")
    chosen, rest = np.sort(order[: spec.verify]), np.sort(order[spec.verify :])
    more = {"reach": reach, "exact": np.full(found.value.shape, np.nan), "bound": np.full(len(plan.places), np.nan)}
    notes = [*patch_notes(plan, inputs, found, name or ("the given metric" if metric is not None else "")), _how(spec)]
    stopped = False
    if spec.verify:
        exact, words, stopped = swept(replace(plan, places=[plan.places[k] for k in chosen]), spec.memory_mib << 20, progress)
        more["exact"][chosen] = exact.value - exact.base
        notes += [f"The {len(chosen)} strongest cells were patched exactly; {words}." + (" Interrupted: some were not." if stopped else "")]
    if spec.subsets and stopped:
        notes += ["No bound was put on the other cells: the patching was interrupted before."]
    elif spec.subsets:
        more["bound"][rest] = bounds(plan, [plan.places[k] for k in rest], spec.subsets, spec.memory_mib << 20, progress)
        notes += [
            f"With {LEVEL:.0%} confidence none of the {len(rest)} other cells moves the answer by more than "
            f"{number(float(np.nanmax(more['bound'])))} on average over items, each among random others patched with it "
            f"({spec.subsets} runs)."
        ]
    values = patch_values(plan, found, more).assign_attrs({STOPPED_EARLY: True} if stopped else {})
    return AttributionPatchingResult(INSTRUMENT.name, values, spec.model_dump(mode="json"), patch_origin(plan), notes=tuple(notes))


def _check(plan: Plan, model: HookedModel, inputs: Inputs, spec: AttributionPatchingSpec) -> None:
    items = len(plan.given.clean)
    if spec.verify > len(plan.places):
        raise BadValue("verify", spec.verify, f"at most the number of cells, {len(plan.places)}")
    if spec.subsets and len(plan.places) - spec.verify < 1:
        raise BadValue("subsets", spec.subsets, "0 where every cell is verified: nothing is left to bound")
    runs = (spec.verify + spec.subsets) * items
    if runs > spec.max_cells:
        raise BadValue("the number of edited runs", runs, f"at most max_cells = {spec.max_cells:,}", do="Lower verify or subsets.")
    if spec.steps > 1 and not plan.counterfactual:
        raise BadValue("steps", spec.steps, "1 unless replacement is 'counterfactual': the way runs between the two inputs")
    if spec.quantity == "kl" and plan.noising and spec.steps == 1:
        raise BadValue(
            "quantity", "kl", "another quantity, denoising, or steps above 1: at the clean run KL(clean ‖ patched) is at its "
            "least, and its slope is zero everywhere",
        )  # fmt: skip
    if spec.steps > 1 and is_own_batch(model, inputs.batch) and spec.stack:
        raise BadValue(
            "steps", spec.steps, f"1 for the stack '{spec.stack}': the way between two inputs runs through the first stack alone"
        )


def _estimated(plan: Plan, spec: AttributionPatchingSpec, progress: Progress) -> tuple[Found, np.ndarray]:
    """The unedited values with first-order ones, and the reach of each cell (NaN where it is not asked for)."""
    first = FirstOrder(plan, spec.qk_fix, spec.steps)
    shape = (len(plan.places), len(plan.given.clean))
    found, reach = Found.of(*shape), np.full(shape, np.nan)
    model = plan.given.clean.model
    stack = stack_of(model, spec.stack)
    layers = sorted({site.layer for site in model.sites().values() if site.layer is not None and site.stack == stack})
    at = np.array([place.layer for place in plan.places])
    for rows, source in plan.parts(first.sites()):
        effect, base, metric = first.effects(rows, source)
        real = np.stack([plan.real(place, rows) for place in plan.places])
        found.base[rows] = base
        (found.clean if plan.noising else found.corrupt)[rows] = base
        if plan.counterfactual:
            (found.corrupt if plan.noising else found.clean)[rows] = plan.there(metric, source)
        found.value[:, rows] = np.where(real, base + effect, np.nan)
        if spec.grad_drop:
            reach[:, rows] = np.where(real, _reach(first, rows, source, layers, at, np.abs(effect)), np.nan)
        progress(rows.stop, shape[1], "items")
    return found, reach


def _reach(first: FirstOrder, rows: slice, source: Any, layers: list[int], at: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """The mean |effect| with nothing dropped and with each layer but the cell's own."""
    total = plain.copy()
    for layer in layers if len(layers) > 1 else []:
        others = at != layer
        total[others] += np.abs(first.effects(rows, source, layer)[0][others])
    return total / len(layers)


def _strength(effect: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """What cells are ranked by, ``[cell]``: the mean reach where there is any, else the mean |effect|."""
    return known_mean(reach if np.isfinite(reach).any() else np.abs(effect))


def _how(spec: AttributionPatchingSpec) -> str:
    slope = "the run that is patched" if spec.steps == 1 else f"{spec.steps} points between the two inputs"
    fixed = "; queries and keys are judged through their pattern" if spec.qk_fix else ""
    return f"Effects are to first order, by slopes at {slope}{fixed}: no run was patched for them."


# --- result -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AttributionPatchingResult(PatchResult):
    """``PatchResult`` whose ``value``, ``effect`` and ``score`` are first-order estimates. NaN where not asked for: ``reach``, the mean
    |effect| with each other layer's slope dropped; ``exact``, the effect in a run of its own; ``bound``, how large the mean effect of
    a cell that was not verified could still be."""

    columns: ClassVar[tuple[str, ...]] = (*PatchResult.columns, "reach", "exact", "bound")

    def strength(self) -> np.ndarray:
        """What cells are ranked by, ``[cell]``."""
        v: Any = self.values
        return _strength(v.effect.values, v.reach.values)

    def summary(self) -> str:
        """The strongest cells; where cells were verified, how near their estimates were."""
        out, v = super().summary(), self.values
        known = np.isfinite(v.exact.values)
        if known.any():
            estimate, exact = v.effect.values[known], v.exact.values[known]
            if len(exact) > 1 and estimate.std() > 0 and exact.std() > 0:
                agreed = f"correlation {np.corrcoef(estimate, exact)[0, 1]:.3f}"
            else:
                agreed = f"largest difference {number(float(np.abs(estimate - exact).max()))}"
            out += f" Estimate against exact effect, {known.any(1).sum()} cells: {agreed}."
        if np.isfinite(v.bound.values).any():
            out += f" No other cell above {number(float(np.nanmax(v.bound.values)))} ({LEVEL:.0%})."
        return out


INSTRUMENT = Instrument(
    name="attribution-patching",
    question="Which activations would carry the answer between two runs, by its slope, for all cells at once?",
    spec=AttributionPatchingSpec,
    needs=Needs(
        abilities=frozenset({"logits", "edit", "grad"}),
        sites=("*blocks.*.hook_resid_pre",),
        inputs=("batch", "targets"),
        unless={"targets": ("quantity", "kl")},
    ),
    compute=compute,
)
