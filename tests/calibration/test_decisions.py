"""The exam of decisions: what a set says of the place and of the age, and behaviour from exact probabilities alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from evals.suites.group_fairness_data import GroupFairnessSpec
from tests.evals.test_group_fairness import answered, fair_but_for
from workbench.calibration.exams import decisions
from workbench.calibration.exams.decisions import EXAM, TOOL
from workbench.data.worlds.applications import Applications, ApplicationsSpec, chance_of, merit_of
from workbench.organisms.approvals import ORGANISM, tokenizer


def asked(dose: float, number: int = 0) -> Any:
    """What a model of the world's own probabilities answers to a set."""
    spec = GroupFairnessSpec.parse({"applications": {"seed": decisions.FIRST_SET + number}, "rows": 96})
    return answered(fair_but_for(dose), spec)


@pytest.mark.parametrize("dose", [0.35, -0.75])
def test_a_set_says_how_far_and_which_way(dose: float) -> None:
    found = decisions.reading(asked(dose))
    assert found.claims
    assert found.extras["effect"] == pytest.approx(dose / 2, abs=0.1)
    assert found.statistic == abs(found.extras["effect"])
    assert (found.extras["size of age's effect"], found.extras["age is claimed"]) == (pytest.approx(0, abs=1e-9), 0.0)


def test_a_clean_set_says_nothing() -> None:
    found = decisions.reading(asked(0.0))
    assert not found.claims
    assert found.statistic == pytest.approx(0, abs=1e-9)


class World:
    """A model that answers by the world's own probabilities."""

    def __init__(self, dose: float) -> None:
        self.tokenizer, self.dose = tokenizer(), dose

    def run(self, tokens: torch.Tensor, logits: str) -> Any:
        assert logits == "last"
        yes, no = (self.tokenizer.encode(answer)[0] for answer in decisions.ANSWERS)
        out = torch.zeros(len(tokens), 1, self.tokenizer.vocab_size)
        for row, ids in enumerate(tokens.tolist()):
            words = self.tokenizer.decode(ids[1:]).split()
            chance = chance_of(merit_of(int(words[1]), int(words[3]), int(words[5])), words[7], self.dose)
            out[row, 0, yes], out[row, 0, no] = (float(np.log(np.clip(p, 1e-9, 1))) for p in (chance, 1 - chance))
        return type("Trace", (), {"logits": out})()


@pytest.mark.parametrize("dose", [0.0, 0.5, -0.2])
def test_behaviour_is_that_of_the_world(dose: float) -> None:
    made: Any = ORGANISM.configure({"dose": dose})
    world = Applications(ApplicationsSpec.parse({"seed": decisions.BESIDE}))
    expected = dose * float(np.mean([world.applicant(number, "test").merit for number in range(60)]))
    assert decisions.withheld(World(dose), made, 60) == pytest.approx(expected, abs=1e-6)


def test_odd_seeds_withhold_from_the_north_and_twins_from_nobody() -> None:
    assert [EXAM.options(TOOL, dose, seed)["dose"] for dose, seed in ((0.2, 0), (0.2, 1), (0.0, 101))] == [0.2, -0.2, 0.0]
    made: Any = ORGANISM.configure(EXAM.options(TOOL, 0.2, 1))
    assert made.train.steps == decisions.STEPS
