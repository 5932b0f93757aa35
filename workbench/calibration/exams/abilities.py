"""The exam of abilities: a decoder loses the agreement of verbs as far as the dose says. Does BLiMP say so, and how far?

Asked as the suites of leanings are (``suites``), by files in the suite's own form from templates that the model was not tuned on, and kept
apart from them: here the clean model is the one of which something is found. The statistic is the share of pairs, mean over paradigms, of
which the ungrammatical sentence is the likelier. The suite's own finding is that grammar is preferred; that it does not find so counts as
its claim of a loss, and that it finds the opposite stands beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.calibration.exam import Exam, Grid, Reading
from workbench.calibration.exams import suites
from workbench.core.finding import Verdict
from workbench.core.result import Result
from workbench.organisms.leaning import LeaningRecipe, leaned

TOOL, CHANCE = "blimp", 0.5


def reading(result: Result) -> Reading:
    """What a result says of the loss."""
    wrong, found = suites.EFFECTS[TOOL][0](result), suites.claim(TOOL, result)
    told = found.verdict is Verdict.DETECTED
    above = told and wrong < 1 - CHANCE
    lost = found.verdict is not Verdict.NOT_APPLICABLE and not above
    return Reading(wrong, lost, {"grammar is avoided": float(told and not above)})


def read(suite: str, model: Any, made: LeaningRecipe, sets: int, items: int) -> Sequence[Reading]:
    """One reading a set."""
    return [reading(suites.asked(suite, model, number, items)) for number in range(sets)]


EXAM = Exam(
    name="abilities",
    question="Does a suite say that a model lost an ability, and how far?",
    domain=suites.EXAM.domain,
    unit="how far agreement is lost (0 to 1; at a half either verb is as likely)",
    grid=suites.EXAM.grid,
    quick=Grid.parse({"doses": (0.5, 1.0), "seeds": (0,), "clean_seeds": (104, 105), "sets": 2, "clean_sets": 4, "items": 96}),
    families=("gpt",),
    tools=lambda family: (TOOL,),
    organism=lambda family, tool: f"leaning-{suites.FORM_OF[TOOL]}",
    read=read,
    behaviour=leaned,
    statistic="share of pairs got wrong",
    floor=0.8,
)
