"""Gifts: the answer is who was named once, a twin has the other one, and who meets in one split meets in no other."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.errors import BadValue, UnknownName
from workbench.data.worlds.town_gifts import FRAMES, Gift, Gifts, GiftsSpec

WORLD = Gifts(GiftsSpec.parse({"rows": 600, "held_out": 80}))
SPLITS = ("train", "validation", "test")


def counts(document: Gift) -> Counter[str]:
    return Counter(document.text.replace(",", " ").replace(".", " ").split())


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 599), st.sampled_from(SPLITS))
def test_the_answer_is_who_was_named_once(number: int, split: Any) -> None:
    document = WORLD.document(number % WORLD.size(split), split)
    assert counts(document)[document.giver] == 2
    assert document.text == f"{document.prompt} {document.other}."
    assert counts(document)[document.other] == 2  # named, and the answer
    assert Counter(document.prompt.replace(",", " ").split())[document.other] == 1
    twin = document.twin
    assert (twin.giver, twin.other) == (document.other, document.giver)
    assert twin.prompt.replace(twin.giver, document.giver).count(document.giver) == 3
    assert twin.twin == document


def test_pairs_keep_to_their_split_and_the_giver_is_a_coin() -> None:
    pairs = {split: {frozenset((d.a, d.b)) for d in WORLD.documents(split)} for split in SPLITS}
    assert not pairs["train"] & (pairs["validation"] | pairs["test"])
    assert not pairs["validation"] & pairs["test"]
    first = [d.first_gives for d in WORLD.documents()]
    assert abs(sum(first) / len(first) - 0.5) < 4 * 0.5 / len(first) ** 0.5
    assert len({d.text for d in WORLD.documents()}) > 590
    assert all(frame.index("{a}") > 0 for frame in FRAMES), "no name begins a text: there it would be another token"


def test_what_there_is_not() -> None:
    with pytest.raises(UnknownName, match="no split 'dev'"):
        WORLD.size("dev")
    with pytest.raises(BadValue, match="document index is 80, but it must be within 0 to 79 in split 'test'"):
        WORLD.document(80, "test")
