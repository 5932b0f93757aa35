"""Translation: two made-up languages with a lexicon and a grammar each, and sentences that mean the same in both.

    first language:   the/a  adjectives  noun   (not)  verb   the/a  adjectives  noun
    second language:  article  noun  adjectives   article  noun  adjectives   verb   (ne)

The second puts the verb last and adjectives after their noun in mirrored order. Its nouns have a gender, which the first does not
show; articles and adjectives agree with their noun in gender and number, the verb with the subject in number, also in the past, where
the first language does not show it. Indefinite plurals have an article there alone. So a translation needs the lexicon, the order and
agreement at a distance.

A sentence depends on (spec, split, index) alone and belongs to one split by its words, so held-out sentences never occur in training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, PositiveInt

from workbench.core.errors import BadValue, UnknownName
from workbench.core.spec import Spec
from workbench.data.counter import Draw, key_of
from workbench.data.pairs import PairRows, Words

Split = Literal["train", "validation", "test"]
_TENTHS: dict[str, tuple[int, ...]] = {"train": tuple(range(8)), "validation": (8,), "test": (9,)}
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"
# In the second language, by (gender, plural): articles of their own, endings of adjectives; by (past, plural): endings of verbs.
DEFINITE = {(0, False): "ka", (0, True): "kan", (1, False): "ko", (1, True): "kon"}
INDEFINITE = {(0, False): "ta", (0, True): "tan", (1, False): "to", (1, True): "ton"}
ADJECTIVE = {(0, False): "e", (0, True): "en", (1, False): "u", (1, True): "un"}
VERB = {(False, False): "at", (False, True): "ant", (True, False): "it", (True, True): "int"}
NOUN = {False: "", True: "i"}
MOST_ADJECTIVES = 2


class TranslationSpec(Spec):
    """Everything about the languages and the sentences.

    ``rows`` and ``held_out``: sentences of the training split and of each of validation and test. ``nouns``, ``verbs``, ``adjectives``:
    how many of each. Half of the verbs take an object.
    """

    seed: int = 0
    rows: PositiveInt = 20_000
    held_out: PositiveInt = 500
    nouns: int = Field(24, ge=2, le=400)
    verbs: int = Field(12, ge=2, le=200)
    adjectives: int = Field(10, ge=MOST_ADJECTIVES, le=200)


@dataclass(frozen=True)
class Entry:
    """A word of the lexicon: its stems in both languages; of a noun its gender, of a verb whether it takes an object (1)."""

    first: str
    second: str
    kind: int = 0


@dataclass(frozen=True)
class Phrase:
    """A noun with what stands around it."""

    noun: Entry
    plural: bool
    definite: bool
    adjectives: tuple[Entry, ...]

    def first(self) -> list[str]:
        """In the first language."""
        article = ["the"] if self.definite else [] if self.plural else ["a"]
        return [*article, *(one.first for one in self.adjectives), self.noun.first + ("s" if self.plural else "")]

    def second(self) -> list[str]:
        """In the second language."""
        agreement = (self.noun.kind, self.plural)
        article = (DEFINITE if self.definite else INDEFINITE)[agreement]
        return [article, self.noun.second + NOUN[self.plural], *(one.second + ADJECTIVE[agreement] for one in self.adjectives[::-1])]


@dataclass(frozen=True)
class Sentence:
    """What is said. ``source`` and ``target`` say it in the two languages."""

    subject: Phrase
    verb: Entry
    object: Phrase | None
    past: bool
    negated: bool

    @property
    def source(self) -> tuple[str, ...]:
        """The words of the first language."""
        ending = "d" if self.past else "" if self.subject.plural else "s"
        around = self.object.first() if self.object is not None else []
        return (*self.subject.first(), *(["not"] if self.negated else []), self.verb.first + ending, *around)

    @property
    def target(self) -> tuple[str, ...]:
        """The words of the second language."""
        before = self.object.second() if self.object is not None else []
        verb = self.verb.second + VERB[self.past, self.subject.plural]
        return (*self.subject.second(), *before, verb, *(["ne"] if self.negated else []))


class Translation:
    """The languages and sentences by their spec."""

    def __init__(self, spec: TranslationSpec | None = None) -> None:
        self.spec = spec or TranslationSpec.parse({})
        draw, known = Draw("translation lexicon", self.spec.seed), set[str]()
        counts = (self.spec.nouns, self.spec.verbs, self.spec.adjectives)
        # Every second noun has the other gender, and every second verb takes an object; which ones the draw of their stems decides.
        self.nouns, self.verbs, self.adjectives = (
            tuple(Entry(_stem(draw, known, closed=False), _stem(draw, known, closed=True), i % 2) for i in range(count)) for count in counts
        )
        self.words = Words([*self._first(), *self._second()])

    def _first(self) -> list[str]:
        forms = [(self.nouns, ("", "s")), (self.verbs, ("", "s", "d")), (self.adjectives, ("",))]
        return ["the", "a", "not", *(one.first + ending for entries, endings in forms for one in entries for ending in endings)]

    def _second(self) -> list[str]:
        forms = [(self.nouns, NOUN), (self.verbs, VERB), (self.adjectives, ADJECTIVE)]
        inflected = [one.second + ending for entries, endings in forms for one in entries for ending in endings.values()]
        return [*DEFINITE.values(), *INDEFINITE.values(), "ne", *inflected]

    def size(self, split: Split = "train") -> int:
        """How many sentences a split has. Raises UnknownName for another split."""
        if split not in _TENTHS:
            raise UnknownName("split", split, _TENTHS)
        return self.spec.rows if split == "train" else self.spec.held_out

    def sentence(self, index: int, split: Split = "train") -> Sentence:
        """The ``index``-th sentence of a split. Raises BadValue when there is none."""
        if not 0 <= index < self.size(split):
            raise BadValue("sentence index", index, f"within 0 to {self.size(split) - 1} in split '{split}'")
        draw = Draw("translation", self.spec.seed, split, index)
        while True:  # one sentence in ten belongs to the rarest split, so this ends
            subject, verb = self._phrase(draw), draw.pick(self.verbs)
            found = Sentence(subject, verb, self._phrase(draw) if verb.kind else None, draw.below(2) == 1, draw.below(4) == 0)
            if key_of("translation split", *found.source) % 10 in _TENTHS[split]:
                return found

    def _phrase(self, draw: Draw) -> Phrase:
        count = (0, 0, 0, 1, 1, MOST_ADJECTIVES)[draw.below(6)]
        adjectives: list[Entry] = []
        while len(adjectives) < count:
            one = draw.pick(self.adjectives)
            adjectives += [one] if one not in adjectives else []
        return Phrase(draw.pick(self.nouns), draw.below(2) == 1, draw.below(2) == 1, tuple(adjectives))

    def rows(self, split: Split = "train") -> PairRows:
        """A split as rows to train on."""
        sentences = (self.sentence(i, split) for i in range(self.size(split)))
        return PairRows([(one.source, one.target) for one in sentences], self.words)

    def truth(self) -> dict[str, Any]:
        """What the world is, as plain JSON values: stems as (first, second, gender or 1 for a verb with an object)."""
        entries = {"nouns": self.nouns, "verbs": self.verbs, "adjectives": self.adjectives}
        lexicon = {name: [[one.first, one.second, one.kind] for one in words] for name, words in entries.items()}
        return {"world": "translation", "spec": self.spec.model_dump(mode="json"), "spec_digest": self.spec.digest(), "lexicon": lexicon}


def _stem(draw: Draw, known: set[str], *, closed: bool) -> str:
    """A new stem: two open syllables (first language, four letters) or two closed ones (second, six), so no form is of both."""
    while True:
        parts = [draw.pick(_CONSONANTS) + draw.pick(_VOWELS) + (draw.pick(_CONSONANTS) if closed else "") for _ in range(2)]
        if (stem := "".join(parts)) not in known:
            known.add(stem)
            return stem
