"""Does the attribution lie where it is known to belong? A mask says where.

    pointing  = 1 where the strongest candidate lies inside the mask, else 0
    mass      = (sum of the positive attributions inside) / (sum of all positive attributions)
    overlap   = share of the first m candidates inside, where the mask holds m: precision, recall and F1 at once
    average_precision = mean over the mask's candidates of the precision down to each: the area under precision over recall

A random order points inside with the mask's share of the candidates; the random attributions stand beside all four.

Sources: Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016 (arXiv:1608.00507), the pointing game; Arras, Osman and
Samek, CLEVR-XAI, Information Fusion 2022 (arXiv:2003.07258), relevance mass and rank accuracy (``overlap``); DeYoung et al., ERASER, ACL
2020 (arXiv:1911.03429), section 4, agreement with human rationales.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from workbench.core.errors import BadValue


def is_mask(labels: Any) -> bool:
    """Whether labels are booleans."""
    return labels is not None and (labels.dtype == torch.bool if isinstance(labels, torch.Tensor) else np.asarray(labels).dtype == bool)


def mask_of(labels: Any, shape: tuple[int, ...], candidate: Bool[np.ndarray, "batch pos"]) -> Bool[np.ndarray, "batch pos"] | None:
    """``labels`` as a mask, where they are booleans; None for labels of another kind. Raises BadValue for a shape that does not fit, and
    for an item whose mask holds no candidate or all of them: there nothing can be pointed at, or missed."""
    if not is_mask(labels):
        return None
    given = np.asarray(labels.cpu() if isinstance(labels, torch.Tensor) else labels)
    if given.shape != shape:
        raise BadValue("the shape of inputs.labels", given.shape, f"{shape}: a mask has one entry a position, a BOS included")
    inside, count = (given & candidate).sum(1), candidate.sum(1)
    if bool(((inside == 0) | (inside == count)).any()):
        row = int(((inside == 0) | (inside == count)).argmax())
        raise BadValue(f"the mask of item {row}", f"{inside[row]} of {count[row]} candidates", "some of them, and not all")
    return given


def pointing(place: Int[np.ndarray, "scored batch pos"], mask: Bool[np.ndarray, "batch pos"]) -> Float[np.ndarray, "scored batch"]:
    """1 where the candidate at place 0 lies inside the mask."""
    return ((place == 0) & mask).any(-1).astype(float)


def mass(
    attribution: Float[np.ndarray, "scored batch pos"], candidate: Bool[np.ndarray, "batch pos"], mask: Bool[np.ndarray, "batch pos"]
) -> Float[np.ndarray, "scored batch"]:
    """The share of the candidates' positive attribution inside the mask; NaN where no attribution is positive."""
    positive = np.where(candidate, np.maximum(attribution, 0), 0.0)
    total = positive.sum(-1)
    with np.errstate(invalid="ignore"):
        return np.where(total > 0, (positive * mask).sum(-1) / total, np.nan)


def overlap(
    place: Int[np.ndarray, "scored batch pos"], candidate: Bool[np.ndarray, "batch pos"], mask: Bool[np.ndarray, "batch pos"]
) -> Float[np.ndarray, "scored batch"]:
    """Of the first m candidates, the share inside a mask of m."""
    inside = mask & candidate
    count = inside.sum(1)
    return ((place < count[:, None]) & inside).sum(-1) / count


def average_precision(
    place: Int[np.ndarray, "scored batch pos"], candidate: Bool[np.ndarray, "batch pos"], mask: Bool[np.ndarray, "batch pos"]
) -> Float[np.ndarray, "scored batch"]:
    """The mean, over the mask's candidates, of the share inside the mask among all that stand no later."""
    inside = mask & candidate
    order = np.argsort(place, axis=-1)
    hit = np.take_along_axis(np.broadcast_to(inside, place.shape), order, axis=-1)
    precision = hit.cumsum(-1) / np.arange(1, place.shape[-1] + 1)
    return (precision * hit).sum(-1) / inside.sum(1)
