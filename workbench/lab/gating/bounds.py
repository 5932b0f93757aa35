"""Held against confidence bounds: whether an effect is shown to be within limits, shown to be outside, or neither yet."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from scipy import special

from workbench.core.errors import BadValue
from workbench.core.finding import Interval
from workbench.core.stats.power import sample_size
from workbench.reports.gate import State

MOST_NEEDED = 100_000_000
_CLUSTERS = re.compile(r"of (\d+) clusters")


@dataclass(frozen=True)
class Held:
    """How an effect stands to its limits. ``needed`` is the number of units that would decide, where more of them would."""

    state: State
    because: str
    needed: int | None = None
    n: int | None = None
    unit: str = "samples"


def hold(
    effect: float, passing: Interval, failing: Interval, *, at_least: float | None = None, at_most: float | None = None, n: int = 0
) -> Held:
    """Hold ``effect`` against limits.

    ``passing`` is the two-sided 1 - 2·alpha interval, whose ends are the one-sided bounds at alpha; ``failing`` the same at alpha divided
    by the number of rules. Inside both limits by ``passing``: pass. Outside one by ``failing``: fail. Else inconclusive, with the number
    of units with which the bound would clear the nearest limit with 80 % power, if effect and spread are what was seen; ``n`` are the
    units there are. Raises BadValue for limits that are not finite.
    """
    for limit in (at_least, at_most):
        if limit is not None and not math.isfinite(limit):
            raise BadValue("the limit", limit, "a finite number")
    short = [limit for limit in (at_least,) if limit is not None and passing.low < limit]
    over = [limit for limit in (at_most,) if limit is not None and passing.high > limit]
    if at_most is not None and failing.low > at_most:
        return Held("fail", f"the lower bound {failing.low:.4g} is above {at_most:g}")
    if at_least is not None and failing.high < at_least:
        return Held("fail", f"the upper bound {failing.high:.4g} is below {at_least:g}")
    if not short and not over:
        ends = [f"the upper bound {passing.high:.4g} is at most {at_most:g}"] if at_most is not None else []
        ends += [f"the lower bound {passing.low:.4g} is at least {at_least:g}"] if at_least is not None else []
        return Held("pass", " and ".join(ends))
    limit = min([*short, *over], key=lambda one: abs(one - effect))
    inside = (at_least is None or effect >= at_least) and (at_most is None or effect <= at_most)
    needed, units, unit = _needed(effect, limit, passing if inside else failing, n)
    words = f"the bounds lie on both sides of {limit:g}"
    if needed is None:
        words += ", and what was seen lies so close to it that no feasible number of samples decides" if abs(limit - effect) < 1e-12 else ""
    return Held("inconclusive", words, needed, units, unit)


def _needed(effect: float, limit: float, interval: Interval, n: int) -> tuple[int | None, int | None, str]:
    """How many units clear the distance from effect to limit, by the spread that the interval shows."""
    clusters = _CLUSTERS.search(interval.method)
    units, unit = (int(clusters[1]), "clusters") if clusters else (n, "samples")
    distance, width = abs(limit - effect), interval.high - interval.low
    if units < 2 or distance == 0 or width <= 0 or not math.isfinite(width):
        return None, units or None, unit
    z = float(special.ndtri((1 + interval.level) / 2))
    spread = width / (2 * z) * math.sqrt(units)
    if (spread / distance) ** 2 > MOST_NEEDED / 10:
        return None, units, unit
    # an interval may be wider than one of a mean: never say that fewer than there are would have done
    return max(units + 1, sample_size(distance, spread, level=interval.level)), units, unit
