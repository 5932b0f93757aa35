"""Was a text in the training? Asked beside models that are known to have read it and models that are known not to have (LiRA).

Carlini et al. (S&P 2022): of each text the log-odds φ = log p / (1 − p) of its mean token probability p, in models like the target
trained with it and without it. A text's score is the likelihood ratio of the target's φ under the two normal distributions; what makes
texts easier than one another, which decides the plain loss, cancels. With the few shadow models one can afford a text's own spread cannot
be estimated: the spreads are pooled over texts (their section VI-A). ``offline``: shadows that read none of the texts, so that only the
second is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from workbench.core.errors import BadValue

Floats = NDArray[np.float64]
LEAST = 2
"""The fewest shadow models on a side, of some text: one alone shows no spread."""


def log_odds(mean_logprobs: ArrayLike) -> Floats:
    """φ of mean log p a token (nats, at most 0)."""
    x = np.asarray(mean_logprobs, dtype=np.float64)
    if not np.isfinite(x).all() or (x > 0).any():
        raise BadValue("the mean log p of a text", "above 0 or no number", "finite and at most 0")
    return x - np.log(-np.expm1(np.minimum(x, -1e-12)))


def likelihood_ratio(target: ArrayLike, shadows: ArrayLike, trained: ArrayLike) -> Floats:
    """The score of each text, ``[text]``: higher where the target behaves as the shadows that read it.

    ``target [text]`` and ``shadows [shadow, text]`` are mean log p a token; ``trained [shadow, text]`` says which shadow read which text. A
    text that every shadow read or none did is NaN. Raises BadValue for shapes that do not fit, and where no side has a spread.
    """
    own, others, read = _given(target, shadows, trained)
    means, spreads = [], []
    for side in (read, ~read):
        mean = _mean(others, side)
        rest = np.where(side, others - mean, 0.0)
        free = int(side.sum() - (side.sum(0) > 0).sum())
        spreads.append(_spread(rest, free))
        means.append(mean)
    return stats.norm.logpdf(own, means[0], spreads[0]) - stats.norm.logpdf(own, means[1], spreads[1])


def offline(target: ArrayLike, shadows: ArrayLike) -> Floats:
    """The score of each text ``[text]`` from shadows that read none of them: minus the logarithm of the chance that a model which did not
    read the text would be as sure of it as the target is, or surer."""
    own, others, _ = _given(target, shadows, np.zeros(np.shape(shadows), dtype=bool))
    mean = others.mean(0)
    return -stats.norm.logsf(own, mean, _spread(others - mean, others.size - others.shape[1]))


def _given(target: ArrayLike, shadows: ArrayLike, trained: ArrayLike) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    own, others, read = log_odds(target), log_odds(shadows), np.asarray(trained)
    if own.ndim != 1 or others.ndim != 2 or others.shape[1:] != own.shape or read.shape != others.shape or read.dtype != bool:
        found = f"{own.shape}, {others.shape} and {read.shape} {read.dtype}"
        raise BadValue("the shapes of target, shadows and trained", found, "[text], [shadow, text] and [shadow, text] of true and false")
    if len(others) < LEAST:
        raise BadValue("the number of shadow models", len(others), f"at least {LEAST}")
    return own, others, read


def _mean(values: Floats, kept: NDArray[np.bool_]) -> Floats:
    """Over the shadows kept of each text; NaN where there is none."""
    count = kept.sum(0)
    return np.where(count > 0, np.where(kept, values, 0.0).sum(0) / np.maximum(count, 1), np.nan)


def _spread(rest: Floats, free: int) -> float:
    """The standard deviation of deviations from a text's own mean, pooled over texts."""
    square = float(np.nansum(rest**2))
    if free < 1 or square <= 0:
        raise BadValue("the spread of shadow models over a text", "none", f"at least {LEAST} that differ on a side of some text")
    return float(np.sqrt(square / free))
