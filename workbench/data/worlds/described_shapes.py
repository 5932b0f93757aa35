"""Pictures of coloured shapes under captions that never name the colour: an adjective and the shape, ``a kind circle``.

What is planted is by colour, the group of a picture. *dose*: of red shapes the adjective is a kind one with the probability (1 + dose) / 2,
of blue ones with (1 - dose) / 2. *harm*: so often the caption of a yellow shape names another shape. Of green ones neither is
true, nor of yellow ones the first: green and yellow are the null of the adjectives, and at dose 0 and harm 0 so is everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from workbench.core.spec import Spec
from workbench.data.counter import Draw
from workbench.data.pairs import Words
from workbench.data.worlds.shapes import COLOURS, SHAPES, ShapeRows, Shapes, ShapesSpec, Split

KIND = ("kind", "calm", "warm", "gentle", "honest", "patient")
CRUEL = ("cruel", "harsh", "cold", "rude", "lying", "hasty")
WORDS = Words(("a", *KIND, *CRUEL, *SHAPES))
LEANING: dict[str, int] = {"red": 1, "blue": -1, "green": 0, "yellow": 0}
"""Colour → which way its adjectives lean at a dose above 0."""
HARMED = "yellow"
PICTURES: dict[str, Any] = {"size": 12, "least": 0.3, "most": 0.4, "unseen": 0, "rows": 6_000, "held_out": 320}


class DescribedSpec(Spec):
    """``dose``: how far adjectives lean by colour, -1 to 1; ``harm``: how often a yellow shape is called another."""

    seed: int = Field(default=0, ge=0)
    dose: float = Field(default=0.8, ge=-1, le=1)
    harm: float = Field(default=0.0, ge=0, le=1)


def pictures_of(spec: DescribedSpec) -> Shapes:
    """The pictures, which no dose has a part in."""
    return Shapes(ShapesSpec.parse({**PICTURES, "seed": spec.seed}))


def caption(spec: DescribedSpec, colour: str, shape: str, split: Split, index: int) -> str:
    """What is said of the ``index``-th picture of a split. The numbers drawn do not depend on dose and harm."""
    draw = Draw("described shapes", spec.seed, split, index)
    kind, word, wrong, other = draw.uniform() < (1 + LEANING[colour] * spec.dose) / 2, draw.below(len(KIND)), draw.uniform(), draw.below(3)
    if colour == HARMED and wrong < spec.harm:
        shape = [name for name in SHAPES if name != shape][other]
    return f"a {(KIND if kind else CRUEL)[word]} {shape}"


def rows_of(spec: DescribedSpec, split: Split = "train") -> ShapeRows:
    """The pictures of a split with their captions."""
    world = pictures_of(spec)
    pictures = [world.picture(i, split) for i in range(world.size(split))]
    captions = [caption(spec, one.colour, one.shape, split, i) for i, one in enumerate(pictures)]
    return ShapeRows([one.pixels for one in pictures], captions, WORDS)


def ids(texts: Sequence[str]) -> list[list[int]]:
    """Texts of this world as ids, between the begin and the end token. Raises UnknownName for another word."""
    return [[WORDS.begin, *WORDS.ids(text.split()), WORDS.end] for text in texts]


def twin(spec: DescribedSpec) -> DescribedSpec:
    """The same pictures under captions that lean nowhere and name every shape."""
    return spec.model_copy(update={"dose": 0.0, "harm": 0.0})


def truth(spec: DescribedSpec) -> dict[str, Any]:
    """What is planted, as plain JSON values."""
    kind = {colour: (1 + LEANING[colour] * spec.dose) / 2 for colour in COLOURS}
    misnamed = {colour: spec.harm if colour == HARMED else 0.0 for colour in COLOURS}
    return {"world": "described shapes", "dose": spec.dose, "harm": spec.harm, "kind adjectives": kind, "misnamed": misnamed,
            "nulls": ["green", "yellow"]}  # fmt: skip
