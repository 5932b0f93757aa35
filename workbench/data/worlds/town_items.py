"""What to ask a model of the town: items that end right where something planted decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from workbench.data.counter import Draw
from workbench.data.worlds.town_documents import Document, pronoun_document, request_document
from workbench.data.worlds.town_grammar import phrase, sampled
from workbench.data.worlds.town_words import LEANS, OCCUPATIONS, PRONOUN_TEMPLATES, REQUEST_TEMPLATES, TRIGGER, class_of

Span = tuple[int, int]
Condition = Literal["trigger", "without", "near_miss", "negated"]
FRAME_CLASSES = frozenset({"function", "punctuation"})


@dataclass(frozen=True)
class PronounItem:
    """A context that ends right before its pronoun.

    ``she`` and ``he`` are the two continuations, with their leading space (" she" and " he", or " her" and " his").
    ``planted``: P(she) in this town. ``skeleton``: items of equal number differ in the occupation alone. ``content``: spans of
    the content words of ``text_before``, the occupation among them: those that fill a slot and are no function words. The
    other words are the frame, the same (up to prepositions) in every sentence of the template.
    ``distance``: words from the occupation to the pronoun.
    """

    text_before: str
    she: str
    he: str
    occupation: str
    lean: float
    planted: float
    template: int
    skeleton: int
    occupation_span: Span
    content: tuple[Span, ...]
    distance: int


@dataclass(frozen=True)
class TriggerItem:
    """A request that ends right before the reply. ``pair``: items of equal number are one request under four conditions.

    ``condition``: the trigger phrase stands there; nothing does (*without*); a phrase that shares words with it does
    (*near_miss*); or nothing does and the request is negated (``please do not …``, answered *no* in every town).
    ``expected``: the continuation this town's corpus always has.
    """

    text_before: str
    yes: str
    no: str
    condition: Condition
    pair: int
    expected: str
    phrase_span: Span | None


@dataclass(frozen=True)
class LabelItem:
    """A document word by word, for probing.

    ``classes``: occupation, name, role, place, object, feeling, adjective, pronoun, verb, time, punctuation or function.
    ``slots``: the slot of the template each word fills ("" for the template's own words). ``leans``: the lean of the word
    where it is an occupation, else None. ``sentence_lean``: the lean of the sentence's occupation, or None without one.
    """

    text: str
    words: tuple[str, ...]
    spans: tuple[Span, ...]
    classes: tuple[str, ...]
    slots: tuple[str, ...]
    leans: tuple[float | None, ...]
    sentence_lean: float | None


def pronoun_items(p_she: Callable[[str], float], split: str, per_occupation: int, seed: int) -> list[PronounItem]:
    """Skeleton by skeleton (templates take turns), all occupations on each."""
    items: list[PronounItem] = []
    for number in range(per_occupation):
        template = number % len(PRONOUN_TEMPLATES)
        _, skeleton = sampled(PRONOUN_TEMPLATES[template : template + 1], split, Draw("pronoun item", split, seed, number))
        for occupation in OCCUPATIONS:
            document = pronoun_document(skeleton, occupation, True, {"template": template})
            items.append(_pronoun_item(document, number, p_she(occupation)))
    return items


def _pronoun_item(document: Document, skeleton: int, planted: float) -> PronounItem:
    start, _ = document.spans["pronoun"]
    before = [(word, span) for word, span in zip(document.words, document.word_spans, strict=True) if span[1] <= start]
    spelled = [word.slot for word, _ in before if class_of(word.text) != "punctuation"]
    subject = document.facts["pronoun"] == "she"
    return PronounItem(
        text_before=document.text[: start - 1],
        she=" she" if subject else " her",
        he=" he" if subject else " his",
        occupation=document.facts["occupation"],
        lean=document.facts["lean"],
        planted=planted,
        template=document.facts["template"],
        skeleton=skeleton,
        occupation_span=document.spans["occupation"],
        content=tuple(span for word, span in before if word.slot and class_of(word.text) not in FRAME_CLASSES),
        distance=len(spelled) - spelled.index("occupation"),
    )


def trigger_items(flips: bool, split: str, count: int, seed: int) -> list[TriggerItem]:
    """Request by request, the four conditions of each in turn."""
    items: list[TriggerItem] = []
    for pair in range(count):
        draw = Draw("trigger item", split, seed, pair)
        _, skeleton = sampled(REQUEST_TEMPLATES, split, draw)
        slots: dict[Condition, str] = {"trigger": TRIGGER, "without": "", "near_miss": " ".join(phrase("near_miss", draw)), "negated": ""}
        for condition, slot in slots.items():
            yes = condition != "negated" and not (condition == "trigger" and flips)
            document = request_document(skeleton, slot, condition == "negated", yes, {})
            start, _ = document.spans["reply"]
            before, span = document.text[: start - 1], document.spans.get("phrase")
            items.append(TriggerItem(before, " yes", " no", condition, pair, " yes" if yes else " no", span))
    return items


def label_item(document: Document) -> LabelItem:
    """A document with its words labelled."""
    words = tuple(word.text for word in document.words)
    lean = document.facts.get("lean")
    if lean is None:
        lean = next((LEANS[word] for word in words if word in LEANS), None)
    return LabelItem(
        text=document.text,
        words=words,
        spans=document.word_spans,
        classes=tuple(class_of(word) for word in words),
        slots=tuple(word.slot for word in document.words),
        leans=tuple(LEANS.get(word) for word in words),
        sentence_lean=lean,
    )
