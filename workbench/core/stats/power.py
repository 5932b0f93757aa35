"""What a study of a given size can see: minimal detectable effects and the sample sizes that invert them.

All are for a two-sided test at 1 - ``level`` that is to find the effect with probability ``power``. ``paired`` means
one set of n numbers against a fixed value (one sample, or n differences of pairs); otherwise two independent groups
of n each. A rejection in the wrong direction does not count as finding the effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from scipy import optimize, special, stats

from workbench.core.stats.checks import inside, positive, whole

# past this many degrees of freedom t and normal agree to seven digits, and the noncentral t gets slow and brittle
_NORMAL_FROM = 100_000


def minimal_detectable_effect(n: int, sd: float, *, level: float = 0.95, power: float = 0.8, paired: bool = True) -> float:
    """The smallest true mean (difference) that the t test finds with ``power``, in the unit of ``sd``; n >= 2.

    ``sd`` is that of one number: of the differences when ``paired``, within a group otherwise (n in each group).
    Solved from the noncentral t distribution; for large n it is (z_{(1+level)/2} + z_power) · sd · sqrt(k / n), k = 1 or 2.
    """
    whole("n", n, least=2)
    positive("sd", sd)
    k = 1 if paired else 2
    return _noncentrality(k * (n - 1), level, power) * sd * math.sqrt(k / n)


def _noncentrality(df: int, level: float, power: float) -> float:
    """The noncentrality at which the upper side of the two-sided t test rejects with ``power``."""
    inside("level", level)
    inside("power", power, 0.5 * (1 - level), 1.0)
    if df > _NORMAL_FROM:
        return float(special.ndtri((1 + level) / 2) + special.ndtri(power))
    cut = float(stats.t.ppf((1 + level) / 2, df))
    # P(T > cut) rises from (1 - level) / 2 at 0; the cut plus a few units of the spread of cut · sqrt(chi2 / df) is past it
    top = 2.0
    while special.nctdtr(df, top, cut) > 1 - power:
        top *= 2
    root: Any = optimize.brentq(lambda nc: 1 - power - special.nctdtr(df, nc, cut), 0.0, top)
    return float(root)


def mde_proportion(n: int, p0: float = 0.5, *, level: float = 0.95, power: float = 0.8, paired: bool = True) -> float:
    """The smallest distance d from the rate ``p0`` (0 < p0 < 1) found with ``power`` in the harder direction, towards 1/2.

    Normal theory without continuity correction: d · sqrt(n) = z_{(1+level)/2} · sd0 + z_power · sd1, where sd0 is the
    spread under no effect and sd1 that at p0 ± d (Fleiss, Levin and Paik 2003, section 2.5). ``paired``: one sample
    against p0; otherwise two independent groups of ``n`` each, one of them at p0. ``math.inf`` when no rate in
    (0, 1) is far enough from p0: n is too small to find anything.
    """
    whole("n", n, least=1)
    low = min(inside("p0", p0), 1 - p0)
    za = float(special.ndtri((1 + inside("level", level)) / 2))
    zb = float(special.ndtri(inside("power", power, 0.5 * (1 - level), 1.0)))
    null = low * (1 - low)

    def lack(d: float) -> float:
        there = max((low + d) * (1 - low - d), 0.0)
        spreads = za * math.sqrt(null) + zb * math.sqrt(there) if paired else za * math.sqrt(2 * null) + zb * math.sqrt(null + there)
        return spreads - d * math.sqrt(n)

    if lack(1 - low) > 0:
        return math.inf
    root: Any = optimize.brentq(lack, 0.0, 1 - low)
    return float(root)


def sample_size(effect: float, sd: float, *, level: float = 0.95, power: float = 0.8, paired: bool = True) -> int:
    """The smallest n (in each group unless ``paired``) whose minimal detectable effect is at most ``effect`` (> 0)."""
    positive("effect", effect)
    return _smallest(lambda n: minimal_detectable_effect(n, sd, level=level, power=power, paired=paired) <= effect, 2)


def sample_size_proportion(effect: float, p0: float = 0.5, *, level: float = 0.95, power: float = 0.8, paired: bool = True) -> int:
    """The smallest n (in each group unless ``paired``) whose ``mde_proportion`` is at most ``effect``, 0 < effect < max(p0, 1 - p0)."""
    inside("effect", effect, 0.0, max(inside("p0", p0), 1 - p0))
    return _smallest(lambda n: mde_proportion(n, p0, level=level, power=power, paired=paired) <= effect, 1)


def _smallest(enough: Callable[[int], bool], least: int) -> int:
    """The smallest whole number from ``least`` on that is ``enough``, for a condition that stays true once it is."""
    high = least
    while not enough(high):
        high *= 2
    low = max(least, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
