"""Whether an answer moves along a concept's direction more than along those of random concepts (TCAV, Kim et al. 2018).

    TCAV score    share of the asked tokens at which the answer rises along the direction: gradient . direction > 0
    slope         mean of gradient . direction: how fast it rises along a direction of length 1

A random concept is the same tokens with shuffled labels, fitted in the same way. If the labels meant nothing, the concept would be one more
of them: it is held against theirs by its rank (exact whatever their distribution) and, for slopes, by Student's t for one new value beside
``n`` of a normal sample. All are two-sided. (Kim et al. compare many refits of one concept with many of random ones by their scores. Refits
share their data, so that calls meaningless labels significant too often; and where gradients are alike in all items every direction scores
0 or 1, random ones too, so that a score says little where a slope says much.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import stats
from torch import Tensor

from probes.concept_fit import logistic_weight, unit


@dataclass(frozen=True)
class Significance:
    """The concept's TCAV score beside the mean of the random concepts', its slope beside their standard deviation, and the p-values."""

    score: float
    random: float
    p_score: float
    slope: float
    spread: float
    p_t: float
    p_rank: float


def significance(
    x: Float[Tensor, "token feature"], y: Bool[Tensor, " token"], gradients: Float[Tensor, "asked feature"], *, strength: float,
    concepts: int, seed: int,
) -> Significance:  # fmt: skip
    """The concept ``y`` against ``concepts`` random ones."""
    rng = np.random.default_rng([seed, 5])
    score, slope = _moved(x, y, gradients, strength)
    others = [_moved(x, y[torch.from_numpy(rng.permutation(len(y)))], gradients, strength) for _ in range(concepts)]
    scores, slopes = np.array(others).T
    spread = float(slopes.std(ddof=1))
    if spread > 0:
        t = (slope - slopes.mean()) / (spread * np.sqrt(1 + 1 / concepts))
        p_t = float(2 * stats.t.sf(abs(t), concepts - 1))
    else:
        p_t = float(slope == slopes[0])
    return Significance(score, float(scores.mean()), _rank(score, scores), slope, spread, p_t, _rank(slope, slopes))


def _rank(value: float, others: np.ndarray) -> float:
    """The share of all, ``value`` among them, that lie as far from the middle of all: a fair rank if it is one of them."""
    middle = (value + others.sum()) / (len(others) + 1)
    return (1 + int((np.abs(others - middle) >= abs(value - middle) - 1e-12).sum())) / (len(others) + 1)


def _moved(x: Tensor, y: Tensor, gradients: Tensor, strength: float) -> tuple[float, float]:
    along = gradients.double() @ unit(logistic_weight(x.double(), y, strength))
    # A slope of exactly zero moves nothing: half a vote, or a silent layer would seem to fall.
    return float((along > 0).double().mean() + 0.5 * (along == 0).double().mean()), float(along.mean())
