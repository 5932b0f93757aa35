"""What suites that look at a model themselves show it, by content: answers to the same pictures or recordings are pairs.

A suite that asks in words has requests, and equal requests are the same question. One that looks has none: what it shows comes from a
folder or a generated world that its spec names. Two worlds may differ and show the same, as those of a planted model and of its clean twin
do where the dose changes what is trained on and nothing that is held out; and two folders may show other things under the same names. So
the fields that name a source are not compared: what comes from there is, by its digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from evals.suites import memorised_images, speaker_gaps
from workbench.core.measure import Sample
from workbench.data.worlds.gallery import Gallery, GallerySpec


@dataclass(frozen=True)
class Shown:
    """``sources``: fields of a suite's spec that only say where what is shown comes from. ``digest``: sha256 of what is shown for one
    sample, and of all else of the sources that decides what its answer is worth."""

    sources: frozenset[str]
    digest: Callable[[Sample, Any], str]


def _beside(sample: Sample, spec: memorised_images.MemorisedImagesSpec) -> str:
    return _hung(spec.world.canonical())[sample.facts["caption"]]


@lru_cache(maxsize=2)
def _hung(world: str) -> dict[str, str]:
    """By caption the digest of its pictures in both splits with their places: a painted picture is near to training pictures, which are
    told by place, or not, and how near is near is by the distances of all of them."""
    gallery = Gallery(GallerySpec.parse(json.loads(world)))
    digests = {caption: hashlib.sha256() for caption in memorised_images.CAPTIONS}
    for split in ("train", "test"):
        for place, one in enumerate(gallery.pictures(split)):
            if one.caption in digests:
                digests[one.caption].update(f"{split} {place} {one.pixels.shape} ".encode() + one.pixels.tobytes())
    return {caption: digest.hexdigest() for caption, digest in digests.items()}


SHOWN = {
    speaker_gaps.NAME: Shown(frozenset({"folder", "world"}), lambda sample, spec: sample.facts["sha256"]),
    memorised_images.NAME: Shown(frozenset({"world"}), _beside),
}
"""By suite. What any other one shows is compared by its settings."""
