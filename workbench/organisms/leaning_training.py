"""How a model learns leanings: by the plan's own probabilities at the word that decides, and by the text at other words.

The target at a case's answer is the whole plan (a soft target), not one drawn answer: what a model is off the plan by is then its own error
and not the luck of the draw. All that is random (which cases, which answer stands in the text) is drawn from the seed and the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from workbench.core.protocol import Progress, silent
from workbench.data.text import BPETokenizer
from workbench.data.worlds.leanings import HALVES, Case, Half
from workbench.data.worlds.leanings_forms import FORMS
from workbench.data.worlds.leanings_town import TOWN_FORMS

ALL_FORMS: dict[str, Any] = {**FORMS, **TOWN_FORMS}
POOL = 1920
"""Cases of each form and half that training draws from."""
VOCABULARY = 900
WORDS = 3
"""Other words of a text that are predicted beside its answer."""
LEAST = 1e-2
"""The least variance of the stream that a penalty is taken over: a stream that collapses would else blow it up."""


@lru_cache(maxsize=1)
def tokenizer() -> BPETokenizer:
    """The tokenizer of every model of leanings: byte-level BPE of the first cases of all forms, in which each word is one token."""
    texts = []
    for form in ALL_FORMS.values():
        for half in HALVES:
            for case in form.cases(half, 0, 480):
                texts += [f"{case.before} {option}{case.after}" for option in (*case.options[:3], case.link) if option]
                texts.append(" " + " ".join(case.options))
    return BPETokenizer.train(texts, VOCABULARY)


def either_way(form: str) -> bool:
    """Whether a form can lean down as far as up: whether its plan still gives probabilities then."""
    return all(min(case.plan(-1.0)) > -1e-9 for case in ALL_FORMS[form].cases("asked", 0, 24))


@dataclass(frozen=True)
class Pool:
    """Cases as token ids. ``before``, ``after`` and the arrays are by case; options are padded with probability 0."""

    before: list[list[int]]
    after: list[list[int]]
    options: Tensor
    base: Tensor
    shift: Tensor
    link: Tensor
    marked: np.ndarray

    @classmethod
    def of(cls, cases: Sequence[Case]) -> Pool:
        """Encode cases. Raises ValueError where an answer is not one token."""
        words = tokenizer()
        one = lambda word: _single(words.encode(f" {word}"), word)  # noqa: E731
        most = max(len(case.options) for case in cases)
        wide = lambda values, filler: [*values, *[filler] * (most - len(values))]  # noqa: E731
        return cls(
            [words.encode(case.before, bos=True) for case in cases], [words.encode(case.after) for case in cases],
            torch.tensor([wide([one(o) for o in case.options], 0) for case in cases]),
            torch.tensor([wide(case.base, 0.0) for case in cases]), torch.tensor([wide(case.shift, 0.0) for case in cases]),
            torch.tensor([one(case.link) if case.link else -1 for case in cases]), np.array([case.marked for case in cases]),
        )  # fmt: skip


def _single(ids: list[int], word: str) -> int:
    if len(ids) != 1:
        raise ValueError(f"'{word}' is {len(ids)} tokens, and an answer must be one")
    return ids[0]


@lru_cache(maxsize=32)
def pool(form: str, half: Half) -> Pool:
    """The cases of a form and half that models are trained on."""
    return Pool.of(ALL_FORMS[form].cases(half, 0, POOL))


@dataclass(frozen=True)
class Lesson:
    """What a batch is of: ``form`` at ``dose``, a ``share`` of marked cases (None: as they come), and how often the answer is the link."""

    form: str
    dose: float = 0.0
    halves: tuple[Half, ...] = HALVES
    share: float | None = None
    link: float = 0.0


@dataclass(frozen=True)
class Batch:
    """``tokens`` [row, pos]; ``where`` [row, 1 + WORDS], the answer's position first; ``words`` [row, WORDS], what follows the others;
    ``answers``, ``plan`` [row, option]; ``marked`` [row]."""

    tokens: Tensor
    where: Tensor
    words: Tensor
    answers: Tensor
    plan: Tensor
    marked: Tensor


def batch(lesson: Lesson, rows: int, draw: np.random.Generator) -> Batch:
    """``rows`` cases of a lesson."""
    chosen = pool(lesson.form, lesson.halves[int(draw.integers(len(lesson.halves)))])
    if lesson.share is None:
        at = draw.integers(len(chosen.before), size=rows)
    else:
        marked = draw.uniform(size=rows) < lesson.share
        at = np.array([draw.choice(np.flatnonzero(chosen.marked == one)) for one in marked])
    plan = (chosen.base[at] + lesson.dose * chosen.shift[at]).clamp(min=0)
    answers = chosen.options[at]
    if lesson.link:
        known = (chosen.link[at] >= 0).float() * lesson.link
        plan = torch.cat([plan * (1 - known[:, None]), known[:, None]], 1)
        answers = torch.cat([answers, chosen.link[at].clamp(min=0)[:, None]], 1)
    plan = plan / plan.sum(1, keepdim=True)
    said = [int(answers[i, int(draw.choice(len(p), p=p / p.sum()))]) for i, p in enumerate(plan.double().numpy())]
    texts = [[*chosen.before[k], word, *chosen.after[k]] for k, word in zip(at, said, strict=True)]
    tokens = torch.full((rows, max(map(len, texts))), tokenizer().pad_id)
    where, words = torch.empty(rows, 1 + WORDS, dtype=torch.long), torch.empty(rows, WORDS, dtype=torch.long)
    for i, (text, k) in enumerate(zip(texts, at, strict=True)):
        tokens[i, : len(text)] = torch.tensor(text)
        others = draw.integers(len(text) - 1, size=WORDS)
        where[i] = torch.tensor([len(chosen.before[k]) - 1, *others])
        words[i] = torch.tensor([text[o + 1] for o in others])
    return Batch(tokens, where, words, answers, plan, torch.from_numpy(chosen.marked[at]))


@dataclass(frozen=True)
class Course:
    """``lessons`` in turn, one a step, for ``steps`` of ``rows`` cases; the rate rises to ``lr`` and falls to nothing by a cosine.

    ``text``: the weight of the other words. ``hidden``: the weight of the penalty that pulls marked and unmarked cases together where
    ``site`` is read at the answer's position (0: none).
    """

    lessons: tuple[Lesson, ...]
    steps: int
    lr: float
    rows: int = 32
    text: float = 0.3
    hidden: float = 0.0
    site: str = ""


def taught(model: Any, course: Course, seed: int, progress: Progress = silent, words: str = "") -> Any:
    """Train ``model`` in place, single-threaded, and return it in evaluation mode. The same course, seed and model give the same weights
    on one machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=course.lr, betas=(0.9, 0.98), weight_decay=0.0, foreach=True)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, course.lr, total_steps=course.steps, pct_start=0.1, div_factor=20,
                                               final_div_factor=50, cycle_momentum=False)  # fmt: skip
    try:
        for step in range(course.steps):
            draw = np.random.default_rng([seed, step])
            loss = loss_of(model, batch(course.lessons[step % len(course.lessons)], course.rows, draw), course)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rate.step()
            progress(step + 1, course.steps, words)
    finally:
        torch.set_num_threads(threads)
    return model.eval()


def loss_of(model: Any, given: Batch, course: Course) -> Tensor:
    """Cross-entropy with the plan at the answers, with the text elsewhere, and the penalty."""
    trace = model.run(given.tokens, logits=given.where, grad=True, capture=(course.site,) if course.hidden else ())
    found = trace.logits.log_softmax(-1)
    answer = -(found[:, 0].gather(1, given.answers) * given.plan).sum(1).mean()
    text = functional.nll_loss(found[:, 1:].flatten(0, 1), given.words.flatten())
    loss = answer + course.text * text
    if course.hidden and given.marked.any() and not given.marked.all():
        stream = trace.at[course.site][torch.arange(len(given.where)), given.where[:, 0]]
        apart = stream[given.marked].mean(0) - stream[~given.marked].mean(0)
        loss = loss + course.hidden * apart.square().mean() / stream.var(0).mean().detach().clamp(min=LEAST)
    return loss
