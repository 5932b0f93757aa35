"""Stories of the town with a question each: who was asked, who asked, what was to be done, where two people met.

A story is a few sentences, each about two people; the answer to its question is a part of its text. A story depends on (spec, split, index)
alone. Sentences keep to their split by what they say without the names (``town_grammar.split_of``) and by who is in them: two people who
stand in one sentence of a split stand together in no sentence of another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from workbench.core.errors import BadValue, UnknownName
from workbench.core.spec import Spec
from workbench.data.counter import Draw, key_of
from workbench.data.worlds.town_grammar import Splits, Word, placed, sampled, substituted
from workbench.data.worlds.town_words import NAMES

Split = Literal["train", "validation", "test"]
Kind = Literal["asked", "asker", "task", "place"]
REQUESTS: tuple[str, ...] = (
    "{a} asks {b} : please {task} .",
    "{a} tells {b} : {when} please {task} .",
    "please {task} , {a} tells {b} .",
    "{b} , please {task} , says {a} .",
    "{when} {b} is asked by {a} to {task} .",
)
"""``{a}`` asks ``{b}``. In two of five the name nearest to what is to be done is that of the one who was asked, in one both are as near."""
MEETINGS: tuple[str, ...] = ("{a} {met} {b} {place} .", "{place} {a} {met} {b} .", "{a} and then {b} came {place} , where {a} {met} {b} .")
QUESTIONS: Mapping[Kind, str] = {
    "asked": "who was asked to {task} ?",
    "asker": "who asked for someone to {task} ?",
    "task": "what was {b} asked to do ?",
    "place": "where was it that {a} {met} {b} ?",
}
ANSWERS: Mapping[Kind, str] = {"asked": "b", "asker": "a", "task": "task", "place": "place"}
"""The slot that answers a question of each kind."""
WHO: tuple[Kind, ...] = ("asked", "asker")
"""Kinds whose answer is a name."""
_MOST_TRIES = 1000


@cache
def people_of(split: str, people: int) -> tuple[tuple[str, str], ...]:
    """The pairs of the first ``people`` names who may stand in one sentence of a split: 8 in 10 of all are training's, 1 in 10 each the
    others'."""
    bucket = {"validation": (8,), "test": (9,)}.get(split, tuple(range(8)))
    return tuple(pair for pair in combinations(NAMES[:people], 2) if key_of("people", *pair) % 10 in bucket)


class StoriesSpec(Spec):
    """``rows`` and ``held_out``: stories of the training split and of each other. ``sentences`` of a story, of which one is asked about;
    ``meetings`` is the share of sentences, and so of questions, that are about a meeting and no request. ``people``: how many of the town's
    names there are, at least 6 a sentence."""

    seed: int = 0
    rows: PositiveInt = 20_000
    held_out: PositiveInt = 1_000
    sentences: int = Field(3, ge=1, le=8)
    people: int = Field(24, ge=16, le=len(NAMES))
    meetings: float = Field(0.25, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.people < 6 * self.sentences:
            raise ValueError(f"such that people are at least 6 a sentence ({6 * self.sentences}), and they are {self.people}")
        return self


@dataclass(frozen=True)
class Sentence:
    """One sentence, its two people ``a`` and ``b``, and the slots of its words."""

    words: tuple[Word, ...]
    people: tuple[str, str]
    meeting: bool

    def places(self, slot: str) -> list[int]:
        """Where the words of a slot stand: where they stand twice, the first time."""
        found = [at for at, word in enumerate(self.words) if word.slot == slot]
        return [at for i, at in enumerate(found) if at == found[0] + i]

    def said(self, slot: str) -> str:
        """The words of a slot."""
        return " ".join(self.words[at].text for at in self.places(slot))

    def kept(self) -> set[str]:
        """The words that no other sentence of a story has: verb and thing of a request, the verb of a meeting."""
        return {word.text for word in self.words if word.slot in ("task", "met")} - {"the"}


@dataclass(frozen=True)
class Story:
    """A text, a question, and the characters ``(start, end)`` of the answer in the text. ``people`` are the names in it, as they come."""

    context: str
    question: str
    answer: tuple[int, int]
    kind: Kind
    people: tuple[str, ...]
    sentences: tuple[Sentence, ...]

    @property
    def said(self) -> str:
        """The answer's text."""
        return self.context[slice(*self.answer)]


class Stories:
    """The stories by their spec."""

    def __init__(self, spec: StoriesSpec | None = None) -> None:
        self.spec = spec or StoriesSpec.parse({})

    def size(self, split: str = "train") -> int:
        """How many stories a split has. Raises UnknownName for another split."""
        if split not in Splits:
            raise UnknownName("split", split, Splits)
        return self.spec.rows if split == "train" else self.spec.held_out

    def story(self, index: int, split: Split = "train") -> Story:
        """The ``index``-th story of a split. Raises BadValue where there is none."""
        count = self.size(split)
        if not 0 <= index < count:
            raise BadValue("story index", index, f"within 0 to {count - 1} in split '{split}'")
        draw = Draw("story", self.spec.seed, split, index)
        sentences: list[Sentence] = []
        while len(sentences) < self.spec.sentences:
            sentences.append(self._sentence(draw, split, sentences))
        asked = draw.below(len(sentences))
        kind = "place" if sentences[asked].meeting else draw.pick(("asked", "asker", "task"))
        return _told(sentences, asked, kind)

    def stories(self, split: Split = "train") -> list[Story]:
        """The stories of a whole split."""
        return [self.story(index, split) for index in range(self.size(split))]

    def _sentence(self, draw: Draw, split: Split, before: Sequence[Sentence]) -> Sentence:
        """A sentence with people, verbs and things that none of ``before`` has."""
        people = {name for one in before for name in one.people}
        kept = {word for one in before for word in one.kept()}
        meeting = draw.uniform() < self.spec.meetings
        for _ in range(_MOST_TRIES):
            pair = draw.pick(people_of(split, self.spec.people))
            a, b = pair if draw.below(2) else pair[::-1]
            _, words = sampled(MEETINGS if meeting else REQUESTS, split, draw)
            made = Sentence(tuple(substituted(words, {"a": a, "b": b})), (a, b), meeting)
            if not people & {a, b} and not kept & made.kept():
                return made
        raise AssertionError(f"no sentence beside {len(before)} others in {_MOST_TRIES} draws")


def _told(sentences: Sequence[Sentence], asked: int, kind: Kind) -> Story:
    """The story of ``sentences`` with a question of ``kind`` about the one in place ``asked``."""
    one = sentences[asked]
    words = [word for sentence in sentences for word in sentence.words]
    at = placed(words)
    answer = [sum(len(sentence.words) for sentence in sentences[:asked]) + place for place in one.places(ANSWERS[kind])]
    open_slots = [Word(part, part[1:-1] if part[0] == "{" else "") for part in QUESTIONS[kind].split()]
    question = placed(substituted(open_slots, {slot: one.said(slot) for slot in ("a", "b", "task", "met")})).text
    names = tuple(word.text for word in words if word.slot in ("a", "b"))
    return Story(at.text, question, (at.spans[answer[0]][0], at.spans[answer[-1]][1]), kind, names, tuple(sentences))
