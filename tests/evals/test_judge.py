"""The judge of painted pictures: right on real ones, its errors carried into what it says, and copies told from new pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from evals.judge import Judge, asked, copied, nearest
from workbench.core.errors import BadValue
from workbench.data.worlds.shapes import Shapes, ShapesSpec

SPEC = ShapesSpec.parse({"size": 8, "rows": 40, "held_out": 120, "least": 0.28, "most": 0.42, "noise": 0.02})
NET = nn.Identity()


@pytest.mark.slow
def test_the_judge_names_pictures_it_has_not_seen_and_not_noise() -> None:
    judge = Judge.of(SPEC)
    assert judge.right / judge.tried > 0.97
    for split in ("test", "unseen"):
        batch = Shapes(SPEC).labelled(split).batch(range(120))
        assert float((judge.classes(batch.pixels) == batch.targets).float().mean()) > 0.95
    batch = Shapes(SPEC).labelled("test").batch(range(120))
    noise = torch.rand(batch.pixels.shape, generator=torch.Generator().manual_seed(0))
    assert float((judge.classes(noise) == batch.targets).float().mean()) < 0.25
    state = torch.random.get_rng_state()
    assert Judge.of(SPEC) is judge, "the same spec gives the same judge"
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_share_is_corrected_for_the_judges_errors() -> None:
    """A judge that is right in 90 % of 800 pictures: of pictures that are all right it finds 90 %, of those that are all another shape a
    thirtieth, and what it finds of half and half lies between."""
    judge = Judge(NET, 720, 800)
    assert judge.share("all", 900, 1000, "pictures").value == pytest.approx(1.0)
    assert judge.share("half", 467, 1000, "pictures").value == pytest.approx((0.467 - 1 / 30) / (0.9 - 1 / 30))
    nothing = judge.share("none", 33, 1000, "pictures")
    assert nothing.value == pytest.approx(0.0, abs=1e-3)
    assert nothing.high < 0.05
    sure, unsure = Judge(NET, 8000, 8000).share("x", 90, 100, "pictures"), Judge(NET, 30, 40).share("x", 70, 100, "pictures")
    assert unsure.high - unsure.low > 1.5 * (sure.high - sure.low), "what the judge does not know widens the interval"
    assert (sure.low, sure.value, sure.high) == (pytest.approx(0.83, abs=0.02), 0.9, pytest.approx(0.945, abs=0.02))
    for seen, count in ((1, 0), (3, 2), (-1, 2)):
        with pytest.raises(BadValue, match="the pictures of 'x'"):
            judge.share("x", seen, count, "pictures")


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    by, covered = np.random.default_rng(1), 0
    for _ in range(200):
        judge = Judge(NET, int(by.binomial(800, 0.93)), 800)
        seen = int(by.binomial(240, 0.8 * 0.93 + 0.2 * 0.07 / 3))
        found = judge.share("x", seen, 240, "pictures")
        covered += found.low <= 0.8 <= found.high
    assert covered >= 180


def test_the_nearest_picture_is_the_slow_twins_and_a_copy_is_found() -> None:
    world = Shapes(SPEC)
    training, real = (world.labelled(split).batch(range(40)).pixels for split in ("train", "test"))
    rows, distances = nearest(real, training)
    for i, picture in enumerate(real):
        slow = [float((picture - one).square().mean().sqrt()) for one in training]
        assert rows[i] == int(np.argmin(slow))
        assert float(distances[i]) == pytest.approx(min(slow), abs=1e-4)
    assert copied(training[:10] + 0.001, training, real).value == 1.0
    assert copied(real, training, real).value <= 0.05
    assert not copied(real, training, real).larger


def test_all_pairs_are_asked_for_equally_often() -> None:
    world = Shapes(SPEC)
    pairs = asked(world, 48, unseen=False)
    assert {pairs.count(pair) for pair in world.seen} == {4}
    assert set(asked(world, 8, unseen=True)) == set(world.unseen)
