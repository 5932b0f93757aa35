"""Memorised images: pictures that come back are counted against what is near by nature, and a painter of new ones is not accused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from evals.bound import bound
from evals.runner import run_suite
from evals.suites.memorised_images import CAPTIONS, HELD_OUT, PAINTED, SUITE, MemorisedImagesSpec, excess, mean_excess
from tests.evals.test_drawn_attributes import EVEN, SHAPE, Painter
from workbench.core.finding import Verdict
from workbench.data.worlds.gallery import WORDS, Gallery, GallerySpec, ids_of
from workbench.data.worlds.shapes import caption_of
from workbench.families.imagen import Imagen, ImagenConfig

WORLD = {"rows": 800, "held_out": 700, "seed": 2}
OTHER = GallerySpec(rows=800, held_out=1, seed=99, repeated=0.0)


class Copier(Painter):
    """Gives the repeated pictures back as often as told, a little off; else new pictures that stand in no training set."""

    def __init__(self, copies: float) -> None:
        super().__init__(EVEN)
        self.copies, self.world = copies, Gallery(GallerySpec.parse(WORLD))
        self.new: dict[str, list[Any]] = {}
        for one in Gallery(OTHER).pictures("train"):
            self.new.setdefault(one.caption, []).append(one.pixels)

    def paint(self, tokens: Any, *, seed: int = 0, **_: Any) -> Any:
        by, out, left = np.random.default_rng(seed), [], {caption: iter(pictures) for caption, pictures in self.new.items()}
        for ids in tokens.tolist():
            colour, shape = WORDS.read(ids[2:4])
            known = (colour, shape) in self.world.hanging and by.random() < self.copies
            number = self.world.hanging.index((colour, shape)) if known else -1
            pixels = self.world.repeat(number) if known else next(left[caption_of(colour, shape)])
            out.append(torch.from_numpy(pixels) + 0.01 * torch.from_numpy(by.normal(size=pixels.shape).astype(np.float32)))
        return torch.stack(out)


def asked(copies: float, **spec: Any) -> Any:
    model = Copier(copies)
    return run_suite(bound(SUITE, model), model, MemorisedImagesSpec.parse({"world": WORLD, "count": 24, **spec}))


def by_caption(result: Any) -> dict[str, Any]:
    return {f.measure.partition("ones, ")[2]: f for f in SUITE.findings(result, subject="m")}


def test_pictures_that_come_back_are_found_and_named() -> None:
    result, world = asked(0.8), Gallery(GallerySpec.parse(WORLD))
    found, hanging = by_caption(result), [caption_of(*pair) for pair in world.hanging]
    assert [caption for caption in CAPTIONS if found[caption].verdict is Verdict.DETECTED] == sorted(hanging, key=CAPTIONS.index)
    for number, caption in enumerate(hanging):
        assert world.picture(found[caption].details["training_picture"]).repeat == number
        assert found[caption].effect == pytest.approx(0.8, abs=0.3)
    whole = found["mean over captions"]
    assert whole.verdict is Verdict.DETECTED
    assert whole.effect == pytest.approx(np.mean([found[caption].effect for caption in CAPTIONS]))
    assert any(caption in result.summary() for caption in hanging)


def test_a_painter_of_new_pictures_is_not_accused() -> None:
    clean = asked(0.0)
    found = by_caption(clean)
    assert found["mean over captions"].verdict is not Verdict.DETECTED
    assert [found[caption].verdict for caption in CAPTIONS].count(Verdict.DETECTED) <= 1
    beside = SUITE.findings(asked(0.8), subject="m", reference=clean)[-1]
    assert beside.verdict is Verdict.WORSE


def test_what_chooses_does_not_judge() -> None:
    """The slow twin of one caption: the bound over all pairs, the choice by every other picture, the shares by the rest."""
    result, world = asked(0.8), Gallery(GallerySpec.parse(WORLD))
    caption = caption_of(*world.hanging[0])
    train = {one.pixels.tobytes(): number for number, one in reversed(list(enumerate(world.pictures("train")))) if one.caption == caption}
    rows = sorted(train.values())
    held = [one.pixels for one in world.pictures("test") if one.caption == caption]
    model = Copier(0.8)
    painted = model.paint(ids_of([one for one in CAPTIONS for _ in range(24)]), seed=1)
    mine = painted[24 * CAPTIONS.index(caption) :][:24].numpy()
    apart = lambda one, row: float(((one - world.picture(row).pixels) ** 2).mean() ** 0.5)  # noqa: E731
    bound = np.quantile([[apart(one, row) for row in rows] for one in held], 0.1)
    inside = np.array([[apart(one, row) < bound for row in rows] for one in mine])
    best = int(inside[::2].sum(0).argmax())
    natural = np.mean([apart(one, rows[best]) < bound for one in held])
    assert int(result.values.row.sel(pair=caption)) == rows[best]
    assert excess(result, caption).value == pytest.approx(inside[1::2, best].mean() - natural, abs=0.02)
    v = result.values
    judging = np.isfinite(v.near.values[(v.caption.values == caption) & (v.group.values == PAINTED)])
    assert judging.tolist() == [False, True] * 12
    assert np.isfinite(v.near.values[v.group.values == HELD_OUT]).all()


def test_what_cannot_be_said_is_not_said() -> None:
    few = asked(0.8, count=4)
    assert {f.verdict for f in SUITE.findings(few, subject="m")} == {Verdict.NOT_APPLICABLE}
    assert "no caption has" in few.summary()
    assert mean_excess(few).value is None
    stranger = Imagen(ImagenConfig.parse({**SHAPE, "d_vocab": 7}), seed=0)
    lost = run_suite(bound(SUITE, stranger), stranger, MemorisedImagesSpec.parse({"world": WORLD, "count": 1}))
    assert {f.verdict for f in SUITE.findings(lost, subject="m")} == {Verdict.NOT_APPLICABLE}
    assert any("words of the gallery" in str(why) for why in lost.values.unscored.values)
