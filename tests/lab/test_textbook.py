"""Textbook findings on models of shipped recipes: heads that look up what followed, and who raises and lowers names in a gift."""

from __future__ import annotations

import pytest

from tests.scripts import script


@pytest.mark.full
def test_induction_heads_form_and_carry_the_repeats() -> None:
    book = script("textbook")
    model = book.trained("gpt-repeats", 1, None)
    found = book.induction(model)
    assert (found.previous[0], found.induction[0]) == (0, 1)
    assert found.scores[0] > 0.6
    assert found.scores[1] > 0.9
    assert found.rank <= 2  # of 16 pairs: the second reads the first through its keys
    assert found.plain < 0.05
    assert found.without[found.previous] > 2.0
    assert found.without[found.induction] > 1.0
    blank = book.induction(book.fresh(model, 1))
    assert max(blank.scores) < 0.2
    assert max(blank.without.values()) - blank.plain < 0.1


@pytest.mark.full
def test_one_head_lowers_the_giver_and_another_copies_the_recipient() -> None:
    book = script("textbook")
    model = book.trained("gpt-gifts", 1, None)
    found = book.gifts(model)
    assert found.plain > 5
    assert found.mover != found.silencer
    assert found.copies[0] > 0.8
    assert found.looks[1] > 0.7
    assert found.lowered[found.silencer] > 5
    assert found.without[found.silencer] < -0.8 * found.plain  # with the giver exchanged for that head alone, the other is named
    blank = book.gifts(book.fresh(model, 1))
    assert abs(blank.plain) < 1
    assert blank.copies[0] < 0.3
    assert max(blank.raised.values()) < 0.2
