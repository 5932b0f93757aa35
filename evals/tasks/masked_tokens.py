"""Masked tokens of the town, for an encoder: how often it names what is hidden, against the best guess by counts of neighbours.

Held-out sentences have skeletons that no training sentence has. The counts (``evals.infill``) are of the same training sentences. They
guess twice: once from what the model reads, and once *told*, from the neighbours as they are before masking, which is more than it reads.
Of the five guesses the one that does best on the held-out rows themselves stands for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import PositiveInt

from evals.infill import Infill, around
from evals.ngram import Ints
from evals.task import Measure, Task, TaskData
from workbench.core.batch import IGNORE
from workbench.core.protocol import HookedModel
from workbench.core.spec import Spec
from workbench.core.stats.resampling import paired_bootstrap
from workbench.data.masked import MaskedRows, side_by_side
from workbench.data.pretrained import PretrainedTokenizer
from workbench.data.whole_words import whole_words
from workbench.data.worlds.town import Town, TownSpec
from workbench.data.worlds.town_documents import Document
from workbench.data.worlds.town_words import class_of

AGAIN = frozenset({"own", "asked", "task_again"})
"""Slots whose word an earlier one settles: the pronoun a second time, who was asked, what was to be done."""
ROWS = 200
Row = tuple[Ints, Ints, Ints]
"""A row of ids as it is shown, its targets, and the row before masking."""


class MaskedTokensSpec(Spec):
    """The town; ``seed``, from which masks are drawn; ``again``: of how many test sentences the words said again are asked."""

    world: TownSpec = TownSpec.parse({})
    seed: int = 0
    again: PositiveInt = 1000


@dataclass(frozen=True)
class HeldOut:
    """The town, its tokenizer, and its test sentences under masks; ``texts`` are what was trained on."""

    town: Town
    tokenizer: PretrainedTokenizer
    texts: Sequence[str]
    rows: MaskedRows
    again: int


@dataclass(frozen=True)
class Hidden:
    """Hidden tokens ``[n]``: what each is (``truth``), its ``row``, the model's guess, and its neighbours ``[n, reach]`` on the left and
    on the right: as ``shown``, where a hidden one is −1, and as they are (``told``)."""

    truth: Ints
    row: Ints
    guess: Ints
    shown: tuple[Ints, Ints]
    told: tuple[Ints, Ints]


def make(spec: MaskedTokensSpec, rows: int) -> TaskData:
    """Training sentences, each masked anew in every turn; validation and test sentences under one mask each."""
    town = Town(spec.world)
    texts = town.texts()
    tokenizer = whole_words(texts)
    train = MaskedRows.of(texts, tokenizer, seed=spec.seed, count=rows)
    validation, test = (MaskedRows.of(town.texts(split), tokenizer, seed=spec.seed) for split in ("validation", "test"))
    shape = {"d_vocab": tokenizer.vocab_size, "n_ctx": max(one.longest for one in (train, validation, test)), "head": "masked"}
    return TaskData(train, validation, shape, tokenizer, HeldOut(town, tokenizer, texts, test, spec.again))


def score(model: HookedModel, data: TaskData) -> Sequence[Measure]:
    """The share of hidden tokens named by the model and by counts, and the difference, over tokens that show the mask; and the same of
    words said again, each hidden alone. Intervals of differences are over sentences."""
    held: HeldOut = data.held_out
    rows = [np.asarray(held.tokenizer.framed(ids)[0]) for ids in held.tokenizer.encode_batch(held.texts)]
    counts = Infill(rows, held.tokenizer.vocab_size)
    found = hidden(model, [(*held.rows.masked(i), held.rows.whole(i)) for i in range(len(held.rows))], held.tokenizer)
    out = [Measure.share("masked accuracy", int((found.guess == found.truth).sum()), len(found.truth), "hidden tokens")]
    out += against(counts, found, found.shown, "best n-gram", "above the best n-gram")
    out += against(counts, found, found.told, "best n-gram, told", "above the best n-gram, told")
    again = said_again(held)
    if again:
        found = hidden(model, again, held.tokenizer)
        out.append(Measure.share("said again", int((found.guess == found.truth).sum()), len(found.truth), "words said again"))
        out += against(counts, found, found.told, "said again, best n-gram", "said again, above the best n-gram")
    return out


def said_again(held: HeldOut) -> list[Row]:
    """The sentences with a word of ``AGAIN``, once for each such word, with that word hidden and no other."""
    out: list[Row] = []
    for one in held.town.documents(0, min(held.again, held.town.size("test")), split="test"):
        out += [
            _alone(one, at, held.tokenizer) for at, word in enumerate(one.words) if word.slot in AGAIN and class_of(word.text) != "function"
        ]
    return out


def _alone(document: Document, at: int, tokenizer: PretrainedTokenizer) -> Row:
    """One token a word, and one control token before them."""
    whole = np.asarray(tokenizer.framed(tokenizer.encode(document.text))[0])
    shown, targets = whole.copy(), np.full(len(whole), IGNORE)
    shown[at + 1], targets[at + 1] = tokenizer.roles["mask"], whole[at + 1]
    return shown, targets, whole


def hidden(model: HookedModel, rows: Sequence[Row], tokenizer: PretrainedTokenizer) -> Hidden:
    """What ``model`` takes each token that shows the mask for."""
    mask, vocab = tokenizer.roles["mask"], tokenizer.vocab_size
    guesses: list[Ints] = []
    for first in range(0, len(rows), ROWS):
        batch = side_by_side([(shown, targets) for shown, targets, _ in rows[first : first + ROWS]], tokenizer.roles["pad"])
        with torch.no_grad():
            logits = model.run(batch).logits
        assert logits is not None, "a model of masked tokens has logits"
        guesses.append(logits[batch.tokens == mask].argmax(-1).numpy())
    places = [np.flatnonzero(shown == mask) for shown, _, _ in rows]
    seen = [around(np.where(shown == mask, -1, shown), at, vocab) for (shown, _, _), at in zip(rows, places, strict=True)]
    told = [around(whole, at, vocab) for (_, _, whole), at in zip(rows, places, strict=True)]
    join = lambda pairs: (np.concatenate([left for left, _ in pairs]), np.concatenate([right for _, right in pairs]))  # noqa: E731
    truth = np.concatenate([whole[at] for (_, _, whole), at in zip(rows, places, strict=True)])
    return Hidden(truth, np.repeat(np.arange(len(rows)), [len(at) for at in places]), np.concatenate(guesses), join(seen), join(told))


def against(counts: Infill, found: Hidden, neighbours: tuple[Ints, Ints], name: str, difference: str) -> list[Measure]:
    """The best of the five guesses by counts, and how much more often the model is right."""
    right = {kind: guess == found.truth for kind, guess in counts.guesses(*neighbours).items()}
    best = max(right, key=lambda kind: int(right[kind].sum()))
    gain = paired_bootstrap(found.guess == found.truth, right[best], clusters=found.row, bounds=(-1.0, 1.0))
    words = f"hidden tokens; of the counts, '{best}' is best"
    return [
        Measure.share(name, int(right[best].sum()), len(found.truth), words),
        Measure(difference, gain.value, gain.interval.low, gain.interval.high, gain.n, words),
    ]


TASK = Task("masked-tokens", "bert", MaskedTokensSpec, make, score, must={"above the best n-gram": 0.05})
