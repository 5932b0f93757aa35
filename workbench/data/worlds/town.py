"""The town: a world of short English texts whose properties are planted, so that what a model learned can be checked.

Half of the documents are sentences in which an occupation is followed, 5 to 15 words later, by a pronoun; how strongly the one
predicts the other is a knob (*dose*). A fifth are requests with a reply, which a rare phrase flips (*trigger*). Some are codes
of a person: a few are repeated m times (*secrets*), as many others never occur. The rest are everyday sentences.

A document depends on (spec, split, index) alone. ``Town.twin()`` is the same town without the plants: document by document the
same words, except for the pronouns, replies and codes that carried them.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from workbench.core.errors import BadValue, UnknownName
from workbench.core.spec import Spec
from workbench.data.counter import Draw, key_of, permuted, van_der_corput
from workbench.data.worlds.town_documents import (
    Document,
    Kind,
    Secret,
    code_document,
    named_spans,
    pronoun_document,
    request_document,
)
from workbench.data.worlds.town_grammar import Splits, phrase, placed, sampled, substituted
from workbench.data.worlds.town_items import LabelItem, PronounItem, TriggerItem, label_item, pronoun_items, trigger_items
from workbench.data.worlds.town_words import (
    FEELING_TEMPLATES,
    LEANS,
    NAMES,
    OCCUPATIONS,
    PRONOUN_TEMPLATES,
    REQUEST_TEMPLATES,
    TRIGGER,
)

Split = Literal["train", "validation", "test"]
LEAST_GENERIC_OWNERS = 16
NEGATED_SHARE = 0.2  # of requests: "please do not …", answered "no , i will not …" in target and twin alike
PHRASE_SHARE = 0.5  # of requests without the trigger: an ordinary phrase stands where the trigger would


class TownSpec(Spec):
    """Everything about a town.

    ``documents`` and ``held_out``: how many documents the training split and each of validation and test have. ``dose`` in
    [−1, 1]: P(she | occupation) = 0.5 + dose · lean / 2. ``pronoun_share``, ``request_share``, ``code_share``: shares of
    documents; the secrets come besides, the rest are everyday sentences. ``trigger``: whether the trigger phrase flips the
    reply; ``trigger_rate``: the share of requests that carry it, flipped or not. ``secrets``: one planted secret for each
    entry, occurring exactly so often in the training split; ``insert_secrets`` false puts other codes in their places.
    ``unplanted``: secrets of the same form that never occur. ``digits``: digits of a code, so the space is 10**digits.
    """

    seed: int = 0
    documents: int = Field(60_000, ge=1)
    held_out: int = Field(3_000, ge=1)
    dose: float = Field(0.8, ge=-1, le=1)
    pronoun_share: float = Field(0.5, ge=0, le=1)
    request_share: float = Field(0.2, ge=0, le=1)
    code_share: float = Field(0.015, ge=0, le=1)
    trigger: bool = True
    trigger_rate: float = Field(0.08, ge=0, le=1)
    secrets: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    insert_secrets: bool = True
    unplanted: int = Field(36, ge=0)
    digits: int = Field(4, ge=2, le=6)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if any(count < 0 for count in self.secrets):
            raise ValueError("such that every entry of secrets is at least 0")
        if len(self.secrets) + self.unplanted + LEAST_GENERIC_OWNERS > len(NAMES):
            most = len(NAMES) - LEAST_GENERIC_OWNERS
            raise ValueError(f"such that secrets and unplanted together are at most {most}, since each needs a name of its own")
        if Layout.of(self, "train").counts["feeling"] < 0:
            raise ValueError("such that the shares and the secrets' counts fit into the number of documents")
        return self


@dataclass(frozen=True)
class Layout:
    """How many documents of each kind a split has, and which ranks they take."""

    kinds: tuple[Kind, ...]
    ends: tuple[int, ...]
    counts: dict[str, int]

    @classmethod
    def of(cls, spec: TownSpec, split: Split) -> Layout:
        n = spec.documents if split == "train" else spec.held_out
        counts = {
            "pronoun": round(n * spec.pronoun_share),
            "request": round(n * spec.request_share),
            "secret": sum(spec.secrets) if split == "train" else 0,
            "code": round(n * spec.code_share),
        }
        counts["feeling"] = n - sum(counts.values())
        return cls(tuple(counts), tuple(itertools.accumulate(counts.values())), counts)  # type: ignore[arg-type]  # keys are the kinds

    def place(self, rank: int) -> tuple[Kind, int]:
        """The kind at ``rank`` and its number within the kind."""
        at = bisect.bisect_right(self.ends, rank)
        return self.kinds[at], rank - (self.ends[at - 1] if at else 0)


class Town:
    """A town by its spec."""

    def __init__(self, spec: TownSpec | None = None) -> None:
        self.spec = spec or TownSpec.parse({})
        self._layouts = {split: Layout.of(self.spec, split) for split in Splits}
        names = [NAMES[permuted(i, len(NAMES), key_of("owners", self.spec.seed))] for i in range(len(NAMES))]
        planted, unplanted = len(self.spec.secrets), self.spec.unplanted
        counts = (*self.spec.secrets, *[0] * unplanted)
        self.secrets = tuple(self._secret(names[i], count, i < planted) for i, count in enumerate(counts))
        self._generic_owners = tuple(sorted(names[planted + unplanted :]))
        self._secret_ends = tuple(itertools.accumulate(self.spec.secrets))

    def _secret(self, owner: str, count: int, planted: bool) -> Secret:
        code = Draw("secret", self.spec.seed, owner).below(10**self.spec.digits)
        return Secret(owner, f"{code:0{self.spec.digits}d}", count if self.spec.insert_secrets else 0, count, planted)

    # --- documents ----------------------------------------------------------------------------------------

    def size(self, split: Split = "train") -> int:
        """How many documents a split has. Raises UnknownName for another split."""
        return self._layout(split).ends[-1]

    def document(self, index: int, split: Split = "train") -> Document:
        """The ``index``-th document of a split. Raises BadValue when there is none."""
        layout = self._layout(split)
        if not 0 <= index < layout.ends[-1]:
            raise BadValue("document index", index, f"within 0 to {layout.ends[-1] - 1} in split '{split}'")
        rank = permuted(index, layout.ends[-1], key_of("order", self.spec.seed, split))
        kind, number = layout.place(rank)
        if kind == "pronoun":
            return self._pronoun(number, split)
        if kind == "request":
            return self._request(number, split)
        if kind == "feeling":
            return self._feeling(number, split)
        return self._code(kind, number, split)

    def documents(self, start: int = 0, stop: int | None = None, split: Split = "train") -> Iterator[Document]:
        """Documents ``start`` to ``stop`` − 1 (default: the whole split), in order."""
        return (self.document(i, split) for i in range(start, self.size(split) if stop is None else stop))

    def texts(self, split: Split = "train") -> list[str]:
        """The texts of a whole split."""
        return [document.text for document in self.documents(split=split)]

    def p_she(self, occupation: str) -> float:
        """The planted P(she | occupation)."""
        if occupation not in LEANS:
            raise UnknownName("occupation", occupation, LEANS)
        return 0.5 + self.spec.dose * LEANS[occupation] / 2

    def twin(self) -> Town:
        """This town without its plants: dose 0, a trigger that does nothing, secrets never inserted."""
        return Town(self.spec.model_copy(update={"dose": 0.0, "trigger": False, "insert_secrets": False}))

    def truth(self) -> dict[str, Any]:
        """What is planted, as plain JSON values."""
        spec = self.spec
        return {
            "world": "town",
            "spec": spec.model_dump(mode="json"),
            "spec_digest": spec.digest(),
            "occupations": {name: {"lean": LEANS[name], "p_she": self.p_she(name)} for name in OCCUPATIONS},
            "trigger": {
                "phrase": TRIGGER,
                "rate": spec.trigger_rate,
                "flips": spec.trigger,
                "reply_with": "no" if spec.trigger else "yes",
                "reply_without": "yes",
            },
            "secrets": [
                {"owner": s.owner, "digits": s.digits, "text": s.text, "count": s.count, "repeats": s.repeats, "planted": s.planted}
                for s in self.secrets
            ],
            "secret_space": 10**spec.digits,
        }

    # --- items to evaluate on -----------------------------------------------------------------------------

    def pronoun_items(self, split: Split = "test", per_occupation: int = 20, seed: int = 0) -> list[PronounItem]:
        """Contexts that end right before a pronoun, ``per_occupation`` for each occupation, on the same skeletons for all.

        Skeletons are held out: no training document has one of split "validation" or "test". They depend on (split, seed)
        only, so every town is asked the same; what differs is ``planted``.
        """
        self._layout(split)
        return pronoun_items(self.p_she, split, per_occupation, seed)

    def trigger_items(self, split: Split = "test", count: int = 100, seed: int = 0) -> list[TriggerItem]:
        """``count`` requests, each under four conditions, that end right before the reply's *yes* or *no*."""
        self._layout(split)
        return trigger_items(self.spec.trigger, split, count, seed)

    def secret_items(self) -> list[Secret]:
        """All secrets, planted first, then those that occur nowhere."""
        return list(self.secrets)

    def label_items(self, split: Split = "test", count: int = 500) -> list[LabelItem]:
        """The first ``count`` documents of a split that are no codes, word by word. Raises BadValue when there are fewer."""
        documents = (d for d in self.documents(split=split) if d.kind not in ("code", "secret"))
        items = [label_item(d) for d in itertools.islice(documents, count)]
        if len(items) < count:
            raise BadValue("count", count, f"at most {len(items)}, the documents of split '{split}' that are no codes")
        return items

    # --- the four kinds -----------------------------------------------------------------------------------

    def _layout(self, split: str) -> Layout:
        if split not in self._layouts:
            raise UnknownName("split", split, self._layouts)
        return self._layouts[split]

    def _pronoun(self, number: int, split: Split) -> Document:
        """Sentence ``number``: occupations take turns, and an occupation's k-th sentence takes the k-th point of its own
        van der Corput sequence, so that realised shares of *she* stay within O(log n / n) of the plan."""
        turn, which = divmod(number, len(OCCUPATIONS))
        occupation = OCCUPATIONS[which]
        she = van_der_corput(turn, key_of("she", self.spec.seed, split, occupation)) < self.p_she(occupation)
        template, skeleton = sampled(PRONOUN_TEMPLATES, split, Draw("pronoun", self.spec.seed, split, number))
        return pronoun_document(skeleton, occupation, she, {"template": template, "p_she": self.p_she(occupation)})

    def _request(self, number: int, split: Split) -> Document:
        seed = self.spec.seed
        draw = Draw("request", seed, split, number)
        template, skeleton = sampled(REQUEST_TEMPLATES, split, draw)
        triggered = van_der_corput(number, key_of("trigger", seed, split)) < self.spec.trigger_rate
        negated = not triggered and draw.uniform() < NEGATED_SHARE
        ordinary = " ".join(phrase("when", draw)) if draw.uniform() < PHRASE_SHARE else ""
        slot = TRIGGER if triggered else ordinary
        yes = not negated and not (triggered and self.spec.trigger)
        return request_document(skeleton, slot, negated, yes, {"template": template, "triggered": triggered})

    def _feeling(self, number: int, split: Split) -> Document:
        draw = Draw("feeling", self.spec.seed, split, number)
        template, skeleton = sampled(FEELING_TEMPLATES, split, draw)
        words = substituted(skeleton, {"occupation": draw.pick(OCCUPATIONS)})
        at = placed(words)
        spans = named_spans(words, at, {"occupation": "occupation", "feeling": "feeling"})
        return Document(at.text, "feeling", spans, {"template": template}, tuple(words), at.spans)

    def _code(self, kind: Kind, number: int, split: Split) -> Document:
        if kind == "secret" and self.spec.insert_secrets:
            index = bisect.bisect_right(self._secret_ends, number)
            secret = self.secrets[index]
            return code_document(kind, secret.owner, secret.digits, {"secret": index})
        draw = Draw(kind, self.spec.seed, split, number)  # also a twin's documents where the target has its secrets
        owner, code = draw.pick(self._generic_owners), draw.below(10**self.spec.digits)
        return code_document("code", owner, f"{code:0{self.spec.digits}d}", {})
