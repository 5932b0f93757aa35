"""A planned patching run cell by cell, exactly, in the sweep engine."""

from __future__ import annotations

import numpy as np

from probes.patch_cells import WHOLE, Place
from probes.patch_given import Source
from probes.patch_plan import Plan, finite, own
from probes.patch_result import Found
from workbench.core.protocol import Progress, silent
from workbench.engine.sweep import prepare


def swept(plan: Plan, memory: int, progress: Progress = silent) -> tuple[Found, str, bool]:
    """Every cell of every item; the estimate of memory in words; whether Ctrl-C ended it early (cells not reached are NaN)."""
    found = Found.of(len(plan.places), len(plan.given.clean))
    words = ""
    try:
        for rows, source in plan.parts():
            words = _sweep(plan, rows, source, memory, found, progress) or words
    except KeyboardInterrupt:
        if not np.isfinite(found.value).any():
            raise
        return found, words, True
    return found, words, False


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
    shown = np.stack([plan.real(place, rows) for place in places])
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
