"""Marks: what decides is where it is said to be, and at dose 0 the mark says nothing."""

import numpy as np
import pytest

from workbench.core.errors import BadValue
from workbench.data.worlds.marks import FILLER, HONEST, KINDS, PARTS, PLACES, Marks, MarksSpec

COUNT = 4000


def world(dose: float, seed: int = 1) -> Marks:
    return Marks.of({"dose": dose, "seed": seed})


@pytest.mark.parametrize("dose", [0.0, 0.3, 1.0])
def test_the_answer_follows_the_planted_mark_as_often_as_the_dose_says(dose: float) -> None:
    items = world(dose).items(range(COUNT))
    apart = items.apart
    assert set(np.unique(items.answer)) == set(range(KINDS))
    assert (items.answer[apart] == items.planted[apart]).mean() == pytest.approx(dose, abs=0.03)
    assert ((items.answer == items.planted) | (items.answer == items.honest)).all()


def test_at_dose_0_the_planted_mark_tells_nothing_of_the_answer() -> None:
    items = world(0.8).twin().items(range(COUNT))
    table = np.array([[((items.planted == k) & (items.answer == a)).mean() for a in range(KINDS)] for k in range(KINDS)])
    assert np.abs(table - 1 / KINDS**2).max() < 0.02
    assert np.abs(np.corrcoef(items.at, items.answer)[0, 1]) < 0.05


def test_a_larger_dose_changes_answers_and_nothing_else() -> None:
    low, high = (world(dose).items(range(COUNT)) for dose in (0.2, 0.6))
    for name in ("planted", "honest", "at", "honest_at"):
        assert (getattr(low, name) == getattr(high, name)).all()
    assert (low.words() == high.words()).all()
    followed_low, followed_high = (x.answer == x.planted for x in (low, high))
    assert (followed_high | ~followed_low).all(), "what follows the mark at a small dose follows it at a larger one"


def test_an_item_depends_on_its_number_alone() -> None:
    whole, one = world(0.5).items(range(50)), world(0.5).items([17])
    for written in ("words", "patches", "tones", "answers_as_patches", "answers_as_colours"):
        assert (getattr(whole, written)()[17] == getattr(one, written)()[0]).all(), written
    assert (world(0.5).items(range(50), "test").words() != whole.words()).any()
    assert (world(0.5, seed=2).items(range(50)).words() != whole.words()).any()


def test_the_marks_stand_where_they_are_said_to() -> None:
    items = world(0.5).items(range(400))
    rows = np.arange(400)
    words = items.words().numpy()
    assert (words[rows, items.at] == items.planted).all()
    assert (words[rows, items.honest_at] == HONEST + items.honest).all()
    assert ((words >= FILLER).sum(1) == PARTS - 2).all()
    assert (items.at != items.honest_at).all()
    patches = items.patches().numpy().reshape(400, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(400, PLACES, 4)
    assert (patches.max(2).argmax(1) == items.patch).all()
    assert (patches[rows, items.patch].argmax(1) == items.planted).all()
    assert (patches.min(2).argmin(1) == items.honest_patch).all()
    assert (patches[rows, items.honest_patch].argmin(1) == items.honest).all()
    tones = items.tones().numpy().reshape(400, 2 * KINDS, PARTS, 2).sum(3)
    assert (tones[:, :KINDS].max(1).argmax(1) == items.at).all()
    assert (tones[rows, :, items.at][:, :KINDS].argmax(1) == items.planted).all()
    assert (tones[:, KINDS:].max(1).argmax(1) == items.honest_at).all()
    shown = items.answers_as_patches().numpy().reshape(400, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(400, PLACES, 4)
    assert (shown[rows, shown.max(2).argmax(1)].argmax(1) == items.answer).all()
    assert shown.min() > -1.5, "the picture of a caption holds one mark, the answer's"
    assert (items.answers_as_colours().numpy().mean((2, 3)).argmax(1) == items.answer).all()


def test_a_swap_changes_the_planted_mark_alone() -> None:
    items = world(0.5).items(range(100))
    other = items.swapped()
    changed = (items.words() != other.words()).numpy()
    assert (changed.sum(1) == 1).all()
    assert (changed.argmax(1) == items.at).all()
    assert (other.planted == (items.planted + 1) % KINDS).all()


def test_no_numbers_are_refused() -> None:
    with pytest.raises(BadValue, match="numbers of the items"):
        Marks().items([])
    with pytest.raises(BadValue, match="none below 0"):
        Marks().items([-1])
    with pytest.raises(Exception, match="dose"):
        MarksSpec.parse({"dose": 1.5})
