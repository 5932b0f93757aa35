"""``workbench calibrate --blind N``: models are made and sealed, audited by the suites that have cards, and only then opened.

A trial has a number of its own and its folder in the home (``blind/NUMBER``): ``commitment.json`` is written before the first model is
made, ``answers.json`` after the last audit, ``opened.json`` at the end. A trial that was broken off is void and stays as it is: the next
one gets a new number. Nothing but what is planted differs between sealed models: each has a base of its own, of the same steps; they are
made out of order, in a folder that is thrown away, appear all at once, with one time on all files, and hold neither recipe nor kind.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from workbench.calibration import blind
from workbench.calibration.blind import NOTHING, Answer, Outcome, Rule, Truth, in_words
from workbench.calibration.cards import is_stale, measured, shipped
from workbench.calibration.code import code_digest
from workbench.calibration.exams.suites import EFFECTS, EXAM, FORM_OF, asked, claim
from workbench.core.finding import Verdict
from workbench.core.protocol import Progress, silent
from workbench.engine.threads import one_thread
from workbench.lab.audit_findings import family_level
from workbench.organisms.leaning import LONGER, TELLING, BaseRecipe, LeaningRecipe, build, leaned
from workbench.organisms.leaning_training import ALL_FORMS
from workbench.store.runs import Store
from workbench.training.checkpoint import load_model, write

__all__ = ["Trial", "in_words", "trial"]
FOLDER, LEVEL = "blind", 0.95
UNASKED = 1000
"""The number of the set that is asked: no card goes so far, whatever grid it was measured on."""


@dataclass(frozen=True)
class Trial:
    """A finished trial: its number, its folder, the commitment given before, and what the opening showed."""

    number: int
    folder: Path
    committed: str
    outcome: Outcome
    document: Mapping[str, Any]


def trial(
    count: int, *, store: Store | None = None, recipe: Mapping[str, Any] | None = None, items: int = EXAM.grid.items,
    progress: Progress = silent,
) -> Trial:  # fmt: skip
    """Make ``count`` sealed models, audit each, open the truth. ``recipe``: fields of the base and of the tuning that differ (``base``,
    ``steps``). Raises BadValue for fewer than 4 models, and where no suite has a current card."""
    store = store if store is not None else Store.open()
    plan = blind.rules([card for card in (*measured(store.home), *shipped()) if not is_stale(card)])
    kinds = [FORM_OF[suite] for suite in plan]
    unseen = [form for form in ALL_FORMS if form not in kinds]
    truths = blind.drawn(count, np.random.default_rng(secrets.randbits(128)), kinds, unseen)
    folder, number = _new(store.home / FOLDER)
    salt = secrets.token_hex(32)
    committed = blind.commitment(truths, salt)
    level = family_level(LEVEL, len(plan))
    told = {
        "plan": {suite: asdict(rule) for suite, rule in plan.items()}, "level": level, "asked about": kinds, "unseen": unseen,
        "code": {suite: code_digest(suite) for suite in plan}, "assay": version("assay-workbench"), "torch": version("torch"),
    }  # fmt: skip
    _put(folder / "commitment.json", {"commitment": committed, "models": [one.name for one in truths], **told})
    _sealed(truths, folder, recipe or {}, progress)
    answers = []
    for place, name in enumerate(one.name for one in truths):
        progress(count + place, 2 * count, f"auditing model {place + 1}")
        with one_thread():
            answers.append(audited(name, folder / name, plan, items, level))
    _put(folder / "answers.json", [asdict(one) for one in answers])
    return _opened(number, folder, truths, answers, salt, recipe or {})


def audited(name: str, folder: Path, plan: Mapping[str, Rule], items: int, level: float) -> Answer:
    """What the suites of the plan say of the sealed model in ``folder``, each asked one set that no card was measured on."""
    model = load_model(folder)
    results = {suite: asked(suite, model, UNASKED, items) for suite in plan}
    effects = {suite: EFFECTS[suite][0](result) for suite, result in results.items()}
    return blind.answer(name, effects, {s: claim(s, r, level).verdict is Verdict.DETECTED for s, r in results.items()}, plan)


def _opened(number: int, folder: Path, truths: Sequence[Truth], answers: Sequence[Answer], salt: str, recipe: Mapping[str, Any]) -> Trial:
    committed = json.loads((folder / "commitment.json").read_text(encoding="utf-8"))["commitment"]
    with one_thread():
        took = {one.name: leaned(load_model(folder / one.name), _recipe(one, recipe)) for one in truths if one.kind != NOTHING}
    outcome = blind.opened(truths, answers, salt, committed, took)
    document = {"number": number, "commitment": committed, **blind.report(truths, answers, salt, outcome, took)}
    _put(folder / "opened.json", document)
    return Trial(number, folder, committed, outcome, document)


def _recipe(truth: Truth, changed: Mapping[str, Any]) -> LeaningRecipe:
    """How a sealed model is made: a clean one is tuned at dose 0, in some form like any other."""
    form = truth.kind if truth.kind != NOTHING else list(ALL_FORMS)[truth.seed % len(ALL_FORMS)]
    base = BaseRecipe.parse({"seed": truth.seed, **changed.get("base", {})})
    made = LeaningRecipe(form=form, dose=truth.dose, base=base, share=TELLING.get(form, 0.0))
    steps = changed.get("steps", made.steps * LONGER.get(form, 1))
    return made.model_copy(update={"steps": steps})


def _sealed(truths: Sequence[Truth], folder: Path, recipe: Mapping[str, Any], progress: Progress) -> None:
    """Make all models and keep nothing but their weights. Their order of making is drawn, and they are put in place together."""
    order = list(truths)
    secrets.SystemRandom().shuffle(order)
    workshop, ready = folder / "workshop", folder / "ready"
    try:
        for place, truth in enumerate(order):
            progress(place, 2 * len(order), f"sealing model {place + 1}")
            with one_thread():
                write(ready / truth.name, build(_recipe(truth, recipe), workshop / truth.name, (), silent))
            shutil.rmtree(workshop)
        for path in sorted(ready.rglob("*"), reverse=True):
            os.utime(path, (0, 0))
        for truth in truths:
            (ready / truth.name).rename(folder / truth.name)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
        shutil.rmtree(ready, ignore_errors=True)


def _new(root: Path) -> tuple[Path, int]:
    """The folder of the next trial."""
    root.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(one.name) for one in root.iterdir() if one.name.isdigit()), default=0)
    folder = root / str(number)
    folder.mkdir()
    return folder, number


def _put(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
