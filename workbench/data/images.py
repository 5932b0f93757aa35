"""Images with their classes, as rows of a training loop; and the handwritten digits that come with scikit-learn.

Digits: 1,797 grey images of 8 x 8 pixels (Alpaydin and Kaynak 1998, the test part of UCI's optical digits), so nothing is fetched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from workbench.core.batch import ImageBatch
from workbench.core.errors import BadValue
from workbench.data.counter import Draw, key_of, permuted

DIGITS = tuple(str(number) for number in range(10))


class ImageRows:
    """Images ``[image, channel, height, width]`` (float32) with a class each (a ``RowData``).

    With ``copies`` above 1 each image comes as often in a row: as it is, and then moved by up to ``shift`` pixels down and across, each
    copy by what (seed, row) draws; what is moved out of the picture is lost, what is moved in is zero.
    """

    def __init__(self, pixels: np.ndarray, targets: np.ndarray, *, copies: int = 1, shift: int = 1, seed: int = 0) -> None:
        pixels, targets = np.ascontiguousarray(pixels, np.float32), np.ascontiguousarray(targets, np.int64)
        if pixels.ndim != 4 or not len(pixels):
            raise BadValue("the images", pixels.shape, "[image, channel, height, width] with at least one image")
        if targets.shape != pixels.shape[:1]:
            raise BadValue("the classes", targets.shape, f"({len(pixels)},), one an image")
        if not np.isfinite(pixels).all():
            raise BadValue("the pixels", "infinite or no number", "finite")
        if copies < 1 or not 0 <= shift < min(pixels.shape[2:]):
            raise BadValue("copies and shift", (copies, shift), f"at least 1, and 0 to {min(pixels.shape[2:]) - 1} pixels")
        self._pixels, self._targets = pixels, targets
        self.copies, self.shift, self.seed = copies, shift, seed

    def __len__(self) -> int:
        return len(self._pixels) * self.copies

    def batch(self, indices: Sequence[int]) -> ImageBatch:
        """The rows ``indices``: pixels float32, targets int64."""
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        if chosen.size == 0 or chosen.min() < 0 or chosen.max() >= len(self):
            raise BadValue("row indices", chosen.tolist()[:8], f"non-empty and within 0 to {len(self) - 1}")
        image = chosen % len(self._pixels)
        pixels = self._pixels[image]
        for at in np.flatnonzero(chosen >= len(self._pixels)):
            pixels[at] = self._moved(pixels[at], int(chosen[at]))
        return ImageBatch(torch.from_numpy(pixels), torch.from_numpy(self._targets[image]))

    def _moved(self, image: np.ndarray, row: int) -> np.ndarray:
        draw = Draw("moved", self.seed, row)
        down, across = (draw.below(2 * self.shift + 1) - self.shift for _ in range(2))
        height, width = image.shape[1:]
        out = np.zeros_like(image)
        out[:, max(down, 0) : height + min(down, 0), max(across, 0) : width + min(across, 0)] = image[
            :, max(-down, 0) : height + min(-down, 0), max(-across, 0) : width + min(-across, 0)
        ]
        return out

    def digest(self) -> str:
        """sha256 (hex) over images, classes and how copies are moved."""
        whole = hashlib.sha256(f"images {self._pixels.shape} {self.copies} {self.shift} {self.seed}".encode())
        whole.update(self._pixels.astype("<f4").tobytes())
        whole.update(self._targets.astype("<i8").tobytes())
        return whole.hexdigest()


def digits(seed: int = 0, *, held_out: float = 0.2, copies: int = 1, shift: int = 1) -> dict[str, ImageRows]:
    """Training and test rows of the digits, pixels 0 to 1, ``[image, 1, 8, 8]``: each class split alike, by ``seed``.

    ``held_out`` is the share that is tested; ``copies`` and ``shift`` are the training rows'. Raises BadValue.
    """
    from sklearn.datasets import load_digits  # takes a second, and only this needs it

    if not 0 < held_out < 1:
        raise BadValue("held_out", held_out, "between 0 and 1")
    flat, targets = load_digits(return_X_y=True)
    pixels = (np.asarray(flat) / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    targets = np.asarray(targets)
    test = split(targets, seed, held_out)
    return {
        "train": ImageRows(pixels[~test], targets[~test], copies=copies, shift=shift, seed=seed),
        "test": ImageRows(pixels[test], targets[test]),
    }


@lru_cache(maxsize=2)
def held_out_digits(seed: int = 0) -> tuple[Tensor, Tensor]:
    """The test images of ``digits`` as one batch, ``[image, 1, 8, 8]``, and their classes ``[image]``."""
    rows = digits(seed)["test"]
    batch = rows.batch(range(len(rows)))
    assert batch.targets is not None
    return batch.pixels, batch.targets


def split(targets: np.ndarray, seed: int, held_out: float) -> np.ndarray:
    """Which items are held out (bool): of each class the nearest whole number to ``held_out`` of it, drawn by ``seed``."""
    out = np.zeros(len(targets), bool)
    for target in np.unique(targets):
        members = np.flatnonzero(targets == target)
        order = [permuted(i, len(members), key_of("split", seed, int(target))) for i in range(len(members))]
        out[members[np.array(order) < round(held_out * len(members))]] = True
    return out
