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
from pydantic import Field

from probes.patch_cells import WHOLE, Place
from probes.patch_given import Source
from probes.patch_metric import Read
from probes.patch_plan import Plan, finite, own, read_plan
from probes.patch_result import Found, PatchResult, patch_notes, patch_origin, patch_values
from probes.patch_spec import PatchSpec
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress, silent
from workbench.engine.sweep import prepare


class ActivationPatchingSpec(PatchSpec):
    """What is patched, with what, and how the answer is read."""

    max_cells: int = Field(default=200_000, ge=1, description="edited runs at most, items counted")
    memory_mib: int = Field(default=1024, ge=1, description="memory of the edited runs at most, by estimate")


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
    places, items = plan.places, len(plan.given.clean)
    if len(places) * items > spec.max_cells:
        asked = f"{len(places)} cells of {items} items"
        raise BadValue("the number of edited runs", asked, f"at most max_cells = {spec.max_cells:,}",
                       do="Choose fewer layers, positions, heads or neurons, or raise max_cells.")  # fmt: skip
    found = Found.of(len(places), items)
    words, stopped = "", False
    try:
        for rows, source in plan.parts():
            words = _sweep(plan, rows, source, spec.memory_mib << 20, found, progress) or words
    except KeyboardInterrupt:
        if not np.isfinite(found.value).any():
            raise
        stopped = True
    notes = patch_notes(plan, inputs, found, name or ("the given metric" if metric is not None else ""))
    notes = (*notes, *([f"Memory by estimate: {words}."] if words else []))
    if stopped:
        done = f"{int(np.isfinite(found.value).sum())} of {found.value.size} values were computed"
        notes = (*notes, f"Interrupted: {done}, and the rest is missing.")
    values, kind = patch_values(plan, found), INSTRUMENT.name
    return ActivationPatchingResult(kind, values, spec.model_dump(mode="json"), patch_origin(plan), notes=notes)


def _sweep(plan: Plan, rows: slice, source: Source, memory: int, found: Found, progress: Progress) -> str:
    """Fill ``found`` for some items; the estimate of memory in words."""
    given, side, places = plan.given, plan.side, plan.places
    metric = plan.metric(rows, source)
    since = given.shared(rows) if plan.counterfactual else 0
    real = side.items.real[rows].numpy()
    moving = [k for k, place in enumerate(places) if _moves(place, since, real)]
    edits = [source.edit(places[k].site, places[k].index(since)) for k in moving] or [source.edit(places[0].site, {})]
    ready = prepare(side.model, side.batch(rows), edits, logits=given.logits(rows), memory=memory)
    base = finite(ready.plain(metric), "clean" if plan.noising else "corrupt")
    found.base[rows] = base
    (found.clean if plan.noising else found.corrupt)[rows] = base
    if plan.counterfactual:
        (found.corrupt if plan.noising else found.clean)[rows] = plan.there(metric, source)
    shown = np.stack([real[:, place.pos] if place.pos != WHOLE and own(place) else real[:, 0] | True for place in places])
    for k in set(range(len(places))) - set(moving):  # what is put there is what was there
        found.value[k, rows] = np.where(shown[k], base, np.nan)
    total = len(places) * len(found.base)
    before = len(places) * rows.start
    step = lambda done, _, words: progress(min(total, before + done * (rows.stop - rows.start)), total, words)  # noqa: E731
    if moving:
        for index, value in ready.results(metric, progress=step):
            found.value[moving[index], rows] = np.where(shown[moving[index]], value.double().cpu().numpy(), np.nan)
    progress(before + len(places) * (rows.stop - rows.start), total, str(ready.estimate))
    return str(ready.estimate)


def _moves(place: Place, since: int, real: np.ndarray) -> bool:
    """Whether there can be anything to replace: a position that is the same in both, or padding in every item, has nothing."""
    if not own(place):
        return True
    width = real.shape[1]
    if place.pos == WHOLE:
        return since < width
    return place.pos >= since and bool(real[:, place.pos].any())


@dataclass(frozen=True)
class ActivationPatchingResult(PatchResult):
    """What activation patching found: ``PatchResult`` with every value that of a run."""


INSTRUMENT = Instrument(
    name="activation-patching",
    question="Which activations, put into another run, carry the answer with them?",
    spec=ActivationPatchingSpec,
    needs=Needs(abilities=frozenset({"logits", "edit"}), sites=("*blocks.*.hook_resid_pre",), inputs=("batch", "targets")),
    compute=compute,
)
