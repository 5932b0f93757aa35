"""The straight line of one quantity on another (scipy's ``linregress``), with what an equivalence test needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike
from scipy import stats

from workbench.core.errors import BadValue
from workbench.core.finding import Interval
from workbench.core.stats.checks import all_equal, inside, numbers, same_length

_METHOD = "least squares, Student t"


@dataclass(frozen=True)
class Slope:
    """y = intercept + slope · x by least squares. ``se`` and ``interval`` are the slope's; ``df`` = n - 2."""

    slope: float
    intercept: float
    se: float
    intercept_se: float
    df: int
    interval: Interval
    r: float
    n: int


def slope(x: ArrayLike, y: ArrayLike, *, level: float = 0.95) -> Slope:
    """Least-squares slope of ``y [n]`` on ``x [n]``, n >= 3, with Student's t interval.

    The errors of y are taken as independent with one variance; points exactly on a line have ``se`` 0, which
    ``tost_estimate`` refuses. Raises BadValue when x is constant.
    """
    first, second = numbers("x", x, least=3), numbers("y", y, least=3)
    same_length("x", first, "y", second)
    inside("level", level)
    if all_equal(first):
        raise BadValue("x", f"{first[0]:g} in all {len(first)} items", "of at least two different values")
    df = len(first) - 2
    if all_equal(second):  # a level line fits exactly; linregress gives NaN here
        level_line = Interval(low=0.0, high=0.0, level=level, method=_METHOD)
        return Slope(slope=0.0, intercept=float(second[0]), se=0.0, intercept_se=0.0, df=df, interval=level_line, r=0.0, n=len(first))
    fit: Any = stats.linregress(first, second)
    half = float(stats.t.ppf((1 + level) / 2, df)) * fit.stderr
    return Slope(
        slope=float(fit.slope), intercept=float(fit.intercept), se=float(fit.stderr), intercept_se=float(fit.intercept_stderr), df=df,
        interval=Interval(low=fit.slope - half, high=fit.slope + half, level=level, method=_METHOD), r=float(fit.rvalue), n=len(first),
    )  # fmt: skip
