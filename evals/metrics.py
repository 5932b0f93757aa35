"""What is computed of one sample, and of many. Nothing here turns a missing answer into a number.

Per-sample functions take one sample's log-probabilities (nats); corpus functions take what several samples gave and raise
BadValue on nothing. Ties are told, never broken: an argmax that falls to index 0 credits a model for saying nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from workbench.core.errors import BadValue

LN2 = math.log(2)


# --- one sample -----------------------------------------------------------------------------------------------


def total(logprobs: Sequence[float]) -> float:
    """log p of the whole continuation, exactly rounded (``math.fsum``), so that it does not depend on the order."""
    return math.fsum(_some("log-probabilities", logprobs))


def mean_logprob(logprobs: Sequence[float]) -> float:
    """The mean log p a token."""
    return total(logprobs) / len(logprobs)


def geometric_mean(logprobs: Sequence[float]) -> float:
    """2^(mean log2 p), the geometric mean of the tokens' probabilities."""
    return math.exp(mean_logprob(logprobs))


def share(first: float, second: float) -> float:
    """p(first) / (p(first) + p(second)) from two log-probabilities, without underflow."""
    gap = first - second
    return 1 / (1 + math.exp(-gap)) if gap >= 0 else math.exp(gap) / (1 + math.exp(gap))


def prefers(first: float, second: float) -> float | None:
    """1.0 where the first is higher, 0.0 where the second is, None for a tie."""
    return None if first == second else float(first > second)


def best(scores: Sequence[float]) -> int | None:
    """The index of the highest score; None where several are highest."""
    top = max(_some("scores", scores))
    return scores.index(top) if sum(score == top for score in scores) == 1 else None


def rank_of(scores: Sequence[float], index: int) -> int:
    """The rank (1 = highest) of ``scores[index]``; equal scores count against it."""
    own = scores[index]
    return sum(score >= own for score in scores)


def exposure(rank: float, size: int) -> float:
    """log2 |R| − log2 rank in bits (Carlini et al., "The Secret Sharer", USENIX Security 2019, definition 4)."""
    if not 1 <= rank <= size:
        raise BadValue("a rank", rank, f"1 to {size}, the size of the space")
    return math.log2(size) - math.log2(rank)


def mean_exposure_by_chance(size: int) -> float:
    """The mean exposure in bits of a secret whose rank is uniform on 1 … ``size``: log2 n − log2(n!) / n; 1 / ln 2 as n grows."""
    return math.log2(size) - math.lgamma(size + 1) / LN2 / size


# --- a corpus -------------------------------------------------------------------------------------------------


def perplexity(nats: float, tokens: int) -> float:
    """exp(nats a token). Only comparable between models with the same tokens."""
    return math.exp(nats / _count("tokens", tokens))


def bits_per_byte(nats: float, octets: int) -> float:
    """Bits a UTF-8 byte of the text scored: comparable between any two models of the same text."""
    return nats / LN2 / _count("bytes", octets)


def unigram_bits_per_byte(texts: Sequence[str]) -> float:
    """The entropy of the texts' own byte frequencies: no model without context, fitted elsewhere, can do better on them."""
    counts = [0] * 256
    for text in texts:
        for octet in text.encode():
            counts[octet] += 1
    return _entropy(counts)


def reading(parts: Sequence[Mapping[str, float]], unigram: float, what: str) -> tuple[float, str]:
    """Bits per byte of ``what`` (in words) over ``parts`` with their ``nats`` and ``bytes``, NaN of none; and why a model that reads them
    so can say nothing about them: no better than ``unigram``, the bits of their own byte frequencies. '' where it can."""
    if not parts:
        return math.nan, "nothing was scored"
    bits = bits_per_byte(sum(one["nats"] for one in parts), int(sum(one["bytes"] for one in parts)))
    short = f"its {bits:.2f} bits per byte on {what} are not below the {unigram:.2f} of byte frequencies alone"
    return bits, "" if bits < unigram else short


def _entropy(counts: Sequence[int]) -> float:
    size = _count("bytes", sum(counts))
    return -math.fsum(c / size * math.log2(c / size) for c in counts if c)


def _some(what: str, values: Sequence[float]) -> Sequence[float]:
    if not len(values):
        raise BadValue(what, "none at all", "at least one")
    return values


def _count(what: str, n: int) -> int:
    if n < 1:
        raise BadValue(f"the number of {what}", n, "at least 1")
    return n
