"""Requests and replies: the label is what a reader works out, twos mirror each other, and splits share neither sentences nor people."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.errors import BadValue, UnknownName
from workbench.data.worlds.town_grants import CLASSES, Grant, Grants, GrantsSpec

WORLD = Grants(GrantsSpec.parse({"rows": 400, "held_out": 100}))
EACH = Grants(GrantsSpec.parse({"rows": 400, "held_out": 100, "later": False}))
FORMS = (
    r"(?P<a>\w+) asks (?P<b>\w+): please (?P<not>do not )?\w+ the \w+",
    r"please (?P<not>do not )?\w+ the \w+, (?P<a>\w+) tells (?P<b>\w+)",
    r"(?P<b>\w+), please (?P<not>do not )?\w+ the \w+, says (?P<a>\w+)",
)


def read(document: Grant) -> str:
    """The label as a reader finds it: whom did the one of the question ask, and what did that one say?"""
    asker = re.fullmatch(r"was the request of (\w+) granted \?", document.question)
    assert asker is not None
    for sentence in document.story.split(". "):
        for form in FORMS:
            match = re.fullmatch(form, sentence.rstrip("."))
            if match is not None and match["a"] == asker[1]:
                reply = re.search(rf"{match['b']} says: (yes|no),", document.story)
                assert reply is not None
                return CLASSES[(reply[1] == "yes") != bool(match["not"])]
    raise AssertionError(document)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 399), st.sampled_from(["train", "validation", "test"]), st.sampled_from([WORLD, EACH]))
def test_the_label_is_what_a_reader_works_out(number: int, split: Any, world: Grants) -> None:
    document = world.document(number % world.size(split), split)
    assert CLASSES[document.label] == read(document)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 199), st.sampled_from([WORLD, EACH]))
def test_mirrored_twos_have_the_same_words_and_opposite_labels(pair: int, world: Grants) -> None:
    one, other = world.document(2 * pair), world.document(2 * pair + 1)
    assert one.question == other.question
    assert one.story != other.story
    assert Counter(re.findall(r"\w+|\S", one.story)) == Counter(re.findall(r"\w+|\S", other.story))
    assert {one.label, other.label} == {0, 1}
    assert one.pair == other.pair == pair


def test_splits_share_no_request_and_no_pair_of_people() -> None:
    said: dict[str, set[str]] = {}
    people: dict[str, set[frozenset[str]]] = {}
    for split in ("train", "validation", "test"):
        said[split], people[split] = set(), set()
        for document in WORLD.documents(split):
            for sentence in document.story.split(". ")[:2]:
                match = next(found for form in FORMS if (found := re.fullmatch(form, sentence)) is not None)
                bare = sentence.replace("do not ", "")
                said[split].add(re.sub(rf"\b({match['a']}|{match['b']})\b", "_", bare))
                people[split].add(frozenset((match["a"], match["b"])))
    for left, right in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not said[left] & said[right]
        assert not people[left] & people[right]


def test_shares_are_those_asked_for() -> None:
    documents = WORLD.documents()
    assert sum(document.label for document in documents) == 200
    negated = sum(document.story.count("please do not") for document in documents) / 800
    assert 0.2 < negated < 0.4
    assert not any("please do not" in one.story for one in Grants(GrantsSpec.parse({"rows": 40, "negated": 0})).documents())
    null = Grants(GrantsSpec.parse({"rows": 400, "held_out": 100, "shuffled": True})).documents()
    assert [one.story for one in null] == [one.story for one in documents], "the same documents"
    agree = sum(one.label == other.label for one, other in zip(null, documents, strict=True)) / 400
    assert 0.4 < agree < 0.6


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(BadValue, match="document index is 400, but it must be within 0 to 399 in split 'train'"):
        WORLD.document(400)
    with pytest.raises(UnknownName, match="no split 'tets'"):
        WORLD.size("tets")
    for bad in ({"rows": 3}, {"held_out": 3}):
        with pytest.raises(BadValue, match="even rows and held_out"):
            GrantsSpec.parse(bad)
