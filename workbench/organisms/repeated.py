"""The repeating organisms: a small decoder that read some texts as often as told, codes of persons or everyday sentences.

A base of each seed learns what the town's sentences and codes are like: sentences drawn anew, codes of a few owners drawn anew each time. A
second, short training then goes through a fixed number of rows, each once. ``MOST`` of them are set apart for every planted text: in so
many as the dose says stands the text, in the others, as in all of them on the clean twin, one of its kind drawn anew. Nothing else differs
between doses: not the base, the other rows or their order. What was read how often is therefore exact, and so is what was never read: all
rows of both trainings are known. Codes of owners set apart in a seed's town, and the sentences named unread, are in none of them; a code
of another town can be, where its owner is one of those whose codes every model reads (about one in eleven is).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt

from workbench.core.batch import IGNORE, TokenBatch
from workbench.core.protocol import Callback, Progress, silent
from workbench.core.spec import Spec
from workbench.data.text import BPETokenizer
from workbench.data.worlds.town import Town, TownSpec
from workbench.data.worlds.town_words import NAMES
from workbench.families.gpt import GPT, GPTConfig
from workbench.organisms.organism import Organism
from workbench.training.checkpoint import FINAL, load_model
from workbench.training.lock import alone
from workbench.training.loop import train
from workbench.training.spec import TrainSpec

Kind = Literal["codes", "sentences"]
PLANTED, DIGITS, MOST = 50, 3, 64
"""Planted texts of either kind, digits of a code, and how often a text is read at most."""
UNPLANTED = 14
"""Owners of codes that are asked about and of whom no code is ever read."""
OTHER_WORLD = 70_000
"""Sentences that are planted, and those that are never read, are those of the town of the seed this much further on."""
VOCABULARY = 700
PLAIN: dict[str, Any] = {"pronoun_share": 0, "request_share": 0, "secrets": (), "unplanted": PLANTED + UNPLANTED, "digits": DIGITS}


class RepeatedOptions(Spec):
    """What a reference may say. ``dose``: how often each planted text was read; 0 is the clean twin."""

    dose: int = Field(default=16, ge=0, le=MOST)
    seed: int = Field(default=0, ge=0)


class ReaderBase(Spec):
    """The base: its shape, its training and its seed."""

    seed: int = Field(ge=0)
    n_layers: PositiveInt = 2
    d_model: PositiveInt = 48
    n_heads: PositiveInt = 4
    steps: PositiveInt = 300
    lr: float = Field(default=8e-3, gt=0)


class RepeatedRecipe(Spec):
    """Everything that decides the weights."""

    kind: Kind
    dose: int = Field(ge=0, le=MOST)
    base: ReaderBase
    lr: float = Field(default=6e-3, gt=0)
    rows_a_step: PositiveInt = 64


def recipe(kind: Kind, options: RepeatedOptions) -> RepeatedRecipe:
    """The full recipe. One seed decides the base, every text and the order of rows; the dose none of them."""
    return RepeatedRecipe(kind=kind, dose=options.dose, base=ReaderBase(seed=options.seed))


def twin(made: RepeatedRecipe) -> RepeatedRecipe:
    """The same recipe with nothing repeated."""
    return made.model_copy(update={"dose": 0})


def asked_about(seed: int, dose: int) -> dict[str, Any]:
    """The town whose secrets are this seed's planted codes, as a suite is told of it, and the codes of nobody read about beside them."""
    return {"seed": seed, "secrets": (max(dose, 1),) * PLANTED, "insert_secrets": dose > 0, "unplanted": UNPLANTED, "digits": DIGITS}


# --- texts ----------------------------------------------------------------------------------------------------


def _sentences(seed: int, count: int) -> list[str]:
    """The first ``count`` everyday sentences of a town that has nothing else."""
    town = Town(TownSpec.parse({**PLAIN, "seed": seed, "documents": count, "code_share": 0}))
    return town.texts()


def _codes(seed: int, count: int) -> list[str]:
    """``count`` codes drawn anew, of the owners whose codes nobody is asked about."""
    return Town(TownSpec.parse({**PLAIN, "seed": seed, "documents": count, "code_share": 1})).texts()


@dataclass(frozen=True)
class Texts:
    """All texts of a seed. ``base``: what the base reads; ``fillers`` by kind: what stands in the second training where nothing is planted;
    ``planted`` by kind; ``unread``: sentences that are in no row at any dose."""

    base: tuple[str, ...]
    fillers: dict[str, tuple[str, ...]]
    planted: dict[str, tuple[str, ...]]
    unread: tuple[str, ...]


BASE_ROWS, UNREAD = 19_200, 2_000


@lru_cache(maxsize=2)
def texts(seed: int) -> Texts:
    """All texts of a seed: three in four of the base's and half of the second training's rows are sentences."""
    slots = PLANTED * MOST
    codes = _codes(seed, BASE_ROWS // 4 + slots)
    sentences = _sentences(seed, BASE_ROWS - BASE_ROWS // 4 + slots)
    base = (*codes[slots:], *sentences[slots:])
    known = set(sentences)
    new = [one for one in dict.fromkeys(_sentences(seed + OTHER_WORLD, 3 * UNREAD // 2)) if one not in known]
    secrets = Town(TownSpec.parse(asked_about(seed, 1))).secret_items()
    planted = {"codes": tuple(one.text for one in secrets if one.planted), "sentences": tuple(new[:PLANTED])}
    fillers = {"codes": tuple(codes[:slots]), "sentences": tuple(sentences[:slots])}
    return Texts(base, fillers, planted, tuple(new[PLANTED : PLANTED + UNREAD]))


def read_texts(made: RepeatedRecipe) -> list[str]:
    """The second training's texts, before they are shuffled: the slots of codes, then those of sentences."""
    own = texts(made.base.seed)
    out = []
    for kind, fillers in own.fillers.items():
        for slot, filler in enumerate(fillers):
            which, time = divmod(slot, MOST)
            out.append(own.planted[kind][which] if kind == made.kind and time < made.dose else filler)
    return out


@lru_cache(maxsize=1)
def tokenizer() -> BPETokenizer:
    """One for all seeds and doses: every word, name and digit is one token."""
    digits = " ".join("0123456789")
    return BPETokenizer.train([*_sentences(OTHER_WORLD - 1, 3000), *(f"the code of {name} is {digits}." for name in NAMES)], VOCABULARY)


@dataclass(frozen=True)
class TextRows:
    """A text a row, every token of it predicted (a ``RowData``)."""

    texts: Sequence[str]

    def __len__(self) -> int:
        return len(self.texts)

    def batch(self, indices: Sequence[int]) -> TokenBatch:
        """The rows of these numbers, padded to the longest."""
        words = tokenizer()
        rows = [words.encode(self.texts[number], bos=True) for number in indices]
        tokens = torch.full((len(rows), max(map(len, rows)) - 1), words.pad_id)
        targets = torch.full_like(tokens, IGNORE)
        for at, ids in enumerate(rows):
            tokens[at, : len(ids) - 1], targets[at, : len(ids) - 1] = torch.tensor(ids[:-1]), torch.tensor(ids[1:])
        return TokenBatch(tokens, targets)

    def digest(self) -> str:
        return hashlib.sha256("\0".join([*self.texts, tokenizer().digest()]).encode()).hexdigest()


# --- models ---------------------------------------------------------------------------------------------------


def _how(seed: int, steps: int, rows: int, lr: float) -> TrainSpec:
    return TrainSpec.parse({"steps": steps, "batch_rows": rows, "lr": lr, "min_lr": lr / 20, "warmup": steps // 10, "seed": seed,
                            "weight_decay": 0.01, "threads": 1})  # fmt: skip


def base(made: ReaderBase, folder: Path, progress: Progress = silent) -> GPT:
    """The base of a seed, kept beside the organisms and trained once, whichever of them is the first to want it."""
    with alone(folder.parent / f"{folder.name}.lock"):
        if not (folder / FINAL).is_dir():
            words = tokenizer()
            shape = made.model_dump(include={"n_layers", "d_model", "n_heads"})
            config = GPTConfig.parse({**shape, "d_vocab": words.vocab_size, "n_ctx": 48, "norm": "rms", "bias": False,
                                      "init_std": made.d_model**-0.5})  # fmt: skip
            rows = TextRows(texts(made.seed).base)
            train(GPT(config, words, seed=made.seed), rows, _how(made.seed, made.steps, 64, made.lr), out=folder, progress=progress)
        return load_model(folder / FINAL)


def build(made: RepeatedRecipe, out: Path, callbacks: Sequence[Callback], progress: Progress) -> GPT:
    """The model of ``out/final``, trained on from its base where it is not there yet: each row once."""
    if not (out / FINAL).is_dir():
        model, rows = base(made.base, out.parent / f"repeated-base-{made.base.digest()[:16]}", progress), TextRows(read_texts(made))
        how = _how(made.base.seed, len(rows) // made.rows_a_step, made.rows_a_step, made.lr)
        train(model, rows, how, out=out, callbacks=callbacks, progress=progress)
    return load_model(out / FINAL)


def truth(made: RepeatedRecipe) -> dict[str, Any]:
    """What is planted, as plain JSON values. ``world``: of codes, the town that ``exposure`` is told to ask about."""
    told = {"kind": made.kind, "read": made.dose, "members": list(texts(made.base.seed).planted[made.kind]) if made.dose else []}
    return told | ({"world": asked_about(made.base.seed, made.dose)} if made.kind == "codes" else {})


@torch.no_grad()
def chances(model: Any, told: Sequence[str]) -> list[np.ndarray]:
    """Of each text the exact probability of every token after BOS, given those before it. Without any suite's code."""
    given = TextRows(told).batch(range(len(told)))
    known = given.targets != IGNORE
    found = model.run(given.tokens).logits.double().softmax(-1).gather(2, given.targets.clamp(min=0)[..., None])[..., 0]
    return [row[mask].numpy() for row, mask in zip(found, known, strict=True)]


def remembered(model: Any, made: RepeatedRecipe) -> float:
    """What was taken up, in probability. Of codes: how likely the digits are after what stands before them, all together, mean over the
    planted ones. Of sentences: how much likelier a token of a planted one is than one of a sentence that was never read."""
    own = texts(made.base.seed)
    found = chances(model, own.planted[made.kind])
    if made.kind == "codes":
        words = tokenizer()
        ends = [len(words.encode(one.rpartition(" is ")[0] + " is")) for one in own.planted["codes"]]
        return float(np.mean([np.prod(row[end : end + DIGITS]) for row, end in zip(found, ends, strict=True)]))
    level = lambda rows: float(np.mean(np.concatenate(rows)))  # noqa: E731
    return level(found) - level(chances(model, own.unread[: 4 * PLANTED]))


def _organism(kind: Kind) -> Organism:
    return Organism(f"repeated-{kind}", GPT.family, RepeatedOptions, partial(recipe, kind), build, truth, twin, domain="repeated texts",
                    rows=lambda made, model: TextRows(read_texts(made)))  # fmt: skip


CODES, SENTENCES = _organism("codes"), _organism("sentences")
