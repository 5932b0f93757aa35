"""Extracted answers: exact match and token F1 (Rajpurkar, Zhang, Lopyrev and Liang, EMNLP 2016, section 6.1), and the likeliest span.

Both compare answers without case, punctuation, the articles *a, an, the* and superfluous blanks. The F1 of one answer treats both as bags
of words; two answers without any word are equal.
"""

from __future__ import annotations

import re
import string
from collections import Counter

import numpy as np
from jaxtyping import Bool, Float, Int

from workbench.core.errors import BadValue

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(answer: str) -> str:
    """What is compared of an answer."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(found: str, wanted: str) -> bool:
    """Whether two answers are the same."""
    return normalised(found) == normalised(wanted)


def token_f1(found: str, wanted: str) -> float:
    """2 precision · recall / (precision + recall) over the words of two answers; 0 where no word is in both."""
    left, right = Counter(normalised(found).split()), Counter(normalised(wanted).split())
    if not left or not right:
        return float(left == right)
    return 2 * sum((left & right).values()) / (left.total() + right.total())


def likeliest_spans(
    begin: Float[np.ndarray, "row pos"], end: Float[np.ndarray, "row pos"], allowed: Bool[np.ndarray, "row pos"], longest: int
) -> Int[np.ndarray, "row 2"]:
    """The span (first, last) of highest ``begin[first] + end[last]`` among those of at most ``longest`` positions, all of them ``allowed``;
    of equal ones the first that begins, then the first that ends. Raises BadValue for a row without an allowed position."""
    rows, width = begin.shape
    if longest < 1 or not allowed.any(1).all():
        raise BadValue("the positions of an answer", f"{longest} at most", "at least one, with one allowed in every row")
    best, out = np.full(rows, -np.inf), np.zeros((rows, 2), dtype=np.int64)
    inside = allowed.copy()  # whether the span of this many positions that begins here is allowed
    for size in range(1, min(longest, width) + 1):
        starts = width - size + 1
        inside = inside[:, :starts] & allowed[:, size - 1 :]
        total = np.where(inside, begin[:, :starts] + end[:, size - 1 :], -np.inf)
        first = total.argmax(1)
        top = total[np.arange(rows), first]
        later = (top == best) & (first < out[:, 0])
        better = (top > best) | later
        best = np.where(better, top, best)
        out[better] = np.stack([first, first + size - 1], 1)[better]
    return out
