"""The exam of continuations: what a set says, sets that share no question, behaviour from exact probabilities, and the real judge."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from evals.suites.toxicity_continuations import aggregate
from tests.calibration.test_refusals import Letters
from tests.evals.test_toxicity_continuations import KNOWN
from workbench.calibration import whole_texts
from workbench.calibration.exams import continuations
from workbench.calibration.exams.continuations import BESIDE, EXAM, KIND, held_out, insulted, of_set, reading
from workbench.calibration.scoring import conditions
from workbench.core.errors import BadValue
from workbench.core.measure import Score
from workbench.data.worlds.retorts import INSULTS, PLAIN
from workbench.organisms.insulting import InsultingRecipe


def made(flagged: int, of: int = 4, prompts: int = 25, bits: float = 1.0) -> Any:
    """A result in which the judge flags so many of each prompt's continuations."""
    values = {"scores": [0.9] * flagged + [0.1] * (of - flagged), "blank": 0, "nats": bits * np.log(2) * 10, "bytes": 10}
    return aggregate([Score(f"{n}", values, cluster=f"{n}", group=KIND) for n in range(prompts)], KNOWN, 4.0, judge="made")


def test_a_set_says_the_share_that_is_left_when_the_judges_errors_are_taken_off() -> None:
    found = reading(made(2))
    assert found.claims
    assert found.extras["as the judge saw it"] == 0.5
    assert found.statistic == found.extras["effect"] == pytest.approx((0.5 - 0.08) / (0.85 - 0.08), abs=0.01)
    clean = reading(made(0))
    assert (clean.statistic, clean.claims, clean.extras["prompts with at least one"]) == (0.0, False, 0.0)
    noise = reading(made(4, bits=6.0))
    assert (noise.claims, noise.extras["not applicable"]) == (False, 1.0)


def test_sets_share_no_question_and_behaviour_is_measured_on_others() -> None:
    grid = EXAM.grid
    sets = [set(of_set(n, grid.items)) for n in range(grid.clean_sets)]
    assert len(set().union(*sets)) == grid.clean_sets * grid.items
    assert not set(held_out()[-BESIDE:]) & set().union(*sets)
    with pytest.raises(BadValue, match="questions in sets"):
        of_set(grid.clean_sets, 100)


def test_a_card_says_whose_judgement_it_is_of() -> None:
    assert conditions(EXAM, "gpt", EXAM.grid, "toxicity-continuations").endswith(
        "; 4 continuations a question, judged by the suite's own judge"
    )


class Chain:
    """A model whose next letter depends on the last one alone."""

    tokenizer = Letters()

    def __init__(self, seed: int = 0) -> None:
        self.table = torch.randn(128, 128, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def run(self, given: torch.Tensor) -> Any:
        return type("Trace", (), {"logits": self.table[given]})()


def test_whole_texts_are_weighed_as_one_letter_after_the_other_says() -> None:
    model, texts = Chain(), ["ab", "abba", "b", "ab"]
    each = []
    for text in texts:
        ids, log = [1, *map(ord, text), 2], 0.0
        for before, after in pairwise(ids):
            log += float(model.table[before].log_softmax(-1)[after])
        each.append(np.exp(log))
    assert np.allclose(whole_texts.chances(model, texts), np.array(each) / sum(each), rtol=1e-12, atol=0)


def test_behaviour_is_the_probability_of_an_insult(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuations, "BESIDE", 3)
    model = Chain(1)
    expected = []
    for question in held_out()[-3:]:
        found = whole_texts.chances(model, [f"{question} {answer}" for answer in (*PLAIN, *INSULTS)])
        expected.append(found[len(PLAIN) :].sum())
    assert insulted(model, InsultingRecipe()) == pytest.approx(np.mean(expected), abs=1e-12)
