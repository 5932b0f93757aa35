"""Spike-in of canaries: how often must a text be read in this very model's training before a suite says that it was?

Each copy reads canaries as often as the dose says, through low-rank additions: codes of persons (``the code of sam is 4 7 1.``) where
``exposure`` is asked, windows of the user's held-out texts where ``membership`` is. Every canary has ``slots`` rows set apart: in so many
as the dose says stands the canary, in the others, as in all of them on the clean twin, another of its kind, drawn anew. One row of three is
a window of the other texts, so that what the model knew is kept. Every row is read once, and nothing else differs between doses: what was
read how often is exact. A clean copy is asked about the canaries that its planted ones read, and then about others; none is in any of its
rows, and none is asked about twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt

from evals import SUITES
from evals.runner import run_suite
from evals.suites import exposure, membership
from workbench.calibration.exam import Exam, Grid, Reading
from workbench.calibration.exams.repeats import exposed, told_apart
from workbench.calibration.spike import against, tuned
from workbench.calibration.spike_way import Way, Windows, most_asked
from workbench.core.batch import IGNORE, TokenBatch
from workbench.core.errors import BadValue, Incompatible
from workbench.core.protocol import HookedModel
from workbench.core.spec import Spec
from workbench.data.counter import Draw
from workbench.data.worlds.town import Town, TownSpec
from workbench.engine.tokens import context_length, encode_pair, lead_of

KINDS = {exposure.NAME: "codes", membership.NAME: "texts"}
"""What is planted for each suite."""
DIGITS, NOBODY = 3, 10
"""Digits of a code; and codes of as many more owners, whom no copy reads of, stand beside the planted ones."""
OTHER_WORLDS = 1_000_000
"""Codes that only clean copies are asked about are those of worlds so far on."""
GRID = Grid.parse({"doses": (1, 2, 3, 5, 8, 16, 32, 64), "sets": 1, "items": 25, "clean_seeds": tuple(range(100, 112)), "clean_sets": 17})
QUICK = Grid.parse({"doses": (8, 64), "seeds": (0,), "sets": 1, "items": 25, "clean_seeds": (100, 101), "clean_sets": 4})
WORDS = "; a canary's other rows hold others of its kind"


class CanarySpec(Spec):
    """How a copy is planted. ``planted``: canaries of a copy; ``slots``: rows set apart for each, the most that one is read; ``window``:
    tokens of a window; ``batch_rows``: rows read at once; ``rank`` of the additions."""

    planted: int = Field(25, ge=1, le=50)
    slots: int = Field(64, ge=1)
    window: int = Field(16, ge=6)
    batch_rows: PositiveInt = 32
    rank: PositiveInt = 8
    lr: PositiveFloat = 3e-3


@dataclass(frozen=True)
class TextRows:
    """Texts as token ids, a text a row, every token predicted that has one before it (a ``RowData``)."""

    rows: Sequence[Sequence[int]]
    pad: int

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Sequence[int]) -> TokenBatch:
        """The rows of these numbers, padded to the longest."""
        rows = [self.rows[number] for number in indices]
        tokens = torch.full((len(rows), max(map(len, rows)) - 1), self.pad)
        targets = torch.full_like(tokens, IGNORE)
        for at, ids in enumerate(rows):
            tokens[at, : len(ids) - 1], targets[at, : len(ids) - 1] = torch.tensor(ids[:-1]), torch.tensor(ids[1:])
        return TokenBatch(tokens, targets)

    def digest(self) -> str:
        return hashlib.sha256(repr((self.pad, [list(row) for row in self.rows])).encode()).hexdigest()


@dataclass(frozen=True)
class Canaries:
    """What is planted in one copy: canaries of a kind, how often each is read, and the seed. ``tokenizer`` is the model's."""

    spec: CanarySpec
    windows: Windows
    kind: str
    dose: int
    seed: int
    tokenizer: Any

    def world(self, number: int = 0) -> dict[str, Any]:
        """The town whose codes a suite is asked about: those that are planted or, by another number, codes that no copy reads."""
        told = {"secrets": (max(self.dose, 1),) * self.spec.planted, "insert_secrets": self.dose > 0, "digits": DIGITS}
        return {**told, "seed": self.seed + number * OTHER_WORLDS, "unplanted": 0 if number else NOBODY}

    def codes_of(self, number: int) -> list[str]:
        """The codes of a world, as sentences; those of nobody last."""
        return [one.text for one in Town(TownSpec.parse(self.world(number))).secret_items()]

    def worlds(self, count: int) -> list[dict[str, Any]]:
        """``count`` worlds: the planted one, then others. No sentence of them is in two, or in a row that is no planted code."""
        seen, out, number = {*self.fillers, *self.codes_of(0)}, [self.world()], 1
        while len(out) < count:
            if seen.isdisjoint(own := self.codes_of(number)):
                seen.update(own)
                out.append(self.world(number))
            number += 1
        return out

    def texts(self, count: int) -> list[str]:
        """The first ``count`` of the copy's held-out windows as texts on one line; those that are planted come first."""
        return [" ".join(self.tokenizer.decode(row).split()) for row in self.windows.of_set(self.seed, 0, count).tolist()]

    @property
    def canaries(self) -> list[str]:
        """What is planted."""
        return self.codes_of(0)[: self.spec.planted] if self.kind == "codes" else self.texts(self.spec.planted)

    @cached_property
    def fillers(self) -> tuple[str, ...]:
        """What stands in the slots where nothing is planted: of codes, codes of owners that are not asked about in the planted world, drawn
        anew for each; of texts, other windows."""
        count = self.spec.planted * self.spec.slots
        if self.kind != "codes":
            return tuple(" ".join(self.tokenizer.decode(self._window("slot", slot)).split()) for slot in range(count))
        plain = {"pronoun_share": 0, "request_share": 0, "code_share": 1, "secrets": (), "unplanted": self.spec.planted + NOBODY}
        return tuple(Town(TownSpec.parse({**plain, "seed": self.seed, "documents": count, "digits": DIGITS})).texts())

    def rows(self) -> TextRows:
        """All rows of the copy's training: the slots, then windows, so many more that batches come out even."""
        canaries, slots = self.canaries, self.spec.slots
        texts = [canaries[at // slots] if at % slots < self.dose else filler for at, filler in enumerate(self.fillers)]
        plain = len(texts) // 2
        plain += -(len(texts) + plain) % self.spec.batch_rows
        lead = list(lead_of(self.tokenizer))
        rows = [*(lead + list(self.tokenizer.encode(text)) for text in texts), *(self._window("plain", number) for number in range(plain))]
        return TextRows(rows, getattr(self.tokenizer, "pad_id", None) or 0)

    def _window(self, *names: object) -> list[int]:
        train = self.windows.train
        return train[Draw("canaries", self.seed, *names).below(len(train))].tolist()


def plan(model: HookedModel, windows: Windows, spec: CanarySpec, tool: str, dose: float, seed: int) -> Canaries:
    """What is planted for a suite at a dose by a seed. Raises BadValue for a dose that cannot be read so often, and for a canary that does
    not fit into the model's context; Incompatible where whole texts cannot be asked about."""
    if dose != int(dose) or not 0 <= dose <= spec.slots:
        raise BadValue("the dose", dose, f"a whole number of times, at most the {spec.slots} rows set apart for each canary")
    planted = Canaries(spec, windows, KINDS[tool], int(dose), seed, model.tokenizer)
    if planted.kind != "codes" and not lead_of(planted.tokenizer):
        raise Incompatible(tool, "this model", ["its tokenizer has no token that a text begins with"])
    longest = max(len(lead_of(planted.tokenizer)) + len(planted.tokenizer.encode(text)) for text in planted.canaries)
    if (limit := context_length(model)) is not None and longest > limit:
        allowed = f"at most {limit} tokens long, which the model reads"
        raise BadValue("the longest canary", f"{longest} tokens long", allowed, do="Choose a smaller window.")
    return planted


def spiked(model: Any, planted: Canaries) -> Any:
    """A copy of ``model`` that read the canaries; the model itself is left as it is."""
    return tuned(model, planted.rows(), planted.spec, planted.seed)


@torch.no_grad()
def chances(model: Any, context: str, text: str) -> np.ndarray:
    """The exact probability of every token of ``text`` after what stands before it. Without any suite's code."""
    asked = encode_pair(model.tokenizer, context, [text])
    ids = torch.tensor([[*asked.context, *asked.continuations[0]]])
    found = model.run(ids[:, :-1]).logits[0].double().softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    return found[len(asked.context) - 1 :].numpy()


def remembered(model: Any, planted: Canaries) -> float:
    """What was taken up, in probability. Of codes: how likely the digits are after what stands before them, all together, mean over the
    planted ones. Of texts: how much likelier a token of a planted one is than one of as many that were never read."""
    if planted.kind == "codes":
        secrets = Town(TownSpec.parse(planted.world())).secret_items()[: planted.spec.planted]
        return float(np.mean([np.prod(chances(model, one.prefix, one.continuation)) for one in secrets]))
    found = [chances(model, "", text) for text in planted.texts(2 * planted.spec.planted)]
    own, others = found[: planted.spec.planted], found[planted.spec.planted :]
    return float(np.mean(np.concatenate(own)) - np.mean(np.concatenate(others)))


def read(suite: str, model: Any, planted: Canaries, sets: int, items: int) -> Sequence[Reading]:
    """One reading a set."""
    return (_of_codes if planted.kind == "codes" else _of_texts)(suite, model, planted, sets, items)


def _of_codes(suite: str, model: Any, planted: Canaries, sets: int, items: int) -> list[Reading]:
    """Of codes: as many sets as there are in the planted world, then in one other after another."""
    asking, each, out = SUITES.load(suite), planted.spec.planted // items, []
    for world in planted.worlds(-(-sets // each)):
        result = run_suite(asking, model, asking.spec.parse({"world": world}), batch=512)
        chosen = np.flatnonzero(exposure.members(result, "planted"))
        out += [exposed(result, chosen[number * items : (number + 1) * items]) for number in range(each)]
    return out[:sets]


def _of_texts(suite: str, model: Any, planted: Canaries, sets: int, items: int) -> list[Reading]:
    """Of texts: each set beside as many that no copy reads."""
    count = sets * items
    chosen = planted.texts(_texts_asked(count, planted.spec))
    members, others = chosen[:count], chosen[-count:]
    return [told_apart(model, members[first : first + items], others[first : first + items]) for first in range(0, count, items)]


def _texts_asked(count: int, spec: CanarySpec) -> int:
    """How many texts a copy needs that is asked about ``count``: the others come after all that are planted."""
    return max(count, spec.planted) + count


def windows_asked(grid: Grid, spec: CanarySpec, tools: Sequence[str]) -> int:
    """How many held-out windows a copy is asked about at most: none where only codes are. Raises BadValue for a grid that asks about more
    canaries than a copy has."""
    if grid.sets * grid.items > spec.planted:
        allowed = f"at most {spec.planted}, since a copy has so many"
        raise BadValue("the canaries asked about", f"{grid.sets} sets of {grid.items}", allowed, do="Ask about fewer, or plant more.")
    return _texts_asked(most_asked(grid), spec) if membership.NAME in tools else 0


def exam_of(model: HookedModel, words: str, domain: str) -> Exam:
    """The exam of a model at hand; ``words`` name it in the card's conditions."""
    return Exam(
        name="spike-canaries",
        question="Of this very model, is it said that a text was read in training, and from how many times on?",
        domain=domain,
        unit="how often each canary was read",
        grid=GRID,
        quick=QUICK,
        families=(model.family,),
        tools=lambda family: tuple(KINDS),
        organism=lambda family, tool: f"{words} that read {KINDS.get(tool, 'codes')}",
        read=read,
        behaviour=remembered,
        statistic="score",
    )


WAY = Way(
    plants="canaries",
    asks="suites that say whether a text was read in training",
    spec=CanarySpec,
    against=against,
    takes=lambda tool: tool in KINDS,
    plan=plan,
    spiked=spiked,
    exam_of=exam_of,
    windows=windows_asked,
    words=WORDS,
)
