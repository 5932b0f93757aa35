"""The pictures of ``shapes`` under captions that also say how large the shape is and where: ``a small red circle top left``."""

from __future__ import annotations

from itertools import product

from workbench.data.pairs import Words
from workbench.data.worlds.shapes import COLOURS, SHAPES, Picture, ShapeRows, Shapes, ShapesSpec, Split

SIZES, DOWN, ACROSS = ("small", "large"), ("top", "bottom"), ("left", "right")
WORDS = Words(("a", *SIZES, *COLOURS, *SHAPES, *DOWN, *ACROSS))
CAPTIONS = tuple(f"a {' '.join(parts)}" for parts in product(SIZES, COLOURS, SHAPES, DOWN, ACROSS))
"""Every caption there can be."""


def placed_caption(picture: Picture, spec: ShapesSpec) -> str:
    """What is said of a picture of a world of ``spec``: its radius is below the middle of those drawn or not, its centre above and to the
    left of the picture's middle or not."""
    size = SIZES[picture.radius >= spec.size * (spec.least + spec.most) / 2]
    down, across = (names[place >= spec.size / 2] for names, place in zip((DOWN, ACROSS), picture.centre, strict=True))
    return f"a {size} {picture.colour} {picture.shape} {down} {across}"


def placed_rows(world: Shapes, split: Split = "train") -> ShapeRows:
    """The pictures of a split with these captions."""
    pictures = [world.picture(i, split) for i in range(world.size(split))]
    return ShapeRows([one.pixels for one in pictures], [placed_caption(one, world.spec) for one in pictures], WORDS)
