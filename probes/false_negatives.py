"""How large an effect could still hide among cells that were not patched one by one: random subsets of them, patched together.

A cell's effect among random others is estimated by the mean of the runs it was in less the mean of the runs it was not in, and bounded
from above by that plus its Welch error, at one level for all cells together (Bonferroni). A bound on effects *among random others*: two
cells that stand in for each other can each be larger alone.

Source: the subset sampling of Kramár, Lieberum, Shah and Nanda, AtP*, 2024 (arXiv:2403.00745), section on diagnostics; Welch, The
generalization of Student's problem, Biometrika 1947.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from probes.patch_cells import Place
from probes.patch_plan import Plan, finite
from workbench.core.errors import BadValue
from workbench.core.protocol import Progress
from workbench.engine.sweep import prepare

LEVEL = 0.95
SHARE = 0.25
"""Of the runs that a cell is in."""
FEWEST = 16
"""Runs, so that a cell is in four at least: the error of a mean needs several."""


def bounds(plan: Plan, places: Sequence[Place], runs: int, memory: int, progress: Progress) -> np.ndarray:
    """For each cell ``[cell]`` how large its mean effect over items could be. Raises BadValue for too few runs."""
    if runs < FEWEST:
        raise BadValue("subsets", runs, f"0, or at least {FEWEST}: a cell must be in several of them")
    member = _members(len(places), runs, np.random.default_rng(plan.spec.seed))
    total = np.zeros((runs, len(plan.given.clean)))
    for rows, source in plan.parts():
        metric = plan.metric(rows, source)
        each = [source.edit(place.site, place.index(0)) for place in places]
        cells = [[edit for edit, inside in zip(each, member[:, run].tolist(), strict=True) if inside] for run in range(runs)]
        some = [run for run in range(runs) if cells[run]]  # a run without an edit is the unedited one
        ready = prepare(plan.side.model, plan.side.batch(rows), [cells[run] for run in some], logits=plan.given.logits(rows), memory=memory)
        base = finite(ready.plain(metric), "clean" if plan.noising else "corrupt")
        for index, value in ready.results(metric, progress=progress):
            total[some[index], rows] = value.double().cpu().numpy() - base
    return upper(member, total.mean(1))


def _members(cells: int, runs: int, draw: np.random.Generator) -> np.ndarray:
    """``[cell, run]``: each cell in the same number of runs, drawn without the others."""
    inside = round(SHARE * runs)
    return np.stack([draw.permutation(runs) < inside for _ in range(cells)])


def upper(member: np.ndarray, total: np.ndarray) -> np.ndarray:
    """The bound of each cell from ``member`` ``[cell, run]`` and the runs' effects ``[run]``."""
    level = 1 - (1 - LEVEL) / (2 * len(member))  # two-sided, for all cells together
    out = np.zeros(len(member))
    for k, inside in enumerate(member):
        a, b = total[inside], total[~inside]
        va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
        error = np.sqrt(va + vb)
        freedom = (va + vb) ** 2 / max(va**2 / (len(a) - 1) + vb**2 / (len(b) - 1), np.finfo(float).tiny)
        out[k] = abs(a.mean() - b.mean()) + (float(stats.t.ppf(level, max(freedom, 1.0))) * error if error > 0 else 0.0)
    return out
