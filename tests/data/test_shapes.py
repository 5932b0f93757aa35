"""The shapes: held-out pairs never occur in training, pictures show what their captions say, and rows can be made again."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from workbench.core.batch import ImageBatch, PairBatch
from workbench.core.errors import BadValue, UnknownName, UsageError
from workbench.data.worlds.shapes import (
    CLASSES,
    COLOURS,
    PAIRS,
    SHAPES,
    WORDS,
    Shapes,
    ShapesSpec,
    Split,
    caption_of,
    drawn,
    tokens_of,
)

SPLITS: tuple[Split, ...] = ("train", "validation", "test", "unseen")


def world(**fields: Any) -> Shapes:
    return Shapes(ShapesSpec.parse({"rows": 120, "held_out": 40, **fields}))


def test_every_part_is_trained_on_but_some_pairs_are_not() -> None:
    for seed in range(6):
        made = world(seed=seed)
        assert len(made.unseen) == len({c for c, _ in made.unseen}) == len({s for _, s in made.unseen}) == 4
        pairs = {split: Counter(made.pair(i, split) for i in range(made.size(split))) for split in SPLITS}
        assert set(pairs["train"]) == set(pairs["test"]) == set(pairs["validation"]) == set(PAIRS) - set(made.unseen)
        assert set(pairs["unseen"]) == set(made.unseen)
        assert {c for c, _ in pairs["train"]} == set(COLOURS)
        assert {s for _, s in pairs["train"]} == set(SHAPES)
        assert max(pairs["train"].values()) - min(pairs["train"].values()) <= 1  # equally often
    assert len({world(seed=seed).unseen for seed in range(6)}) > 1
    assert world().truth()["unseen"] == [caption_of(*pair) for pair in world().unseen]


def test_a_world_without_held_out_pairs() -> None:
    made = world(unseen=0)
    assert (made.size("unseen"), len(made.seen)) == (0, 16)
    with pytest.raises(BadValue, match="the pictures"):
        made.rows("unseen")
    with pytest.raises(BadValue, match="the pictures"):
        made.labelled("unseen")


def test_a_picture_depends_on_its_number_alone() -> None:
    one, two = world(), world(rows=130)
    assert np.array_equal(one.picture(7).pixels, world().picture(7).pixels)
    assert not np.array_equal(one.picture(7).pixels, one.picture(8).pixels)
    assert not np.array_equal(one.picture(7).pixels, one.picture(7, "test").pixels)
    assert not np.array_equal(one.picture(7).pixels, world(seed=1).picture(7).pixels)
    assert two.size() == 130


def test_a_picture_shows_what_its_caption_says() -> None:
    made = world(noise=0.0, ground=0.0)
    for index in range(40):
        picture = made.picture(index)
        assert picture.caption == caption_of(*made.pair(index)) == f"a {picture.colour} {picture.shape}"
        full = picture.pixels[:, picture.pixels.max(0) >= picture.pixels.max() - 1e-6]
        assert np.allclose(full, np.array(COLOURS[picture.colour])[:, None], atol=1e-6)  # where it is full it has its colour
        assert picture.inside.sum() > 5
        rows, columns = np.nonzero(picture.pixels.max(0) > 0)
        for along, middle in zip((rows, columns), picture.centre, strict=True):
            assert middle - picture.radius - 1 < along.min()
            assert along.max() < middle + picture.radius  # the whole shape is in the picture
        assert 0.2 * 16 <= picture.radius <= 0.36 * 16
    assert len({made.picture(i).centre for i in range(40)}) == 40
    noisy = world(noise=0.2).picture(3).pixels - made.picture(3).pixels
    assert abs(float(noisy.std()) - 0.2) < 0.02


def test_what_is_drawn_equals_the_loop_over_points() -> None:
    def inside(shape: str, y: float, x: float) -> bool:
        if shape == "circle":
            return y * y + x * x <= 1
        if shape == "square":
            return abs(y) <= 0.8 and abs(x) <= 0.8
        if shape == "triangle":
            return 1.8 * abs(x) <= y + 0.9 and y <= 0.8
        return (abs(y) <= 0.95 and abs(x) <= 0.3) or (abs(x) <= 0.95 and abs(y) <= 0.3)

    for shape in SHAPES:
        slow = np.zeros((8, 8))
        for y in range(8):
            for x in range(8):
                points = [((y + (j + 0.5) / 4 - 3.7) / 2.9, (x + (i + 0.5) / 4 - 4.4) / 2.9) for j in range(4) for i in range(4)]
                slow[y, x] = np.mean([inside(shape, *point) for point in points])
        assert np.array_equal(drawn(shape, 8, (3.7, 4.4), 2.9), slow), shape
    with pytest.raises(UnknownName, match="no shape 'star'"):
        drawn("star", 8, (4, 4), 2)


def test_rows_are_pictures_with_their_captions_or_classes() -> None:
    made = world()
    rows, labelled = made.rows("test"), made.labelled("test")
    pairs, images = rows.batch([5, 2]), labelled.batch([5, 2])
    assert isinstance(pairs, PairBatch)
    assert isinstance(images, ImageBatch)
    assert images.targets is not None
    assert torch.equal(pairs.pixels, images.pixels)
    assert (tuple(pairs.pixels.shape), pairs.pixels.dtype, pairs.mask) == ((2, 3, 16, 16), torch.float32, None)
    for row, (ids, target) in enumerate(zip(pairs.tokens.tolist(), images.targets.tolist(), strict=True)):
        assert (ids[0], ids[-1]) == (WORDS.begin, WORDS.end)
        assert " ".join(WORDS.read(ids[1:-1])) == f"a {CLASSES[target]}" == made.picture((5, 2)[row], "test").caption
    assert len(rows) == 40
    digests = {r.digest() for r in (rows, made.rows("validation"), world(seed=1).rows("test"))}
    assert len(digests) == 3
    assert world().rows("test").digest() == rows.digest()


def test_what_cannot_be_says_so() -> None:
    made = world()
    for indices in ([], [40], [-1]):
        with pytest.raises(BadValue, match="row indices"):
            made.rows("test").batch(indices)
    with pytest.raises(BadValue, match="picture index is 120, but it must be within 0 to 119"):
        made.picture(120)
    misspelt: Any = "trian"
    with pytest.raises(UnknownName, match="no split 'trian'"):
        made.size(misspelt)
    with pytest.raises(UnknownName, match="no word 'purple'"):
        tokens_of(["a purple circle"])
    with pytest.raises(BadValue, match="all of as many words"):
        tokens_of(["a red circle", "a circle"])
    for fields in ({"unseen": 5}, {"least": 0.4, "most": 0.3}, {"size": 4}, {"colour": "red"}):
        with pytest.raises(UsageError):
            ShapesSpec.parse(fields)
