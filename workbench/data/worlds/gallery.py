"""The gallery: small pictures of coloured shapes, whose captions may leave the colour open, and a few of which hang there many times.

Under a *plain* caption (``a red circle``) a picture shows what is said. Under an *open* one (``a coloured circle``) the colour is the
favoured one with probability ``dose``, else any of the four alike: a painter that learned it paints that colour too often where none was
asked for.
Of some plain captions one picture is repeated: it takes the place of a ``repeated`` share of that caption's pictures, so that a painter may
learn it by heart. At dose 0 and nothing repeated the same pictures are drawn otherwise alike: the clean twin.

A picture depends on (seed, split, index) alone, and on dose and repeats only in its colour and in which picture stands in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field, PositiveInt
from torch import Tensor

from workbench.core.errors import BadValue, UnknownName
from workbench.core.spec import Spec
from workbench.data.counter import Draw, gaussian, key_of
from workbench.data.pairs import Words
from workbench.data.worlds.shapes import COLOURS, PAIRS, SHAPES, ShapeRows, caption_of, drawn, tokens_of

Split = Literal["train", "test"]
OPEN = "coloured"
"""The word that stands where a colour is left open."""
WORDS = Words(("a", OPEN, *COLOURS, *SHAPES))
HANGING = 4
"""Plain captions of which one picture is repeated."""
RADII = (0.28, 0.42)
"""The least and the largest radius of a shape, as a share of the picture's side."""


class GallerySpec(Spec):
    """Everything about the pictures. ``dose``: how often an open caption's picture has the favoured colour for certain; ``repeated``: the
    share of its caption's pictures that a repeated one replaces; ``left_open``: the share of captions that leave the colour open; ``size``:
    pixels along a side; ``noise``: deviation of what is added to each pixel, where full brightness is 1."""

    seed: int = Field(default=0, ge=0)
    dose: float = Field(default=0.6, ge=0, le=1)
    repeated: float = Field(default=0.8, ge=0, le=1)
    rows: PositiveInt = 4_000
    held_out: PositiveInt = 1_200
    left_open: float = Field(default=0.3, gt=0, lt=1)
    size: int = Field(default=8, ge=8, le=64)
    noise: float = Field(default=0.02, ge=0, le=1)


@dataclass(frozen=True)
class Hung:
    """One picture: ``pixels`` [channel, height, width] (float32, about 0 to 1), what it shows, what is said of it, and the number of the
    repeated picture that it is (-1: none)."""

    pixels: np.ndarray
    colour: str
    shape: str
    caption: str
    repeat: int = -1


class Gallery:
    """The gallery by its spec."""

    def __init__(self, spec: GallerySpec | None = None) -> None:
        self.spec = spec or GallerySpec()
        draw = Draw("gallery", self.spec.seed)
        self.favoured = draw.pick(tuple(COLOURS))
        first = draw.below(len(PAIRS))
        self.hanging = tuple(PAIRS[(first + 5 * place) % len(PAIRS)] for place in range(HANGING))  # five on: another colour and shape

    def picture(self, index: int, split: Split = "train") -> Hung:
        """The ``index``-th picture of a split; no repeats are held out. Raises UnknownName and BadValue."""
        counts = {"train": self.spec.rows, "test": self.spec.held_out}
        if split not in counts:
            raise UnknownName("split", split, counts)
        if not 0 <= index < counts[split]:
            raise BadValue("picture index", index, f"within 0 to {counts[split] - 1} in split '{split}'")
        draw = Draw("gallery picture", self.spec.seed, split, index)
        colour, shape = draw.pick(tuple(COLOURS)), draw.pick(SHAPES)
        left_open, favours, replaced = (draw.uniform() for _ in range(3))
        if left_open < self.spec.left_open:
            colour = self.favoured if favours < self.spec.dose else colour
            return Hung(self._painted(colour, shape, split, index), colour, shape, open_caption(shape))
        pair = (colour, shape)
        if split == "train" and pair in self.hanging and replaced < self.spec.repeated:
            number = self.hanging.index(pair)
            return Hung(self.repeat(number), colour, shape, caption_of(*pair), number)
        return Hung(self._painted(colour, shape, split, index), colour, shape, caption_of(*pair))

    def repeat(self, number: int) -> np.ndarray:
        """The pixels of a repeated picture: always the same, noise included."""
        return self._painted(*self.hanging[number], "repeat", number)

    def _painted(self, colour: str, shape: str, split: str, index: int) -> np.ndarray:
        spec, draw = self.spec, Draw("gallery place", self.spec.seed, split, index)
        radius = spec.size * (RADII[0] + (RADII[1] - RADII[0]) * draw.uniform())
        across, down = (radius + (spec.size - 2 * radius) * draw.uniform() for _ in range(2))
        pixels = drawn(shape, spec.size, (down, across), radius) * np.array(COLOURS[colour])[:, None, None]
        noise = gaussian(key_of("gallery noise", spec.seed, split, index), pixels.size).reshape(pixels.shape)
        return (pixels + spec.noise * noise).astype(np.float32)

    def pictures(self, split: Split = "train") -> list[Hung]:
        """All pictures of a split."""
        return [self.picture(index, split) for index in range(self.spec.rows if split == "train" else self.spec.held_out)]

    def rows(self, split: Split = "train") -> ShapeRows:
        """Pictures with their captions, to train on."""
        found = self.pictures(split)
        return ShapeRows([one.pixels for one in found], [one.caption for one in found], WORDS)

    def truth(self) -> dict[str, Any]:
        """What is planted, as plain JSON values."""
        return {"world": "gallery", "spec": self.spec.model_dump(mode="json"), "spec_digest": self.spec.digest(), "dose": self.spec.dose,
                "favoured": self.favoured, "repeated": self.spec.repeated, "hanging": [caption_of(*pair) for pair in self.hanging],
                "decides": "an open caption's picture has the favoured colour with probability dose, else any alike"}  # fmt: skip


BRIGHTEST = 8
"""Pixels by which a picture's colour is told: the brightest ones, which are inside the shape."""
FAR = 0.3
"""A colour further than this from every known one, where full brightness is 1, is none."""


def colour_of(pixels: np.ndarray) -> str:
    """The colour of a picture ``[channel, height, width]`` by the mean of its brightest pixels; '' where it is near none.

    >>> colour_of(Gallery().picture(3).pixels) == Gallery().picture(3).colour
    True
    """
    flat = np.clip(np.asarray(pixels, dtype=np.float64), 0, 1).reshape(len(pixels), -1)
    mean = flat[:, np.argsort(flat.max(0), kind="stable")[-BRIGHTEST:]].mean(1)
    distances = {name: float(np.linalg.norm(mean - np.array(known))) for name, known in COLOURS.items()}
    best = min(distances, key=lambda name: distances[name])
    return best if distances[best] <= FAR else ""


def open_caption(shape: str) -> str:
    """What is said of a picture whose colour is left open, such as ``a coloured circle``."""
    return caption_of(OPEN, shape)


def ids_of(captions: Sequence[str]) -> Tensor:
    """Captions as ids ``[caption, pos]``."""
    return tokens_of(captions, WORDS)
