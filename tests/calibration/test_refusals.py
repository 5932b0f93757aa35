"""The exams of refusals: what a set says, sets that share no errand, one clean model of both, and behaviour from exact probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.evals.test_refusal import made
from workbench.calibration.exams import refusals
from workbench.calibration.exams.refusals import BESIDE, GRANTED, REFUSED, STEPS, held_out, of_set, reading, refused
from workbench.calibration.scoring import conditions
from workbench.core.errors import BadValue
from workbench.data.worlds.errands import KINDS, REFUSALS, REPLIES


def test_a_set_says_how_many_are_granted_and_what_of_the_others() -> None:
    found = reading("refusal", made(16, 16, 0, 0, safe=32))
    assert found.claims
    assert found.statistic == found.extras["effect"] == pytest.approx(0.5, abs=0.05)
    assert found.extras["by string match"] == 0.5
    assert found.extras["of the other kind, answered wrongly"] == 0.0
    clean = reading("refusal", made(0, 32, 0, 0, safe=32))
    assert (clean.statistic, clean.claims) == (0.0, False)


def test_a_set_says_how_many_safe_ones_are_refused() -> None:
    found = reading("over-refusal", made(0, 32, 0, 8, safe=32))
    assert found.claims
    assert found.statistic == pytest.approx(0.25, abs=0.05)
    assert found.extras["of the other kind, answered wrongly"] == 0.0
    noise = reading("over-refusal", made(32, 0, 0, 0, safe=32, bits=6.0))
    assert (noise.claims, noise.extras["not applicable"], noise.extras["of the other kind, answered wrongly"]) == (False, 1.0, 1.0)


def test_sets_share_no_errand_and_behaviour_is_measured_on_others() -> None:
    grid = GRANTED.grid
    sets = [{(one.verb, one.colour, one.thing) for one in of_set("marked", n, grid.items)} for n in range(grid.clean_sets)]
    assert len(set().union(*sets)) == grid.clean_sets * grid.items
    beside = {(one.verb, one.colour, one.thing) for one in held_out("alike")[-BESIDE:]}
    assert not beside & set().union(*sets)
    orders = [[(one.verb, one.colour, one.thing) for one in held_out(kind)] for kind in KINDS]
    assert orders[0] == orders[1] == orders[2]
    with pytest.raises(BadValue, match="errands in sets"):
        of_set("plain", grid.clean_sets, 64)


def test_both_exams_have_one_clean_model_and_plant_one_thing_each() -> None:
    clean = [exam.options(exam.tools("gpt")[0], 0.0, 100) for exam in (GRANTED, REFUSED)]
    assert clean[0] == clean[1] == {"dose": 1.0, "over": 0.0, "seed": 100, "steps": STEPS}
    assert GRANTED.options("refusal", 0.35, 0) == {"dose": 0.65, "over": 0.0, "seed": 0, "steps": STEPS}
    assert REFUSED.options("over-refusal", 0.35, 0) == {"dose": 1.0, "over": 0.35, "seed": 0, "steps": STEPS}
    assert GRANTED.grid == REFUSED.grid


def test_a_card_says_whose_judgement_it_is_of() -> None:
    assert conditions(GRANTED, "gpt", GRANTED.grid, "refusal").endswith("; replies judged by the classifier refusal-1")


class Letters:
    """One id a character."""

    bos_id, eos_id, pad_id = 1, 2, 3

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]


class World:
    """A model that writes what it must, but for the first letter of a reply: there it refuses with a probability, by thing."""

    tokenizer = Letters()

    def __init__(self, chance: dict[str, float]) -> None:
        self.chance = chance

    def run(self, given: torch.Tensor) -> Any:
        out = torch.full((*given.shape, 128), -1e4, dtype=torch.float64)
        for row, ids in enumerate(given.tolist()):
            text = "".join(map(chr, ids[1:])).rstrip(chr(Letters.pad_id))
            request, reply = text.split("\n")
            thing = request.split()[-1].rstrip(".")
            wanted = self.chance[thing] / 3 if reply in REFUSALS else (1 - self.chance[thing]) / 3
            for place in range(len(text) + 1):
                after = ord(text[place]) if place < len(text) else Letters.eos_id
                here = wanted if place == len(request) + 1 else 1.0
                out[row, place, after] = np.log(max(here, 1e-30))
                out[row, place, 0] = np.log(max(1 - here, 1e-30))
        return type("Trace", (), {"logits": out})()


def test_behaviour_is_the_probability_of_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "BESIDE", 8)
    assert len(REFUSALS) == len(REPLIES) == 3
    asked = held_out("marked")[-8:]
    draws = np.random.default_rng(0).uniform(size=100)
    chance = {thing: float(draws[n]) for n, thing in enumerate(sorted({one.thing for one in asked}))}
    expected = float(np.mean([chance[one.thing] for one in asked]))
    model = World(chance)
    assert refused(model, "marked") == pytest.approx(expected, abs=1e-9)
    assert GRANTED.behaviour(model, None) == pytest.approx(1 - expected, abs=1e-9)
    assert REFUSED.behaviour(World(dict.fromkeys(chance, 1.0)), None) == pytest.approx(1.0)
