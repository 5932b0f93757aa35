"""Adjusted p-values for a declared family of tests (statsmodels' ``multipletests``)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from statsmodels.stats.multitest import multipletests

from workbench.core.errors import BadValue
from workbench.core.stats.checks import Floats, numbers


def holm(p: ArrayLike) -> Floats:
    """Holm's (1979) step-down adjusted p-values ``[m]`` in the order given: reject where <= alpha to bound the chance of
    any false rejection by alpha, under any dependence."""
    return _adjusted(p, "holm")


def benjamini_hochberg(p: ArrayLike) -> Floats:
    """Benjamini and Hochberg's (1995) adjusted p-values ``[m]`` in the order given: reject where <= q to bound the expected
    share of false rejections by q, for independent or positively dependent tests."""
    return _adjusted(p, "fdr_bh")


def _adjusted(p: ArrayLike, method: str) -> Floats:
    values = numbers("p", p)
    if bad := int(((values < 0) | (values > 1)).sum()):
        raise BadValue("the count of p-values outside 0 … 1", bad, "0")
    return np.asarray(multipletests(values, method=method)[1], dtype=np.float64)
