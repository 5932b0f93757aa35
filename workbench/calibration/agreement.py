"""Whether a card measured again, perhaps on another machine, says what the first one said.

Sums run in another order on another processor; a training makes more of that last digit with each step, so a model trained anew is near
the first and is not it. What was planned must therefore be equal, and what was measured must lie as near as drawing models anew allows:

- of the cases found at a dose, the exact test of two shares (Fisher) at one in a thousand;
- of a rate with an interval, that the two intervals meet (where one card gives none, that the other's holds its rate); else ``NEAR``;
- of the limit of detection, that the intervals meet, and that neither is more than ``TIMES`` the other.

On one machine two measurings are equal to the bit, which is tested where the models are made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scipy import stats

from workbench.calibration.exam import Grid
from workbench.core.finding import Card, Interval

NEAR = 0.1
"""How far rates and effects without an interval, all of them at most about 1, may lie apart."""
TIMES = 3.0
RARE = 1e-3
PLANNED = ("of", "version", "family", "norm_placement", "domain", "parameters", "conditions", "n", "exam", "limit_unit")


def disagreements(before: Card, now: Card, grid: Grid) -> list[str]:
    """In what ``now`` differs from ``before`` by more than drawing anew does, a sentence each; empty where they agree.

    ``grid``: on what both were measured. The code's digest and the seconds are not compared.
    """
    return [*_planned(before, now), *_rates(before, now), *_curve(before, now, grid), *_limit(before, now)]


def _planned(before: Card, now: Card) -> Iterator[str]:
    for name in PLANNED:
        one, other = getattr(before, name), getattr(now, name)
        if one != other:
            yield f"{name} was {one!r} and is {other!r}"
    if before.rates.keys() != now.rates.keys():
        yield f"rates on one card only: {', '.join(sorted(before.rates.keys() ^ now.rates.keys()))}"


def _rates(before: Card, now: Card) -> Iterator[str]:
    for name in before.rates.keys() & now.rates.keys():
        one, other = before.rates[name], now.rates[name]
        if not _meet(_within(before, name), _within(now, name)) and abs(one - other) > NEAR:
            yield f"{name} was {one:.4g} and is {other:.4g}"


def _within(card: Card, name: str) -> Interval:
    """A rate's interval; the rate alone where the card gives none."""
    return card.intervals.get(name) or Interval(low=card.rates[name], high=card.rates[name], method="none")


def _curve(before: Card, now: Card, grid: Grid) -> Iterator[str]:
    if [dose for dose, *_ in before.curve] != [dose for dose, *_ in now.curve]:
        yield f"the doses were {[dose for dose, *_ in before.curve]} and are {[dose for dose, *_ in now.curve]}"
        return
    for (dose, share, effect), (_, again, effect_again) in zip(before.curve, now.curve, strict=True):
        cases = len(grid.seeds) * grid.sets if dose > 0 else len(grid.clean_seeds) * grid.clean_sets
        found = [[round(part * cases), cases - round(part * cases)] for part in (share, again)]
        tested: Any = stats.fisher_exact(found)  # its fields are set at run time
        if float(tested.pvalue) < RARE:
            yield f"at dose {dose:g}, {found[0][0]} of {cases} cases were found and {found[1][0]} are"
        if abs(effect - effect_again) > NEAR:
            yield f"at dose {dose:g} the behaviour moved by {effect:.4g} and moves by {effect_again:.4g}"


def _limit(before: Card, now: Card) -> Iterator[str]:
    one, other = before.limit_of_detection, now.limit_of_detection
    words = f"the limit of detection was {_told(before)} and is {_told(now)}"
    if one is None and other is None:
        if before.limit_words != now.limit_words:
            yield words
    elif one is None or other is None:
        inside, outside = (now, before) if one is None else (before, now)
        if not _reaches_the_edge(inside, outside.limit_words):
            yield words
    elif max(one, other) > TIMES * min(one, other) or not _meet(before.limit_interval, now.limit_interval):
        yield words


def _told(card: Card) -> str:
    return card.limit_words if card.limit_of_detection is None else f"{card.limit_of_detection:.4g}"


def _reaches_the_edge(inside: Card, words: str) -> bool:
    """Whether the interval of a limit within the range reaches the side on which the other card's lies."""
    doses = [dose for dose, *_ in inside.curve if dose > 0]
    within = inside.limit_interval
    if within is None:
        return False
    return (words == "above the highest dose" and within.high >= doses[-1]) or (words == "below the lowest dose" and within.low <= doses[0])


def _meet(one: Interval | None, other: Interval | None) -> bool:
    """Whether two intervals share a point; where one is not given, nothing speaks against it."""
    return one is None or other is None or (one.low <= other.high and other.low <= one.high)
