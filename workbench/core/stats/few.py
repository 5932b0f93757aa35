"""The mean of items in few clusters, of which no bootstrap is defined."""

from __future__ import annotations

import math

from numpy.typing import ArrayLike
from scipy import stats

from workbench.core.errors import BadValue
from workbench.core.finding import Interval
from workbench.core.stats.checks import inside, numbers
from workbench.core.stats.unpaired import mean_of_units


def few_clusters_interval(values: ArrayLike, clusters: ArrayLike, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of ``values [n]`` in ``clusters [n]``, with as many degrees of freedom as clusters less one.

    The variance is that of a ratio of cluster sums, linearised (Cochran 1977, section 6.3). It takes the clusters' means for normal, which
    few clusters cannot show. Raises BadValue for fewer than two clusters, and where they do not differ.
    """
    inside("level", level)
    centre, variance, units = mean_of_units("values", numbers("values", values), clusters)
    if variance <= 0:
        raise BadValue("the spread between clusters", 0, "above 0")
    half = float(stats.t.ppf((1 + level) / 2, units - 1)) * math.sqrt(variance)
    return Interval(low=centre - half, high=centre + half, level=level, method=f"Student t of {units} clusters")
