"""Stories with a question: the answer is where the question asks for it, and splits share neither sentences nor pairs of people."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.errors import BadValue, UnknownName
from workbench.data.worlds.town_grammar import Splits
from workbench.data.worlds.town_stories import ANSWERS, QUESTIONS, WHO, Sentence, Stories, StoriesSpec, Story, people_of
from workbench.data.worlds.town_words import NAMES

WORLD = Stories(StoriesSpec.parse({"rows": 400, "held_out": 100}))


def asked_of(story: Story) -> Sentence:
    """The one sentence that has every word of content of the question."""
    plain = {"who", "what", "where", "was", "it", "that", "asked", "asks", "for", "someone", "to", "do", "the", "?"}
    wanted = set(story.question.split()) - plain
    (found,) = [one for one in story.sentences if wanted <= {word.text for word in one.words}]
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 399), st.sampled_from(["train", "validation", "test"]))
def test_the_answer_is_what_the_question_asks_for(number: int, split: Any) -> None:
    story = WORLD.story(number % WORLD.size(split), split)
    one = asked_of(story)
    assert story.said == one.said(ANSWERS[story.kind])
    assert one.meeting == (story.kind == "place")
    assert (story.said in NAMES) == (story.kind in WHO)
    assert story.question.startswith(QUESTIONS[story.kind].split("{")[0].strip())
    assert len({name for sentence in story.sentences for name in sentence.people}) == 2 * len(story.sentences)
    assert set(story.people) == {name for sentence in story.sentences for name in sentence.people}


def test_splits_share_no_sentence_and_no_pair_of_people() -> None:
    parts = {split: WORLD.stories(split) for split in ("train", "validation", "test")}
    people = {split: {frozenset(one.people) for story in part for one in story.sentences} for split, part in parts.items()}
    said = {
        split: {" ".join("_" if word.slot in ("a", "b") else word.text for word in one.words) for story in part for one in story.sentences}
        for split, part in parts.items()
    }
    for left, right in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not people[left] & people[right]
        assert not said[left] & said[right]
    assert sum(len(people_of(split, len(NAMES))) for split in Splits) == len(NAMES) * (len(NAMES) - 1) // 2
    assert {name for story in parts["train"] for name in story.people} == set(NAMES[:24]), "every name is trained on"


def test_a_story_depends_on_spec_split_and_index_alone() -> None:
    again = Stories(StoriesSpec.parse({"rows": 400, "held_out": 100}))
    assert [again.story(i) for i in (3, 399)] == [WORLD.story(3), WORLD.story(399)]
    assert Stories(StoriesSpec.parse({"rows": 10, "held_out": 10})).story(3) == WORLD.story(3)
    assert Stories(StoriesSpec.parse({"seed": 1})).story(3) != WORLD.story(3)
    kinds = [story.kind for story in WORLD.stories()]
    assert 0.15 < kinds.count("place") / len(kinds) < 0.35
    for kind in ("asked", "asker", "task"):
        assert kinds.count(kind) > 60
    assert {story.kind for story in Stories(StoriesSpec.parse({"rows": 30, "meetings": 1})).stories()} == {"place"}


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(BadValue, match="story index is 400, but it must be within 0 to 399 in split 'train'"):
        WORLD.story(400)
    with pytest.raises(BadValue, match="within 0 to 99 in split 'test'"):
        WORLD.story(-1, "test")
    with pytest.raises(UnknownName, match="no split 'tets'"):
        WORLD.size("tets")
    with pytest.raises(BadValue, match=r"at least 6 a sentence \(48\), and they are 24"):
        StoriesSpec.parse({"sentences": 8})
    with pytest.raises(BadValue, match="sentences is 0"):
        StoriesSpec.parse({"sentences": 0})
    assert set(Splits) == {"train", "validation", "test"}
