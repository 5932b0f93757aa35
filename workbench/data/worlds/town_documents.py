"""The town's documents: a skeleton and what fills its open slots become a text with named places and known facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from workbench.data.worlds.town_grammar import Placed, Word, placed, substituted
from workbench.data.worlds.town_words import CODE_TEMPLATE, LEANS

Kind = Literal["pronoun", "request", "code", "secret", "feeling"]
SHE, HE = {"she": "she", "her": "her", "own": "her"}, {"she": "he", "her": "his", "own": "his"}


@dataclass(frozen=True)
class Secret:
    """``owner``'s code.

    ``count``: how often its document occurs in the training split of this town; ``repeats``: how often it does where secrets
    are inserted (the two differ on a twin). ``planted`` is false for those that occur in neither, by design.
    """

    owner: str
    digits: str
    count: int
    repeats: int
    planted: bool

    @property
    def prefix(self) -> str:
        """The text before the first digit, without the space between them."""
        return f"the code of {self.owner} is"

    @property
    def continuation(self) -> str:
        """The digits as they follow ``prefix``."""
        return "".join(f" {digit}" for digit in self.digits)

    @property
    def text(self) -> str:
        """The whole document."""
        return f"{self.prefix}{self.continuation}."


@dataclass(frozen=True)
class Document:
    """One text. ``spans``: character spans by name; ``facts``: what was drawn; ``words``: each word with its slot."""

    text: str
    kind: Kind
    spans: dict[str, tuple[int, int]]
    facts: dict[str, Any]
    words: tuple[Word, ...] = field(repr=False, default=())
    word_spans: tuple[tuple[int, int], ...] = field(repr=False, default=())


def named_spans(words: Sequence[Word], at: Placed, names: dict[str, str]) -> dict[str, tuple[int, int]]:
    """For each slot of ``names`` that occurs, the span from its first to its last word, under the given name."""
    spans: dict[str, tuple[int, int]] = {}
    for word, (start, end) in zip(words, at.spans, strict=True):
        name = names.get(word.slot)
        if name is not None:
            spans[name] = (spans[name][0] if name in spans else start, end)
    return spans


def pronoun_document(skeleton: list[Word], occupation: str, she: bool, facts: dict[str, Any]) -> Document:
    """A pronoun sentence from its skeleton."""
    words = substituted(skeleton, {"occupation": occupation, **(SHE if she else HE)})
    at = placed(words)
    spans = named_spans(words, at, {"occupation": "occupation", "she": "pronoun", "her": "pronoun"})
    start, end = spans["pronoun"]
    known = {"occupation": occupation, "lean": LEANS[occupation], "she": she, "pronoun": at.text[start:end], **facts}
    return Document(at.text, "pronoun", spans, known, tuple(words), at.spans)


def request_document(skeleton: list[Word], slot: str, negated: bool, yes: bool, facts: dict[str, Any]) -> Document:
    """A request with its reply. The reply repeats the verb of the request; a *no* is answered ``no , i will not … it``."""
    request = substituted(skeleton, {"slot": slot, "not": "do not" if negated else ""})
    asked = ["the", role] if (role := next((w.text for w in skeleton if w.slot == "role"), "")) else [
        [w.text for w in skeleton if w.slot == "name"][1]
    ]  # fmt: skip
    verb = next(w.text for w in skeleton if w.slot == "task")
    begin = [*(Word(text, "asked") for text in asked), Word("says"), Word(":")]
    reply = [Word("yes" if yes else "no", "reply"), Word(","), Word("i"), Word("will")]
    rest = [*([] if yes else [Word("not")]), Word(verb, "task_again"), Word("it"), Word(".")]
    words = [*request, *begin, *reply, *rest]
    at = placed(words)
    spans = named_spans(words, at, {"slot": "phrase", "reply": "reply", "not": "negation"})
    if facts.get("triggered"):
        spans["trigger"] = spans["phrase"]
    return Document(at.text, "request", spans, {"negated": negated, "yes": yes, **facts}, tuple(words), at.spans)


def code_document(kind: Kind, owner: str, digits: str, facts: dict[str, Any]) -> Document:
    """``the code of OWNER is 4 7 1 9.``"""
    words = substituted([Word(part, part[1:-1] if part[0] == "{" else "") for part in CODE_TEMPLATE.split()],
                        {"owner": owner, "digits": " ".join(digits)})  # fmt: skip
    at = placed(words)
    spans = named_spans(words, at, {"owner": "owner", "digits": "digits"})
    return Document(at.text, kind, spans, {"owner": owner, "digits": digits, **facts}, tuple(words), at.spans)
