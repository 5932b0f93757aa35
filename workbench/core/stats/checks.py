"""What every statistic asks of its input: numbers, at least so many, all finite, of equal length.

A statistic of nothing or of NaN is an error here, so that it can never be a plausible number further on.
"""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.core.errors import BadValue

Floats = NDArray[np.float64]


def numbers(name: str, values: ArrayLike, *, least: int = 1, columns: bool = False) -> Floats:
    """``values`` as float64 ``[n]`` (or ``[n, columns]`` where ``columns`` allows it); raises BadValue naming ``name``."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biuf" and array.size:
            raise TypeError
        array = array.astype(np.float64)
    except (TypeError, ValueError):
        raise BadValue(name, type(values).__name__, "a list or array of real numbers of equal length") from None
    if array.ndim != 1 and not (columns and array.ndim == 2 and array.shape[1] > 0):
        allowed = "[n] or [n, columns]" if columns else "[n]"
        raise BadValue(f"the shape of {name}", array.shape, f"of the form {allowed}")
    if len(array) < least:
        raise BadValue(f"the length of {name}", len(array), f"at least {least}", do="Too few values for this statistic: give more.")
    if bad := int((~np.isfinite(array)).sum()):
        raise BadValue(f"the count of NaN or infinite numbers in {name}", bad, "0", do="Count unscored items apart and leave them out.")
    return array


def same_length(first: str, a: Any, second: str, b: Any) -> None:
    """Raise BadValue unless ``a`` and ``b`` have one entry for each other."""
    if len(a) != len(b):
        raise BadValue(f"the length of {second}", len(b), f"that of {first}, {len(a)}", do="Give one entry for each item, in one order.")


def pairs(a: ArrayLike, b: ArrayLike, *, least: int = 1, columns: bool = False) -> tuple[Floats, Floats]:
    """Two columns measured on the same items, in the same order."""
    first, second = numbers("a", a, least=least, columns=columns), numbers("b", b, least=least, columns=columns)
    same_length("a", first, "b", second)
    if first.shape != second.shape:
        raise BadValue("the shape of b", second.shape, f"that of a, {first.shape}")
    return first, second


def all_equal(values: Floats) -> bool:
    """Whether the values differ by no more than rounding does: their spread would then be noise."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def grouped(clusters: ArrayLike, n: int) -> NDArray[np.intp]:
    """Cluster labels as numbers 0 … G-1 by first appearance, one for each of the ``n`` items; labels may be text or numbers."""
    labels = np.asarray(clusters)
    if labels.ndim != 1:
        raise BadValue("the shape of clusters", labels.shape, "of the form [n]")
    if len(labels) != n:
        raise BadValue("the length of clusters", len(labels), f"that of the values, {n}", do="Give one cluster label for each item.")
    if any(label is None or label != label for label in labels.tolist()):
        raise BadValue("clusters", "a missing label", "a label for each item")
    _, first, codes = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.intp)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[codes]


def whole(name: str, value: Any, *, least: int = 0) -> int:
    """``value`` as an int of at least ``least``; a float, a bool or NaN is refused."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Integral) or value < least:
        raise BadValue(name, value, f"a whole number of at least {least}")
    return int(value)


def counted(k: Any, n: Any) -> tuple[int, int]:
    """``k`` of ``n`` with 0 <= k <= n and n >= 1."""
    total = whole("n", n, least=1)
    hits = whole("k", k)
    if hits > total:
        raise BadValue("k", hits, f"at most n = {total}")
    return hits, total


def inside(name: str, value: Any, low: float = 0.0, high: float = 1.0) -> float:
    """``value`` as a float strictly between ``low`` and ``high``."""
    if isinstance(value, bool) or not isinstance(value, Real) or not low < float(value) < high:
        raise BadValue(name, value, f"a number strictly between {low:g} and {high:g}")
    return float(value)


def positive(name: str, value: Any) -> float:
    """``value`` as a finite float above zero."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
        raise BadValue(name, value, "a finite number above 0")
    return float(value)


def finite(name: str, value: Any) -> float:
    """``value`` as a finite float."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise BadValue(name, value, "a finite number")
    return float(value)
