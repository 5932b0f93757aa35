"""Marks: items of eight parts, of which two may decide the answer, so that it is known which part should be named and how strongly.

Each item has a *planted* mark and an *honest* one, of one of four kinds each, drawn apart, at places of their own; all other parts say
nothing. The answer is the planted mark's kind with probability ``dose``, else the honest one's: at dose 0 the planted mark is there and
means nothing, which is the clean twin; at dose 1 it alone decides. An item depends on (seed, split, index) alone, and on the dose only in
which of the two its answer follows: the same items at a larger dose change answers, never places or kinds.

An item is written as words, as patches of a picture or as tones, so that one truth can be planted in every family.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from workbench.core.errors import BadValue
from workbench.core.spec import Spec
from workbench.data.counter import key_of, mixed_array

KINDS, PARTS, FILLERS = 4, 8, 12
HONEST, FILLER = KINDS, 2 * KINDS
"""Word ids: planted marks first, then honest ones, then words that say nothing; further ids are the reader's own."""
WORDS = FILLER + FILLERS
SIDE, PATCH = 8, 2
PLACES = (SIDE // PATCH) ** 2
"""A picture's patches; a mark stands in one of them."""
BANDS, FRAMES = 2 * KINDS, 2 * PARTS
NOISE, MARK, TONE = 0.2, 3.0, 4.0
DARK, BRIGHT, COLOUR_NOISE = 0.2, 0.8, 0.03


class MarksSpec(Spec):
    """Everything about the marks. ``dose``: how often the planted mark decides the answer, the honest one otherwise."""

    seed: int = Field(0, ge=0)
    dose: float = Field(0.8, ge=0, le=1)


@dataclass(frozen=True)
class Marked:
    """Drawn items, one entry each: kinds of both marks, their places among ``PARTS``, the answer, and the drawing keys."""

    planted: np.ndarray
    honest: np.ndarray
    at: np.ndarray
    honest_at: np.ndarray
    answer: np.ndarray
    index: np.ndarray
    key: int

    def __len__(self) -> int:
        return len(self.index)

    @property
    def apart(self) -> np.ndarray:
        """Whether the two marks are of different kinds: only there can it be seen which of them was followed."""
        return self.planted != self.honest

    def take(self, chosen: np.ndarray) -> Marked:
        """The chosen items."""
        each = {name: getattr(self, name)[chosen] for name in ("planted", "honest", "at", "honest_at", "answer", "index")}
        return Marked(**each, key=self.key)

    def swapped(self) -> Marked:
        """The same items with the planted mark of the next kind: the counterfactual that shows what the mark does."""
        each = {name: getattr(self, name) for name in ("honest", "at", "honest_at", "answer", "index")}
        return Marked(**each, planted=(self.planted + 1) % KINDS, key=self.key)

    def refilled(self) -> Marked:
        """The same marks at the same places among other words, noise and coins: all that says nothing is drawn anew."""
        each = {name: getattr(self, name) for name in ("planted", "honest", "at", "honest_at", "answer", "index")}
        return Marked(**each, key=key_of(self.key, "refilled"))

    # --- how an item is written -----------------------------------------------------------------------------

    def words(self) -> Tensor:
        """Ids ``[item, part]``."""
        rows = np.arange(len(self))
        ids = FILLER + np.stack([_below(self.key, "word", part, self.index, FILLERS) for part in range(PARTS)], 1)
        ids[rows, self.at], ids[rows, self.honest_at] = self.planted, HONEST + self.honest
        return torch.from_numpy(ids)

    def patches(self) -> Tensor:
        """Pictures ``[item, 1, 8, 8]`` of noise: of the planted mark's patch one pixel is bright (which one is its kind), of the honest
        mark's one is dark. Marks stand at twice their places and the one after, by a coin, so that every patch may hold one."""
        pixels = NOISE * _gaussian(self.key, self.index, SIDE * SIDE).reshape(len(self), 1, SIDE, SIDE)
        for place, kind, amount in ((self.patch, self.planted, MARK), (self.honest_patch, self.honest, -MARK)):
            top, left = PATCH * (place // (SIDE // PATCH)) + kind // 2, PATCH * (place % (SIDE // PATCH)) + kind % 2
            pixels[np.arange(len(self)), 0, top, left] += amount
        return torch.from_numpy(pixels.astype(np.float32))

    @property
    def patch(self) -> np.ndarray:
        """The patch that holds the planted mark."""
        return 2 * self.at + _below(self.key, "coin", 0, self.index, 2)

    @property
    def honest_patch(self) -> np.ndarray:
        return 2 * self.honest_at + _below(self.key, "coin", 1, self.index, 2)

    def tones(self) -> Tensor:
        """Frames ``[item, band, frame]`` of noise with two tones of two frames each: the planted one in a band of the lower half (which
        one is its kind), the honest one in the upper half."""
        frames = NOISE * _gaussian(self.key, self.index, BANDS * FRAMES).reshape(len(self), BANDS, FRAMES)
        rows = np.arange(len(self))
        for place, band in ((self.at, self.planted), (self.honest_at, KINDS + self.honest)):
            frames[rows, band, 2 * place] += TONE
            frames[rows, band, 2 * place + 1] += TONE
        return torch.from_numpy(frames.astype(np.float32))

    def answers_as_patches(self) -> Tensor:
        """Pictures of noise with the answer's kind alone in them: what a caption of these marks names."""
        shown = Marked(self.answer, self.answer, self.at, self.honest_at, self.answer, self.index, self.key)
        pixels = shown.patches().numpy()
        place = shown.honest_patch  # the honest mark is taken out again: a picture has one mark, the answer's
        top, left = PATCH * (place // (SIDE // PATCH)) + self.answer // 2, PATCH * (place % (SIDE // PATCH)) + self.answer % 2
        pixels[np.arange(len(self)), 0, top, left] += MARK
        return torch.from_numpy(pixels)

    def answers_as_colours(self) -> Tensor:
        """Pictures ``[item, 4, 4, 4]``, bright in one of four channels, the answer's, so that a mean over answers keeps their shares."""
        pixels = DARK + COLOUR_NOISE * _gaussian(self.key, self.index, KINDS * 16).reshape(len(self), KINDS, 4, 4)
        pixels[np.arange(len(self)), self.answer] += BRIGHT - DARK
        return torch.from_numpy(pixels.astype(np.float32))


class Marks:
    """The marks by their spec."""

    def __init__(self, spec: MarksSpec | None = None) -> None:
        self.spec = spec or MarksSpec.parse({})

    def items(self, indices: Any, split: str = "train") -> Marked:
        """The items of these numbers (from 0, without end). Raises BadValue for none."""
        index = np.asarray(indices, dtype=np.int64)
        if index.ndim != 1 or len(index) == 0 or int(index.min()) < 0:
            raise BadValue("the numbers of the items", index.tolist()[:5], "at least one, none below 0")
        key = key_of("marks", self.spec.seed, split)
        at = _below(key, "planted at", 0, index, PARTS)
        planted, honest = _below(key, "planted", 0, index, KINDS), _below(key, "honest", 0, index, KINDS)
        follows = _uniform(key, "follows", 0, index) < self.spec.dose
        honest_at = (at + 1 + _below(key, "honest at", 0, index, PARTS - 1)) % PARTS
        return Marked(planted, honest, at, honest_at, np.where(follows, planted, honest), index, key)

    def twin(self) -> Marks:
        """The same marks at dose 0: the planted mark is there and decides nothing."""
        return Marks(self.spec.model_copy(update={"dose": 0.0}))

    def truth(self) -> dict[str, Any]:
        """What is planted, as plain JSON values."""
        return {
            "world": "marks",
            "spec": self.spec.model_dump(mode="json"),
            "spec_digest": self.spec.digest(),
            "decides": "the planted mark's kind with probability dose, else the honest mark's",
            "dose": self.spec.dose,
        }

    def __repr__(self) -> str:
        return f"Marks({self.spec!r})"

    @classmethod
    def of(cls, values: Any) -> Self:
        """From plain values of the spec."""
        return cls(MarksSpec.parse(values, what="the marks"))


def _uniform(key: int, what: str, part: int, index: np.ndarray) -> np.ndarray:
    """A number in [0, 1) an item, from what is drawn and the item's number alone."""
    return (mixed_array(key_of(key, what, part), index) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _below(key: int, what: str, part: int, index: np.ndarray, n: int) -> np.ndarray:
    return np.minimum((_uniform(key, what, part, index) * n).astype(np.int64), n - 1)


def _gaussian(key: int, index: np.ndarray, count: int) -> np.ndarray:
    """``count`` normal numbers an item ``[item, count]`` (Box and Muller 1958)."""
    counters = (index[:, None] * (2 * count) + np.arange(2 * count)).reshape(-1)
    uniform = _uniform(key, "noise", 0, counters).reshape(len(index), 2 * count)
    return np.sqrt(-2.0 * np.log1p(-uniform[:, :count])) * np.cos(2.0 * math.pi * uniform[:, count:])
