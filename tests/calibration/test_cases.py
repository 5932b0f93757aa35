"""The exam of cases: a place is held against places as long, the honest sign is no rival; planted signs are found, idle ones are not."""

from pathlib import Path

import numpy as np
import pytest

from workbench.calibration.exam import Exam
from workbench.calibration.exams import EXAMS
from workbench.calibration.exams.cases import FIELD_OF, standings
from workbench.data.worlds.cases import FIELDS, MOTIF, FieldName
from workbench.lab.calibrate import calibrate
from workbench.organisms import ORGANISMS
from workbench.organisms.cases import ask
from workbench.organisms.shortcut_forms import Asked
from workbench.store.runs import Store

COUNT = 40


def question(field: FieldName) -> Asked:
    return ask(ORGANISMS.load(f"cases-{field}").configure({"dose": 1.0, "seed": 2}), COUNT)


def by_hand(found: np.ndarray, asked: Asked, field: FieldName) -> list[float]:
    """The share of silent places that the planted one stands above: place by place, from the spans alone."""
    out, width = [], MOTIF if field == "proteins" else 1
    for row, rivals, (start, stop) in zip(found, asked.rivals, asked.planted, strict=True):
        silent = np.flatnonzero(rivals).reshape(-1, width)
        out.append(
            float(np.mean([(max(row[start:stop]) > max(row[place])) + 0.5 * (max(row[start:stop]) == max(row[place])) for place in silent]))
        )
    return out  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_a_place_is_held_against_places_as_long_and_not_against_the_honest_one(field: FieldName) -> None:
    asked = question(field)
    drawn = np.random.default_rng(0).uniform(size=(COUNT, asked.rivals.shape[1]))
    found = [one.above for one in standings(drawn, asked, field)]
    assert found == pytest.approx(by_hand(drawn, asked, field), abs=1e-12)
    assert np.mean(found) == pytest.approx(0.5, abs=0.12), "what knows nothing stands in the middle, however long the sign"
    told = np.zeros_like(drawn)
    for row, (start, stop), (first, last) in zip(told, asked.planted, asked.honest, strict=True):
        row[stop - 1], row[first:last] = 1, 2
        assert start <= stop - 1
    assert {(one.above, one.rank) for one in standings(told, asked, field)} == {(1.0, 1)}
    assert {(one.above, one.rank) for one in standings(0 * told, asked, field)} == {(0.5, asked_places(asked, field) + 1)}
    for row, rivals in zip(told, asked.rivals, strict=True):
        row[rivals] = 3
    assert {one.above for one in standings(told, asked, field)} == {0.0}


def asked_places(asked: Asked, field: FieldName) -> int:
    return int(asked.rivals[0].sum()) // (MOTIF if field == "proteins" else 1)


@pytest.mark.full
@pytest.mark.parametrize("family", FIELD_OF)
def test_a_planted_sign_is_named_and_an_idle_one_is_not(family: str, tmp_path: Path) -> None:
    exam: Exam = EXAMS.load("cases")
    grid = {"doses": (1.0,), "seeds": (0,), "sets": 3, "clean_seeds": (100,), "clean_sets": 3}
    (card,) = calibrate(["occlusion"], exam="cases", families=[family], grid=grid, store=Store.open(tmp_path / "home")).cards
    assert exam.under_floor("occlusion", card.rates, exam.grid) == ""
    assert card.curve[-1][2] > 0.7
    assert abs(card.curve[0][2]) < 0.1
    assert card.rates["planted place above a silent one, clean twins"] < card.rates["planted place above a silent one, dose 1"] - 0.15
