"""Which row at which step: a pure function of (seed, step), so a resumed run reads exactly what an unbroken one would have.

Each epoch is a permutation of all rows, chosen by (seed, epoch) and answered row by row without a table. A step that straddles
two epochs ends the one and begins the other; no row is left out or seen twice within an epoch.
"""

from __future__ import annotations

from workbench.core.errors import BadValue
from workbench.data.counter import key_of, permuted


def row_order(seed: int, step: int, rows_per_step: int, n_rows: int) -> list[int]:
    """The rows of ``step`` (counted from 0). Raises BadValue where there is nothing to draw from."""
    if n_rows < 1:
        raise BadValue("the number of rows", n_rows, "at least 1")
    if step < 0 or rows_per_step < 1:
        raise BadValue("step and rows_per_step", (step, rows_per_step), "at least 0 and at least 1")
    places = range(step * rows_per_step, (step + 1) * rows_per_step)
    keys = {epoch: key_of("order", seed, epoch) for epoch in {place // n_rows for place in (places[0], places[-1])}}
    return [permuted(place % n_rows, n_rows, keys.get(place // n_rows) or key_of("order", seed, place // n_rows)) for place in places]
