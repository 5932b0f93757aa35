"""Who is taken away together: each position alone, or the positions that ``labels`` give one name.

A position outside every group keeps its own embedding and is worth nothing by construction. What a group is worth is shared evenly by its
positions, so that attributions of groups add up as those of positions do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from probes.asked import Asked
from probes.slots import slot_names
from workbench.core.errors import BadValue


@dataclass(frozen=True)
class Players:
    """``number`` ``[batch, pos]`` is each position's player, counted from 0 in every item (-1: none); ``count`` their number an item."""

    number: Int[np.ndarray, "batch pos"]
    count: Int[np.ndarray, " batch"]
    note: str

    def kept(self, row: int, present: Bool[np.ndarray, "n player"]) -> Bool[np.ndarray, "n pos"]:
        """Which positions of an item stand, for coalitions of its players."""
        padded = np.concatenate([present, np.ones((len(present), 1), bool)], axis=1)  # -1: always
        return padded[:, self.number[row]]

    def shared(self, row: int, worth: Float[np.ndarray, "... player"]) -> Float[np.ndarray, "... pos"]:
        """What an item's players are worth, by position: even shares, 0 outside every group."""
        number = self.number[row]
        size = np.bincount(number[number >= 0], minlength=int(self.count[row]))
        padded = np.concatenate([worth / size, np.zeros((*worth.shape[:-1], 1))], axis=-1)
        return padded[..., number]

    @property
    def candidate(self) -> Bool[np.ndarray, "batch pos"]:
        """Positions that belong to a player."""
        return np.asarray(self.number >= 0)


def players_of(asked: Asked, labels: Any) -> Players:
    """The players of every item. Raises BadValue for labels that do not fit, and an item without any player."""
    features = asked.features.numpy()
    if labels is None:
        number = np.where(features, np.cumsum(features, axis=1) - 1, -1)
        if not features.any(1).all():
            raise BadValue(
                "inputs.batch", f"item {int((~features.any(1)).argmax())} of control tokens alone", "of one other position at least"
            )
        return Players(number, features.sum(1), "Taken away one position at a time.")
    names = slot_names(asked.items, labels)
    number, count = np.full(features.shape, -1), np.zeros(len(features), dtype=int)
    for row, line in enumerate(names):
        places = {name: k for k, name in enumerate(dict.fromkeys(name for name in line if name is not None))}
        number[row] = [places.get(name, -1) if name is not None else -1 for name in line]
        count[row] = len(places)
    note = "Taken away group by group as `labels` name them; a group's worth is shared evenly by its positions, others are left standing."
    return Players(number, count, note)
