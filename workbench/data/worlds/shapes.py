"""The shapes: a world of small pictures, each one coloured shape, with its caption; a few pairs of colour and shape are never trained on.

Every colour and every shape is trained on, but (``unseen``) some of their pairs are not: what a model makes of those shows whether it
read the parts or learned the whole. A picture depends on (spec, split, index) alone; where its shape lies is known to the pixel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from workbench.core.batch import PairBatch
from workbench.core.errors import BadValue, UnknownName
from workbench.core.spec import Spec
from workbench.data.counter import Draw, gaussian, key_of, permuted
from workbench.data.images import ImageRows
from workbench.data.pairs import Words

Split = Literal["train", "validation", "test", "unseen"]
SPLITS = ("train", "validation", "test", "unseen")
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.9, 0.15, 0.15), "green": (0.15, 0.75, 0.2), "blue": (0.2, 0.3, 0.95), "yellow": (0.9, 0.85, 0.15),
}  # fmt: skip
"""Red, green and blue from 0 to 1."""
SHAPES = ("circle", "square", "triangle", "cross")
PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
"""All pairs; a pair's class is its place here."""
CLASSES = tuple(f"{colour} {shape}" for colour, shape in PAIRS)
WORDS = Words(("a", *COLOURS, *SHAPES))
FINE = 4  # a pixel is drawn from so many points along each side


class ShapesSpec(Spec):
    """Everything about the pictures.

    ``rows`` and ``held_out``: pictures of the training split and of each other. ``size``: pixels along a side. ``unseen``: pairs that
    only the split of that name has, no two of a colour or of a shape. ``least`` and ``most``: a shape's radius as a share of ``size``.
    ``ground``: the brightness around it. ``noise``: deviation of what is added to each pixel, where full brightness is 1.
    """

    seed: int = 0
    rows: PositiveInt = 2_000
    held_out: PositiveInt = 240
    size: int = Field(16, ge=8, le=256)
    unseen: int = Field(4, ge=0, le=4)
    least: float = Field(0.2, ge=0.15, le=0.45)
    most: float = Field(0.36, ge=0.15, le=0.45)
    ground: float = Field(0.0, ge=0.0, le=1.0)
    noise: float = Field(0.05, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"least must be at most most ({self.most}), and it is {self.least}")
        return self


@dataclass(frozen=True)
class Picture:
    """One picture: ``pixels`` [channel, height, width] (float32, about 0 to 1), ``inside`` [height, width] (true where more than half of a
    pixel is the shape), and what was drawn; lengths are in pixels, from the top left corner."""

    colour: str
    shape: str
    pixels: np.ndarray
    inside: np.ndarray
    centre: tuple[float, float]
    radius: float

    @property
    def caption(self) -> str:
        """Such as ``a red circle``."""
        return caption_of(self.colour, self.shape)


class Shapes:
    """The shapes by their spec."""

    def __init__(self, spec: ShapesSpec | None = None) -> None:
        self.spec = spec or ShapesSpec.parse({})
        turned = Draw("shapes unseen", self.spec.seed).below(len(SHAPES))
        diagonal = [(colour, SHAPES[(i + turned) % len(SHAPES)]) for i, colour in enumerate(COLOURS)]
        self.unseen = tuple(diagonal[: self.spec.unseen])
        self.seen = tuple(pair for pair in PAIRS if pair not in self.unseen)

    def size(self, split: Split = "train") -> int:
        """How many pictures a split has. Raises UnknownName for another split."""
        if split not in SPLITS:
            raise UnknownName("split", split, SPLITS)
        if split == "unseen" and not self.unseen:
            return 0
        return self.spec.rows if split == "train" else self.spec.held_out

    def pair(self, index: int, split: Split = "train") -> tuple[str, str]:
        """Colour and shape of the ``index``-th picture of a split; a split has its pairs equally often. Raises BadValue."""
        count = self.size(split)
        if not 0 <= index < count:
            raise BadValue("picture index", index, f"within 0 to {count - 1} in split '{split}'")
        pairs = self.unseen if split == "unseen" else self.seen
        return pairs[permuted(index, count, key_of("shapes pair", self.spec.seed, split)) % len(pairs)]

    def picture(self, index: int, split: Split = "train") -> Picture:
        """The ``index``-th picture of a split."""
        (colour, shape), spec = self.pair(index, split), self.spec
        draw = Draw("shapes picture", spec.seed, split, index)
        radius = spec.size * (spec.least + (spec.most - spec.least) * draw.uniform())
        across, down = (radius + (spec.size - 2 * radius) * draw.uniform() for _ in range(2))
        share = drawn(shape, spec.size, (down, across), radius)
        pixels = spec.ground + share * (np.array(COLOURS[colour])[:, None, None] - spec.ground)
        noise = gaussian(key_of("shapes noise", spec.seed, split, index), pixels.size).reshape(pixels.shape)
        return Picture(colour, shape, (pixels + spec.noise * noise).astype(np.float32), share > 0.5, (down, across), radius)

    def rows(self, split: Split = "train") -> ShapeRows:
        """Pictures with their captions."""
        pictures = [self.picture(i, split) for i in range(self.size(split))]
        return ShapeRows([one.pixels for one in pictures], [one.caption for one in pictures])

    def labelled(self, split: Split = "train") -> ImageRows:
        """The same pictures with their pair's place in ``CLASSES``."""
        pictures = [self.picture(i, split) for i in range(self.size(split))]
        if not pictures:
            raise BadValue("the pictures", "none", "at least one")
        return ImageRows(np.stack([one.pixels for one in pictures]), np.array([PAIRS.index((one.colour, one.shape)) for one in pictures]))

    def truth(self) -> dict[str, Any]:
        """What is planted, as plain JSON values."""
        unseen = [caption_of(*pair) for pair in self.unseen]
        return {"world": "shapes", "spec": self.spec.model_dump(mode="json"), "spec_digest": self.spec.digest(), "unseen": unseen}


class ShapeRows:
    """Pictures and captions (a ``RowData`` of ``PairBatch``): a caption's ids stand between the begin and the end token of ``words``."""

    def __init__(self, pixels: Sequence[np.ndarray], captions: Sequence[str], words: Words = WORDS) -> None:
        if not pixels or len(pixels) != len(captions):
            raise BadValue("the pictures and captions", (len(pixels), len(captions)), "equally many, at least one of each")
        self._pixels, self.captions = np.stack(pixels), tuple(captions)
        self._tokens = tokens_of(captions, words)

    def __len__(self) -> int:
        return len(self._pixels)

    def batch(self, indices: Sequence[int]) -> PairBatch:
        """The rows ``indices``: pixels float32, tokens int64."""
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        if chosen.size == 0 or chosen.min() < 0 or chosen.max() >= len(self):
            raise BadValue("row indices", chosen.tolist()[:8], f"non-empty and within 0 to {len(self) - 1}")
        return PairBatch(torch.from_numpy(self._pixels[chosen]), self._tokens[torch.from_numpy(chosen)])

    def digest(self) -> str:
        """sha256 (hex) over pictures and captions."""
        whole = hashlib.sha256(f"shapes {self._pixels.shape}".encode())
        whole.update(np.ascontiguousarray(self._pixels, dtype="<f4").tobytes())
        whole.update("\x1f".join(self.captions).encode())
        return whole.hexdigest()


def caption_of(colour: str, shape: str) -> str:
    """What is said of a picture."""
    return f"a {colour} {shape}"


def tokens_of(captions: Sequence[str], words: Words = WORDS) -> Tensor:
    """Captions as ids ``[caption, pos]`` (int64), with begin and end token. Raises UnknownName for another word, and BadValue for
    captions of unequal length."""
    ids = [[words.begin, *words.ids(caption.split()), words.end] for caption in captions]
    if len({len(row) for row in ids}) != 1:
        raise BadValue("the captions", sorted({len(row) for row in ids}), "at least one, all of as many words")
    return torch.tensor(ids)


def drawn(shape: str, size: int, centre: tuple[float, float], radius: float) -> np.ndarray:
    """How much of each pixel ``[size, size]`` a shape covers, 0 to 1. Raises UnknownName.

    With (y, x) from the centre in radii: circle y² + x² ≤ 1; square both at most 0.8; triangle 1.8 |x| ≤ y + 0.9 ≤ 1.7, tip up; cross
    both at most 0.95 and one at most 0.3.
    """
    points = (np.arange(size * FINE) + 0.5) / FINE
    y, x = (points[:, None] - centre[0]) / radius, (points[None, :] - centre[1]) / radius
    far, near = np.maximum(abs(y), abs(x)), np.minimum(abs(y), abs(x))
    inside = {
        "circle": y**2 + x**2 <= 1,
        "square": far <= 0.8,
        "triangle": (1.8 * abs(x) <= y + 0.9) & (y <= 0.8),
        "cross": (far <= 0.95) & (near <= 0.3),
    }
    if shape not in inside:
        raise UnknownName("shape", shape, SHAPES)
    return inside[shape].reshape(size, FINE, size, FINE).mean((1, 3))
