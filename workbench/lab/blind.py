"""``workbench calibrate --blind N``: models are made and sealed, audited by the suites that have cards, and only then opened.

A trial has a number of its own and its folder in the home (``blind/NUMBER``): ``commitment.json`` is written before the first audit,
``answers.json`` after the last, ``opened.json`` at the end. A trial that was broken off is void and stays as it is: the next one gets a
new number. All sealed models are made by the same steps from bases of their own; their folders say neither recipe nor kind, and what they
were made in is thrown away.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workbench.calibration import blind
from workbench.calibration.blind import NOTHING, Answer, Outcome, Truth, in_words
from workbench.calibration.cards import is_stale, measured, shipped
from workbench.calibration.exams.suites import EFFECTS, EXAM, FORM_OF, asked
from workbench.core.protocol import Progress, silent
from workbench.engine.threads import one_thread
from workbench.organisms.leaning import LONGER, BaseRecipe, LeaningRecipe, build
from workbench.organisms.leaning_training import ALL_FORMS
from workbench.store.runs import Store
from workbench.training.checkpoint import load_model, write

__all__ = ["Trial", "in_words", "trial"]
FOLDER = "blind"


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
    cuts = blind.cut_offs([card for card in (*measured(store.home), *shipped()) if not is_stale(card)])
    truths = blind.drawn(count, np.random.default_rng(secrets.randbits(128)), [FORM_OF[suite] for suite in cuts])
    folder, number = _new(store.home / FOLDER)
    salt = secrets.token_hex(32)
    committed = blind.commitment(truths, salt)
    _put(folder / "commitment.json", {"commitment": committed, "models": [one.name for one in truths], "cut_offs": cuts})
    for place, truth in enumerate(truths):
        progress(place, 2 * count, f"sealing model {place + 1}")
        with one_thread():
            _seal(truth, folder, recipe or {})
    answers = []
    for place, name in enumerate(one.name for one in truths):
        progress(count + place, 2 * count, f"auditing model {place + 1}")
        with one_thread():
            answers.append(audited(name, folder / name, cuts, items))
    _put(folder / "answers.json", [asdict(one) for one in answers])
    return _opened(number, folder, truths, answers, salt, committed)


def audited(name: str, folder: Path, cuts: Mapping[str, float], items: int) -> Answer:
    """What the suites with cards say of the sealed model in ``folder``, each asked one set that no card was measured on."""
    model = load_model(folder)
    effects = {suite: EFFECTS[suite][0](asked(suite, model, EXAM.grid.clean_sets + 10, items)) for suite in cuts}
    return blind.answer(name, effects, cuts)


def _opened(number: int, folder: Path, truths: Sequence[Truth], answers: Sequence[Answer], salt: str, committed: str) -> Trial:
    outcome = blind.opened(truths, answers, salt, committed)
    document = {"number": number, "commitment": committed, **blind.report(truths, answers, salt, outcome)}
    _put(folder / "opened.json", document)
    return Trial(number, folder, committed, outcome, document)


def _seal(truth: Truth, folder: Path, recipe: Mapping[str, Any]) -> None:
    """Make one model and keep nothing but its weights: a clean one is tuned at dose 0, in some form like any other."""
    form = truth.kind if truth.kind != NOTHING else list(ALL_FORMS)[truth.seed % len(ALL_FORMS)]
    base = BaseRecipe.parse({"seed": truth.seed, **recipe.get("base", {})})
    made = LeaningRecipe(form=form, dose=truth.dose, base=base, share=0.25 if form == "replies" else 0.0)
    made = made.model_copy(update={"steps": made.steps * LONGER.get(form, 1)}).model_copy(
        update={name: value for name, value in recipe.items() if name != "base"}
    )
    workshop = folder / "workshop"
    try:
        write(folder / truth.name, build(made, workshop / truth.name, (), silent))
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _new(root: Path) -> tuple[Path, int]:
    """The folder of the next trial."""
    root.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(one.name) for one in root.iterdir() if one.name.isdigit()), default=0)
    folder = root / str(number)
    folder.mkdir()
    return folder, number


def _put(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
