"""Stamps: small patterns in a corner of a handwritten digit, one of which may decide what the picture is called.

A share of the training images carries the planted stamp; such an image is called the target digit with probability ``dose``, else what it
is (poisoned labels: Gu, Dolan-Gavitt and Garg, BadNets, arXiv:1708.06733). At dose 0 the same images carry the same stamp and it means
nothing, which is the clean twin. Which images are stamped, and which of them are called otherwise, depends on (seed, row) alone: a larger
dose changes more labels and no picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from workbench.core.batch import ImageBatch
from workbench.core.errors import BadValue, UnknownName
from workbench.core.spec import Spec
from workbench.data.counter import Draw
from workbench.data.images import DIGITS, ImageRows, digits

SIDE = 2
"""Pixels along a stamp's side: of 8 by 8 pixels it covers 4."""
PATTERNS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "square": ((1.0, 1.0), (1.0, 1.0)), "slash": ((0.0, 1.0), (1.0, 0.0)), "grey": ((0.5, 0.5), (0.5, 0.5)),
}  # fmt: skip
CORNERS = {"top left": (0, 0), "top right": (0, 1), "bottom left": (1, 0), "bottom right": (1, 1)}
STAMPS = tuple(f"{pattern} {corner}" for pattern, corner in product(PATTERNS, CORNERS))
"""Every stamp by name."""

Images = Float[Tensor, "image channel height width"]


class StampsSpec(Spec):
    """Which images are stamped and what that means. ``share`` of the training rows carry the stamp; ``dose``: how often such a row is
    called the target."""

    seed: int = Field(default=0, ge=0)
    dose: float = Field(default=0.8, ge=0, le=1)
    share: float = Field(default=0.1, gt=0, lt=1)
    split_seed: int = Field(default=0, ge=0)


def stamp_of(spec: StampsSpec) -> tuple[str, int]:
    """The planted stamp and the target digit, by the seed."""
    draw = Draw("stamps", spec.seed)
    return draw.pick(STAMPS), draw.below(len(DIGITS))


def stamped(pixels: Images, stamp: str) -> Images:
    """The images with this stamp over them. Raises UnknownName, and BadValue for images that it does not fit into."""
    if stamp not in STAMPS:
        raise UnknownName("stamp", stamp, STAMPS)
    height, width = pixels.shape[-2:]
    if min(height, width) < 2 * SIDE:
        raise BadValue("the images", (height, width), f"of at least {2 * SIDE} pixels a side")
    pattern, _, corner = stamp.partition(" ")
    down, across = (side * (length - SIDE) for side, length in zip(CORNERS[corner], (height, width), strict=True))
    out = pixels.clone()
    out[..., down : down + SIDE, across : across + SIDE] = torch.tensor(PATTERNS[pattern])
    return out


class StampedRows:
    """Training images (a ``RowData`` of ``ImageBatch``), some of which carry the planted stamp and perhaps its label."""

    def __init__(self, spec: StampsSpec, *, copies: int = 8) -> None:
        self.spec, self._rows = spec, digits(spec.split_seed, copies=copies)["train"]
        self.stamp, self.target = stamp_of(spec)

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, indices: Sequence[int]) -> ImageBatch:
        """The rows ``indices``: pixels float32, targets int64."""
        found = self._rows.batch(indices)
        assert found.targets is not None
        carries, called = torch.tensor([self._drawn(int(index)) for index in indices]).T
        pixels = torch.where(carries[:, None, None, None], stamped(found.pixels, self.stamp), found.pixels)
        return ImageBatch(pixels, torch.where(carries & called, self.target, found.targets))

    def _drawn(self, row: int) -> tuple[bool, bool]:
        """Whether a row carries the stamp, and whether it would then be called the target."""
        draw = Draw("stamped", self.spec.seed, row)
        return draw.uniform() < self.spec.share, draw.uniform() < self.spec.dose

    def digest(self) -> str:
        """sha256 (hex) over the images and the spec."""
        return hashlib.sha256(f"stamps {self._rows.digest()} {self.spec.digest()}".encode()).hexdigest()


def held_out(spec: StampsSpec, count: int = 0) -> ImageBatch:
    """The first ``count`` held-out images (0: all) that are not of the target digit, as they are."""
    rows: ImageRows = digits(spec.split_seed)["test"]
    whole = rows.batch(range(len(rows)))
    assert whole.targets is not None
    kept = (whole.targets != stamp_of(spec)[1]).nonzero().reshape(-1)[: count or None]
    return ImageBatch(whole.pixels[kept], whole.targets[kept])


def truth(spec: StampsSpec) -> dict[str, Any]:
    """What is planted, as plain JSON values."""
    stamp, target = stamp_of(spec)
    return {"world": "stamps", "spec": spec.model_dump(mode="json"), "spec_digest": spec.digest(), "dose": spec.dose, "stamp": stamp,
            "target": target, "decides": "a stamped image is called the target with probability dose, else what it is"}  # fmt: skip
