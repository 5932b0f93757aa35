"""How well a dictionary found features that are known: only where the truth was planted.

    similarity   mean over true features of the largest cosine with a decoder direction (MMCS)          Sharkey et al. 2022
    found        share of true features with a cosine of at least 0.9
    f1           features and directions are paired one to one by cosine (the assignment problem); of each pair, F1 of "the dictionary's
                 feature is active" as a detector of "the true feature fired"; the mean over features that fired
    absorption   of a parent, how much oftener its partner is silent though the parent fired when one of its children fired too, than when
                 none did: what the children's features have taken over                                   after Chanin et al. 2024
    splitting    dictionary features a found true feature has: those whose nearest true feature it is, with a cosine of at least 0.7

A feature that did not fire in the sample has no F1; how many there are is told.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from probes.dictionaries.dictionary import Dictionary, unit
from probes.dictionaries.normalisation import finite
from workbench.core.errors import BadValue

FOUND, NEAR = 0.9, 0.7


@dataclass(frozen=True)
class Recovered:
    """The scores above (NaN where there is nothing to score), and by true feature: its ``cosine``, its ``partner`` (-1: none is left) and
    the partner's ``f1`` (NaN: the feature did not fire). ``silent``: features that did not fire in the sample."""

    similarity: float
    found: float
    f1: float
    absorption: float
    splitting: float
    silent: int
    cosine: Float[np.ndarray, " feature"]
    partner: Int[np.ndarray, " feature"]
    detection: Float[np.ndarray, " feature"]


def recovered(
    dictionary: Dictionary, directions: Float[Tensor, "_ _"], rows: Float[Tensor, "_ _"], fired: Bool[Tensor, "_ _"],
    parent: Int[Tensor, " _"] | None = None,
) -> Recovered:  # fmt: skip
    """Score a dictionary by the ``directions`` ``[feature, d_out]`` there are, on raw ``rows`` ``[row, d_in]`` of which it is known which
    features ``fired`` ``[row, feature]``. ``parent`` of each feature, -1 for none. Raises BadValue for a truth of another shape."""
    finite(rows, dictionary.spec.d_in)
    if directions.shape[1] != dictionary.spec.width_out or fired.shape != (len(rows), len(directions)):
        raise BadValue(
            "the truth", f"directions {tuple(directions.shape)}, fired {tuple(fired.shape)}",
            f"[feature, {dictionary.spec.width_out}] and [{len(rows)}, feature]",
        )  # fmt: skip
    with torch.no_grad():
        cosine = unit(directions.double()) @ unit(dictionary.decoder.double()).T
        active = torch.cat([dictionary.encode(part.to(dictionary.decoder)) > 0 for part in rows.split(8192)])
    best, at = cosine.max(1)
    feature, chosen = linear_sum_assignment(cosine.numpy(), maximize=True)
    partner = np.full(len(directions), -1)
    partner[feature] = chosen
    f1 = np.full(len(directions), np.nan)
    for i in range(len(directions)):
        if partner[i] >= 0 and bool(fired[:, i].any()):
            here, there = fired[:, i], active[:, partner[i]]
            f1[i] = 2 * float((here & there).sum()) / float(here.sum() + there.sum())
    nearest = cosine.max(0)
    counts = np.bincount(nearest.indices[nearest.values >= NEAR].numpy(), minlength=len(directions))
    some = counts[counts > 0]
    known = f1[np.isfinite(f1)]
    return Recovered(
        similarity=float(best.mean()), found=float((best >= FOUND).double().mean()), f1=float(known.mean()) if len(known) else np.nan,
        absorption=_absorption(fired, active, at, parent), splitting=float(some.mean()) if len(some) else np.nan,
        silent=int((~fired.any(0)).sum()), cosine=best.numpy(), partner=partner, detection=f1,
    )  # fmt: skip


def _absorption(fired: Tensor, active: Tensor, nearest: Tensor, parent: Tensor | None) -> float:
    """Over parents whose vectors with and without a child are both there."""
    gaps = []
    for one in () if parent is None else sorted(set(parent[parent >= 0].tolist())):
        child = fired[:, parent == one].any(1)
        silent = ~active[:, nearest[one]]
        alone, beside = fired[:, one] & ~child, fired[:, one] & child
        if bool(alone.any()) and bool(beside.any()):
            gaps.append(float(silent[beside].double().mean() - silent[alone].double().mean()))
    return float(np.mean(gaps)) if gaps else np.nan
