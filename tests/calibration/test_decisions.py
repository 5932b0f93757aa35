"""The exam of decisions: what a set says of the place and of the age, and behaviour from exact probabilities alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from evals.suites.counterfactual_decisions import CounterfactualDecisionsSpec, aggregate
from evals.suites.group_fairness_data import GroupFairnessSpec
from tests.evals.test_group_fairness import answered, fair_but_for
from workbench.calibration.exam import Reading
from workbench.calibration.exams import decisions
from workbench.calibration.exams.decisions import EXAM, ROWS, WORDS
from workbench.core.errors import BadValue
from workbench.core.measure import Score
from workbench.data.worlds.applications import AGES, MOST, PLACES, Applications, ApplicationsSpec, chance_of, merit_of
from workbench.organisms.approvals import ORGANISM, tokenizer


def asked(dose: float, number: int = 0) -> Any:
    """What a model of the world's own probabilities answers to a set."""
    spec = GroupFairnessSpec.parse({"applications": {"seed": decisions.FIRST_SET + number}, "rows": 96})
    return answered(fair_but_for(dose), spec)


@pytest.mark.parametrize("dose", [0.35, -0.75])
def test_a_set_says_how_far_and_which_way(dose: float) -> None:
    found = decisions.reading(ROWS, asked(dose))
    assert found.claims
    assert found.extras["effect"] == pytest.approx(dose / 2, abs=0.1)
    assert found.statistic == abs(found.extras["effect"])
    assert (found.extras["size of age's effect"], found.extras["age is claimed"]) == (pytest.approx(0, abs=1e-9), 0.0)


def test_a_clean_set_says_nothing() -> None:
    found = decisions.reading(ROWS, asked(0.0))
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


def test_no_applicant_is_new_to_a_model_as_the_exam_says() -> None:
    """The world is so small that training reads every text of it, about 19 times."""
    texts = MOST**3 * len(PLACES) * len(AGES)
    made: Any = ORGANISM.configure(EXAM.options(ROWS, 0.2, 1))
    assert (texts, round(decisions.STEPS * made.train.batch_rows / texts)) == (2048, 19)
    assert "the world has 2,048 texts, and training reads each of them about 19 times" in (decisions.__doc__ or "")
    world = Applications(made.world)
    assert not {row["text"] for row in decisions.crossed(0, 96)} - {world.applicant(number).text for number in range(20_000)}


def test_odd_seeds_withhold_from_the_north_and_twins_from_nobody() -> None:
    assert [EXAM.options(ROWS, dose, seed)["dose"] for dose, seed in ((0.2, 0), (0.2, 1), (0.0, 101))] == [0.2, -0.2, 0.0]
    made: Any = ORGANISM.configure(EXAM.options(ROWS, 0.2, 1))
    assert made.train.steps == decisions.STEPS


# --- in the form of counterfactual decisions ----------------------------------------------------------------------


def test_every_question_is_asked_about_every_person() -> None:
    rows = decisions.crossed(3, 96)
    assert len({row["text"] for row in rows}) == len(rows) == 96
    assert len({row["question"] for row in rows}) == 8
    rests = {(row["age"], row["income"]) for row in rows}
    assert len(rests) == 6
    assert {(row["question"], row["place"], *rest) for row in rows for rest in rests} == {
        (row["question"], row["place"], row["age"], row["income"]) for row in rows
    }
    assert rows != decisions.crossed(4, 96)
    with pytest.raises(BadValue, match="whole questions"):
        decisions.crossed(0, 90)
    with pytest.raises(BadValue, match="whole questions"):
        decisions.crossed(0, 60)


def worded(dose: float) -> Reading:
    """What a model of the world's own probabilities answers to a set of words."""
    spec: Any = CounterfactualDecisionsSpec.parse({"attributes": ("place", "age", "income")})
    scores = []
    for number, row in enumerate(decisions.crossed(0, 96)):
        figures = row["text"].split()
        chance = chance_of(merit_of(int(figures[1]), int(figures[3]), int(figures[5])), row["place"], dose)
        odds = float(np.log(chance) - np.log1p(-chance))
        person = [str(row[name]) for name in spec.attributes]
        scores.append(Score(f"{number:06d}", {"score": odds, "mass": 1.0, "person": person}, cluster=row["question"]))
    return decisions.reading(WORDS, aggregate(scores, spec))


def test_words_are_counted_in_nats_and_age_is_silent() -> None:
    found, other, clean = worded(0.5), worded(-0.5), worded(0.0)
    assert found.claims
    assert found.extras["effect"] > np.log(2)  # of the odds more than half is withheld
    assert other.extras["effect"] == pytest.approx(-found.extras["effect"])
    assert (found.extras["size of age's effect"], found.extras["age is claimed"]) == (pytest.approx(0, abs=1e-9), 0.0)
    assert not clean.claims
    assert clean.statistic == pytest.approx(0, abs=1e-9)
    assert "size of the effect" in EXAM.nats[WORDS]
