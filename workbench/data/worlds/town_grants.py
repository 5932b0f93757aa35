"""Two requests of the town with their replies, and whether one of them was granted: which no bag of words can tell.

    was the request of kim granted ?   kim asks sam: please open the gate. ash asks lee: please do not move the lamp.
                                       lee says: yes, i will move it. sam says: no, i will not open it.

One reply says yes and the other no. Documents come in mirrored twos, 2k and 2k + 1: the same requests and question, the replies exchanged.
Both have the same words, each as often, and opposite answers; a rule that counts words is right in exactly one of them. To *not* do
something is granted by a no. Sentences and people keep to their split as in ``town_stories``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from workbench.core.errors import BadValue, UnknownName
from workbench.core.spec import Spec
from workbench.data.counter import Draw
from workbench.data.worlds.town_grammar import Splits, Word, placed, sampled, substituted
from workbench.data.worlds.town_stories import people_of
from workbench.data.worlds.town_words import NAMES

Split = Literal["train", "validation", "test"]
REQUESTS: tuple[str, ...] = (
    "{a} asks {b} : please {not} {task} .",
    "please {not} {task} , {a} tells {b} .",
    "{b} , please {not} {task} , says {a} .",
)
REPLIES = {True: "{b} says : yes , i will {verb} it .", False: "{b} says : no , i will not {verb} it ."}
QUESTION = "was the request of {a} granted ?"
CLASSES = ("refused", "granted")


class GrantsSpec(Spec):
    """``rows`` and ``held_out``: documents of the training split and of each other, two a mirrored pair. ``negated``: the share of requests
    not to do something. ``people``: how many of the town's names there are. ``later``: the replies come after both requests, in either
    order, and not each after its own. ``shuffled``: labels are drawn without looking at the documents, so that nothing can be learned."""

    seed: int = 0
    rows: PositiveInt = 20_000
    held_out: PositiveInt = 1_000
    negated: float = Field(0.3, ge=0.0, le=1.0)
    people: int = Field(24, ge=16, le=len(NAMES))
    later: bool = True
    shuffled: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.rows % 2 or self.held_out % 2:
            raise ValueError("with even rows and held_out: documents come in mirrored twos")
        return self


@dataclass(frozen=True)
class Request:
    """One request: its words, who asks (``a``) whom (``b``), the verb of what is asked, and whether it is not to be done."""

    words: tuple[Word, ...]
    a: str
    b: str
    verb: str
    negated: bool

    def reply(self, yes: bool) -> list[Word]:
        """The words of the reply."""
        return substituted([_word(part) for part in REPLIES[yes].split()], {"b": self.b, "verb": self.verb})


@dataclass(frozen=True)
class Grant:
    """A question, a story, and whether the request it asks about was granted (by ``label``, an index of ``CLASSES``); ``pair`` numbers the
    mirrored two it belongs to."""

    question: str
    story: str
    label: int
    pair: int


class Grants:
    """The documents by their spec."""

    def __init__(self, spec: GrantsSpec | None = None) -> None:
        self.spec = spec or GrantsSpec.parse({})

    def size(self, split: str = "train") -> int:
        """How many documents a split has. Raises UnknownName for another split."""
        if split not in Splits:
            raise UnknownName("split", split, Splits)
        return self.spec.rows if split == "train" else self.spec.held_out

    def document(self, index: int, split: Split = "train") -> Grant:
        """The ``index``-th document of a split. Raises BadValue where there is none."""
        count = self.size(split)
        if not 0 <= index < count:
            raise BadValue("document index", index, f"within 0 to {count - 1} in split '{split}'")
        pair, mirrored = divmod(index, 2)
        draw = Draw("grants", self.spec.seed, split, pair)
        first = self._request(draw, split, ())
        requests = [first, self._request(draw, split, (first,))]
        asked, yes, turned = draw.below(2), draw.below(2), draw.below(2)
        says = [(place == yes) != bool(mirrored) for place in range(2)]
        replies = [one.reply(said) for one, said in zip(requests, says, strict=True)]
        if self.spec.later:
            parts = [*(list(one.words) for one in requests), *(replies[::-1] if turned else replies)]
        else:
            parts = [part for one, reply in zip(requests, replies, strict=True) for part in (list(one.words), reply)]
        label = int(says[asked] != requests[asked].negated)
        if self.spec.shuffled:
            label = Draw("grants, shuffled", self.spec.seed, split, index).below(2)
        question = placed(substituted([_word(part) for part in QUESTION.split()], {"a": requests[asked].a})).text
        return Grant(question, placed([word for part in parts for word in part]).text, label, pair)

    def documents(self, split: Split = "train") -> list[Grant]:
        """The documents of a whole split."""
        return [self.document(index, split) for index in range(self.size(split))]

    def _request(self, draw: Draw, split: Split, before: Sequence[Request]) -> Request:
        """A request between people and with a verb that none of ``before`` has."""
        while True:
            a, b = draw.pick(people_of(split, self.spec.people))
            a, b = (a, b) if draw.below(2) else (b, a)
            negated = draw.uniform() < self.spec.negated
            words = substituted(sampled(REQUESTS, split, draw)[1], {"a": a, "b": b, "not": "do not" if negated else ""})
            verb = next(word.text for word in words if word.slot == "task")
            if all(not {a, b} & {one.a, one.b} and verb != one.verb for one in before):
                return Request(tuple(words), a, b, verb, negated)


def _word(part: str) -> Word:
    return Word(part, part[1:-1] if part[0] == "{" else "")
