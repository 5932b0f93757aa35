"""Activation patching: how far one activation, put into another run, moves the answer.

    value[c] = m(run of x with a_c := a'_c)        score[c] = (value[c] - m(corrupt)) / (m(clean) - m(corrupt))

for each cell c (a component of a layer, at a position, a head, a neuron, or whole), with m a number read from the logits. Denoising runs
the corrupt input, puts clean activations into it, and finds what is enough to bring the answer back; noising runs the clean input, puts
corrupt ones into it, and finds what the answer needs. The two differ wherever parts can stand in for each other, so direction and
kind of replacement are named in every result. Zero, mean and resample replacements run the clean input and need no corrupt one; they have
effects, and no score.

Source: Vig et al., Investigating Gender Bias in Language Models Using Causal Mediation Analysis, 2020 (arXiv:2004.12265); Meng et al.,
Locating and Editing Factual Associations in GPT, 2022 (arXiv:2202.05262); on directions, metrics and corruptions, Zhang and Nanda, Towards
Best Practices of Activation Patching, 2024 (arXiv:2309.16042); Heimersheim and Nanda, How to Use and Interpret Activation Patching, 2024
(arXiv:2404.15255).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probes.patch_metric import Read
from probes.patch_plan import read_plan
from probes.patch_result import PatchResult, patch_notes, patch_origin, patch_values
from probes.patch_spec import PatchSpec
from probes.patch_sweep import swept
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress, silent
from workbench.core.result import STOPPED_EARLY


class ActivationPatchingSpec(PatchSpec):
    """What is patched, with what, and how the answer is read."""


# --- compute ------------------------------------------------------------------------------------------------


def compute(model: HookedModel, inputs: Inputs, spec: ActivationPatchingSpec, progress: Progress) -> ActivationPatchingResult:
    """Patch every cell. Raises BadValue for inputs that cannot be meant, NaN included."""
    return patched(model, inputs, spec, progress=progress)


def patched(
    model: HookedModel,
    inputs: Inputs,
    spec: ActivationPatchingSpec,
    *,
    metric: Read | None = None,
    name: str = "",
    progress: Progress = silent,
) -> ActivationPatchingResult:
    """The same with a ``metric`` of one's own: logits ``[batch, answer]`` at each item's position to one number an item. ``name`` says in
    the result what it is. Ctrl-C ends the sweep: cells not reached are NaN, and a note counts them."""
    plan = read_plan(model, inputs, spec, metric)
    cells, items = len(plan.places), len(plan.given.clean)
    if cells * items > spec.max_cells:
        raise BadValue("the number of edited runs", f"{cells} cells of {items} items", f"at most max_cells = {spec.max_cells:,}",
                       do="Choose fewer layers, positions, heads or neurons, or raise max_cells.")  # fmt: skip
    found, words, stopped = swept(plan, spec.memory_mib << 20, progress)
    notes = patch_notes(plan, inputs, found, name or ("the given metric" if metric is not None else ""))
    notes = (*notes, *([f"Memory by estimate: {words}."] if words else []))
    if stopped:
        done = f"{int(np.isfinite(found.value).sum())} of {found.value.size} values were computed"
        notes = (*notes, f"Interrupted: {done}, and the rest is missing.")
    values, kind = patch_values(plan, found).assign_attrs({STOPPED_EARLY: True} if stopped else {}), INSTRUMENT.name
    return ActivationPatchingResult(kind, values, spec.model_dump(mode="json"), patch_origin(plan), notes=notes)


@dataclass(frozen=True)
class ActivationPatchingResult(PatchResult):
    """What activation patching found: ``PatchResult`` with every value that of a run."""


INSTRUMENT = Instrument(
    name="activation-patching",
    question="Which activations, put into another run, carry the answer with them?",
    spec=ActivationPatchingSpec,
    needs=Needs(
        abilities=frozenset({"logits", "edit"}),
        sites=("*blocks.*.hook_resid_pre",),
        inputs=("batch", "targets"),
        unless={"targets": ("quantity", "kl")},
    ),
    compute=compute,
)
