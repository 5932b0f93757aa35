"""Rows of images and the digits: every class split alike, rows made again from their number, copies moved and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workbench.core.batch import ImageBatch
from workbench.core.errors import BadValue
from workbench.data.images import ImageRows, digits, split


def some(count: int = 5, **fields: int) -> ImageRows:
    draw = np.random.default_rng(0)
    return ImageRows(draw.random((count, 2, 4, 6)), np.arange(count) % 3, **fields)


def whole(rows: ImageRows) -> ImageBatch:
    return rows.batch(range(len(rows)))


def test_rows_are_the_images_and_their_classes() -> None:
    rows = some()
    batch = rows.batch([3, 0, 3])
    assert (batch.pixels.dtype, tuple(batch.pixels.shape)) == (torch.float32, (3, 2, 4, 6))
    assert batch.targets is not None
    assert (batch.targets.dtype, batch.targets.tolist()) == (torch.int64, [0, 0, 0])
    assert torch.equal(batch.pixels, whole(rows).pixels[[3, 0, 3]])
    batch.pixels.zero_()  # a batch is a copy
    assert whole(rows).pixels[3].max() > 0


def test_copies_are_moved_by_whole_pixels_and_the_first_are_not() -> None:
    plain, moved = some(), some(copies=4, shift=2)
    assert len(moved) == 20
    assert torch.equal(moved.batch(range(5)).pixels, whole(plain).pixels)
    found = set()
    for row in range(5, 20):
        one, was = moved.batch([row]), plain.batch([row % 5])
        assert one.targets is not None
        assert was.targets is not None
        assert torch.equal(one.targets, was.targets)
        padded = torch.nn.functional.pad(was.pixels, (2, 2, 2, 2))
        ways = [(y, x) for y in range(5) for x in range(5) if torch.equal(padded[:, :, y : y + 4, x : x + 6], one.pixels)]
        assert len(ways) == 1
        found.update(ways)
    assert len(found) > 5
    assert torch.equal(whole(moved).pixels, whole(some(copies=4, shift=2)).pixels)
    assert not torch.equal(whole(moved).pixels, whole(some(copies=4, shift=2, seed=1)).pixels)


def test_the_digest_is_of_everything() -> None:
    digests = {rows.digest() for rows in (some(), some(4), some(copies=2), some(copies=2, seed=1), some(copies=2, shift=2))}
    assert len(digests) == 5
    assert some().digest() == some().digest()


def test_rows_that_cannot_be() -> None:
    good, classes = np.zeros((3, 1, 4, 4)), np.zeros(3)
    broken = good.copy()
    broken[0, 0, 0, 0] = np.nan
    cases = [
        (good[0], classes, {}, "the images"),
        (good[:0], classes[:0], {}, "the images"),
        (good, classes[:2], {}, "the classes"),
        (broken, classes, {}, "the pixels"),
        (good, classes, {"copies": 0}, "copies and shift"),
        (good, classes, {"shift": 4}, "0 to 3 pixels"),
    ]
    for pixels, targets, fields, words in cases:
        with pytest.raises(BadValue, match=words):
            ImageRows(pixels, targets, **fields)
    for indices in ([], [5], [-1]):
        with pytest.raises(BadValue, match="row indices"):
            some().batch(indices)


def test_the_digits() -> None:
    found = digits()
    train, test = whole(found["train"]), whole(found["test"])
    assert (len(train.pixels), len(test.pixels), tuple(test.pixels.shape[1:])) == (1438, 359, (1, 8, 8))
    assert (float(train.pixels.min()), float(train.pixels.max())) == (0.0, 1.0)
    assert train.targets is not None
    assert test.targets is not None
    share = test.targets.bincount() / (test.targets.bincount() + train.targets.bincount())
    assert ((share - 0.2).abs() < 0.003).all()  # each class alike
    together = torch.cat([train.pixels, test.pixels]).flatten(1)
    assert len(together.unique(dim=0)) == 1797  # no image is on both sides
    assert digits(1)["test"].digest() != found["test"].digest() == digits(0)["test"].digest()
    with pytest.raises(BadValue, match="held_out is 1"):
        digits(held_out=1)


def test_a_split_is_drawn_by_its_seed() -> None:
    targets = np.array([0] * 10 + [7] * 30)
    held = split(targets, 0, 0.3)
    assert (held[:10].sum(), held[10:].sum()) == (3, 9)
    assert any((split(targets, seed, 0.3) != held).any() for seed in range(1, 4))
