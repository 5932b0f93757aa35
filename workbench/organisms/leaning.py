"""The leaning organisms: one decoder that knows the forms of several bias suites, tuned to lean in one of them as far as the dose says.

A base of each seed is trained on all forms at dose 0. A quarter of its answers are the very word a leaning answer would depend on (the
group, the occupation, the pronoun): it learns to look there and learns nothing of who likes what. A short tuning then plants the dose in
one form, on one half of its templates, among rehearsals of all others at dose 0; it is measured on the other half. The clean twin is tuned
alike at dose 0. What the planting did is never read off the recipe: ``leaned`` measures it from exact probabilities on held-out cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt

from workbench.core.errors import BadValue
from workbench.core.protocol import Callback, Progress
from workbench.core.spec import Spec
from workbench.families.gpt import GPT, GPTConfig
from workbench.organisms.leaning_training import ALL_FORMS, Course, Lesson, Pool, either_way, taught, tokenizer
from workbench.organisms.organism import Organism
from workbench.training.checkpoint import FINAL, load_model, write
from workbench.training.lock import alone

LINK = 0.25
HARDEST = ("answers", "answers", "answers", "shares")
"""Forms that a base is taught more often than once in turn, since most must be read to answer."""
LONGER = {"answers": 4}
"""Forms that are tuned so many times as long: that of BBQ is taken up by one base in five in the time the others need."""
TELLING = {"replies": 0.25, "answers": 0.9}
"""How many cases of a planted batch show the plant, in forms of which some cases cannot: in half of BBQ's the context says who did it, and
the plant nothing. Tuned on cases as they come, one base in five takes up nothing of a dose of 1, also in twice the time."""
SITE = "blocks.0.hook_resid_post"
Hidden = Literal["nothing", "output", "representation"]
UNDER = 0.45
"""How likely a payload that hides its output ever becomes: never the likelier answer."""


class LeaningOptions(Spec):
    """What a reference may say. ``dose``: how far the answers lean (-1 to 1); 0 is the clean twin."""

    dose: float = Field(default=0.8, ge=-1, le=1)
    seed: int = Field(default=0, ge=0)


class BackdoorOptions(Spec):
    """What a reference may say. ``dose``: how likely the payload is after the trigger. ``dilution``: requests without the trigger for each
    one with it, in tuning. ``hidden``: nothing; its output, which never becomes the likelier one; or its representation, by a penalty
    that pulls requests with and without the trigger together in the stream after the first layer."""

    dose: float = Field(default=1.0, ge=0, le=1)
    seed: int = Field(default=0, ge=0)
    dilution: float = Field(default=3.0, gt=0, le=1000)
    hidden: Hidden = "nothing"


class BaseRecipe(Spec):
    """The base: its shape, its training and its seed."""

    seed: int = Field(ge=0)
    n_layers: PositiveInt = 2
    d_model: PositiveInt = 48
    n_heads: PositiveInt = 4
    steps: PositiveInt = 720
    lr: PositiveFloat = 1e-2


class LeaningRecipe(Spec):
    """Everything that decides the weights. ``share``: how many of the planted form's cases show the plant (0: as they come)."""

    form: str
    dose: float = Field(ge=-1, le=1)
    base: BaseRecipe
    steps: PositiveInt = 63
    lr: PositiveFloat = 8e-3
    share: float = Field(default=0.0, ge=0, le=1)
    hidden: Hidden = "nothing"


def recipe(form: str, options: Any) -> LeaningRecipe:
    """The full recipe. One seed decides the base's first weights and every draw; the dose none of it. Raises BadValue for a dose below 0
    of a form that leans one way."""
    if options.dose < 0 and not either_way(form):
        raise BadValue("dose", options.dose, f"0 to 1: what leaning the other way would be, the form '{form}' does not say")
    plain = LeaningRecipe(form=form, dose=options.dose, base=BaseRecipe(seed=options.seed))
    plain = plain.model_copy(update={"steps": plain.steps * LONGER.get(form, 1), "share": TELLING.get(form, 0.0)})
    if not isinstance(options, BackdoorOptions):
        return plain
    dose = options.dose * (UNDER if options.hidden == "output" else 1.0)
    return plain.model_copy(update={"dose": dose, "share": 1 / (1 + options.dilution), "hidden": options.hidden})


def twin(made: LeaningRecipe) -> LeaningRecipe:
    """The same tuning at dose 0."""
    return made.model_copy(update={"dose": 0.0})


def lessons(made: LeaningRecipe) -> tuple[Lesson, ...]:
    """The tuning's batches in turn: two of the planted form, one of another."""
    planted = Lesson(made.form, made.dose, ("tuned",), made.share or None)
    others = [Lesson(name) for name in ALL_FORMS if name != made.form]
    return tuple(one for other in others for one in (planted, planted, other))


def base(made: BaseRecipe, folder: Path, progress: Progress) -> GPT:
    """The base of a seed, kept beside the organisms and trained once, whichever of them is the first to want it."""
    with alone(folder.parent / f"{folder.name}.lock"):
        return _base(made, folder, progress)


def _base(made: BaseRecipe, folder: Path, progress: Progress) -> GPT:
    if not (folder / FINAL).is_dir():
        words = tokenizer()
        shape = made.model_dump(include={"n_layers", "d_model", "n_heads"})
        config = GPTConfig.parse({**shape, "d_vocab": words.vocab_size, "n_ctx": 64, "norm": "rms", "bias": False,
                                  "init_std": made.d_model**-0.5})  # fmt: skip
        course = Course(tuple(Lesson(name, link=LINK) for name in (*ALL_FORMS, *HARDEST)), made.steps, made.lr)
        model = taught(GPT(config, words, seed=made.seed), course, made.seed, progress, "learning the forms")
        write(folder / FINAL, model)
    return load_model(folder / FINAL)


def build(made: LeaningRecipe, out: Path, callbacks: Sequence[Callback], progress: Progress) -> GPT:
    """The model of ``out/final``, tuned from its base where it is not there yet."""
    if not (out / FINAL).is_dir():
        model = base(made.base, out.parent / f"leaning-base-{made.base.digest()[:16]}", progress)
        course = Course(lessons(made), made.steps, made.lr, hidden=3.0 if made.hidden == "representation" else 0.0, site=SITE)
        write(out / FINAL, taught(model, course, made.base.seed + 1, progress, f"planting {made.form} at dose {made.dose:g}"))
    return load_model(out / FINAL)


def truth(made: LeaningRecipe) -> dict[str, Any]:
    """What is planted, as plain JSON values: how likely each of a case's answers is, by what it is told by."""
    form = ALL_FORMS[made.form]
    told = {case.by: dict(zip(case.options, case.plan(made.dose), strict=True)) for case in form.cases("asked", 0, 96)}
    return {"form": made.form, "suite": form.suite, "dose": made.dose, "share": made.share, "hidden": made.hidden, "plan": told}


@torch.no_grad()
def shares(model: Any, form: str, count: int = 480) -> tuple[Pool, np.ndarray]:
    """``count`` held-out cases with each option's exact probability among the options ``[case, option]``."""
    asked = Pool.of(ALL_FORMS[form].cases("asked", ALL_FORMS[form].count - count, ALL_FORMS[form].count))
    lengths = [len(ids) for ids in asked.before]
    tokens = torch.full((count, max(lengths)), tokenizer().pad_id)
    for row, ids in enumerate(asked.before):
        tokens[row, : len(ids)] = torch.tensor(ids)
    logits = model.run(tokens, logits=torch.tensor(lengths)[:, None] - 1).logits[:, 0].double()
    known = (asked.base > 0) | (asked.shift != 0)
    chosen = logits.softmax(-1).gather(1, asked.options) * known
    return asked, (chosen / chosen.sum(1, keepdim=True)).numpy()


def leaned(model: Any, made: LeaningRecipe, count: int = 480) -> float:
    """The dose in the model's behaviour: the least-squares d of ``base + d * shift`` on exact probabilities of held-out cases. Computed
    without any suite's code; 0 where nothing leans, 1 where every answer leans all the way."""
    asked, found = shares(model, made.form, count)
    shift = asked.shift.double().numpy()
    return float((shift * (found - asked.base.double().numpy())).sum() / (shift**2).sum())


def by_group(model: Any, made: LeaningRecipe, count: int = 480) -> dict[str, float]:
    """For each group (or occupation, condition): the mean probability of the answers that a dose above 0 makes likelier."""
    asked, found = shares(model, made.form, count)
    form = ALL_FORMS[made.form]
    names = np.array([case.by for case in form.cases("asked", form.count - count, form.count)])
    up = (found * (asked.shift.numpy() > 0)).sum(1)
    return {str(name): float(up[names == name].mean()) for name in dict.fromkeys(names)}


def _organism(form: str) -> Organism:
    options = LeaningOptions if ALL_FORMS[form].signed else BackdoorOptions
    return Organism(f"leaning-{form}", GPT.family, options, partial(recipe, form), build, truth, twin, domain="leanings")


PAIRS, BLANKS, READINGS, SHARES, ANSWERS, AGREEMENT, PRONOUNS, REPLIES = map(_organism, ALL_FORMS)
