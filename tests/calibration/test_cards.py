"""Cards apply where they were measured and nowhere else; the shipped ones are read and are not about the shipped plan's seed."""

import math
import zlib
from importlib import resources
from pathlib import Path

import pytest

from workbench.calibration.agreement import disagreements
from workbench.calibration.atlas import page
from workbench.calibration.cards import NONE, card_for, dump, parsed, profile_of, shipped
from workbench.calibration.exam import Exam
from workbench.calibration.exams import EXAMS
from workbench.calibration.scoring import conditions
from workbench.core.finding import Card
from workbench.families.gpt import GPT
from workbench.lab.calibrate import calibrate
from workbench.lab.plan import read_plan
from workbench.store.runs import Store

FILES = sorted(Path(str(resources.files("workbench.calibration") / "shipped")).glob("*.json"))
PROFILE = {"family": "gpt", "norm_placement": "pre", "domain": "town", "parameters": 700_000}
CARD = Card.parse({"of": "trigger", **PROFILE, "conditions": "dose 0.8, seeds 1, 2, 3", "rates": {"hit": 1.0}, "n": 600})


def test_a_card_stands_only_where_it_applies() -> None:
    assert card_for("trigger", PROFILE, [CARD]) == (CARD, "calibrated: dose 0.8, seeds 1, 2, 3")
    card, words = card_for("trigger", {**PROFILE, "domain": "web text"}, [CARD])
    assert card is None
    assert words.startswith(NONE)
    assert "input domain is web text" in words
    assert card_for("exposure", PROFILE, [CARD]) == (None, f"{NONE}: no card was measured for exposure")


def test_the_profile_of_a_model() -> None:
    model, _ = GPT.tiny()
    profile = profile_of(model, "town")
    assert profile == {"family": "gpt", "norm_placement": "pre", "domain": "town", "parameters": sum(p.numel() for p in model.parameters())}


def test_shipped_cards_read_and_are_of_other_seeds_than_the_plan() -> None:
    cards = shipped()
    assert {card.of for card in cards} >= {"occupation-pronoun", "trigger", "exposure", "integrated-gradients", "probing"}
    assert "seed=0" in read_plan("town").model
    for card in cards:
        assert card.n > 0
        assert all(math.isfinite(rate) for rate in card.rates.values())
        if not card.exam:
            assert "seeds 1, 2, 3" in card.conditions
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        assert dump(parsed(text, file.name)) == text, "writing again gives the bytes"


def test_a_card_of_an_exam_is_whole_and_within_its_floor() -> None:
    found = [card for card in shipped() if card.exam]
    assert found
    assert len({(card.exam, card.family, card.of) for card in found}) == len(found)
    for card in found:
        exam: Exam = EXAMS.load(card.exam)
        assert card.conditions == conditions(exam, card.family, exam.grid, card.of), "measured on the exam's full grid"
        assert exam.under_floor(card.of, card.rates, exam.grid) == ""
        assert len(card.code) == 64
        assert [dose for dose, _, _ in card.curve] == [0.0, *exam.grid.doses]
        assert card.n == len(exam.grid.clean_seeds) * exam.grid.clean_sets + len(exam.grid.seeds) * len(exam.grid.doses) * exam.grid.sets
        within = card.limit_interval
        assert (card.limit_of_detection is None) == (within is None)
        assert within is None or card.limit_of_detection is None or within.low <= card.limit_of_detection <= within.high


def test_the_atlas_in_the_docs_is_that_of_the_shipped_cards() -> None:
    written = (Path(__file__).parents[2] / "docs" / "calibration.md").read_text(encoding="utf-8")
    plain = page(shipped()).replace(" (stale)", "")
    assert plain in written.replace(" (stale)", ""), "write it anew: `python benchmarks/atlas.py`"


LONG = {"repeats", "refusals", "over-refusals", "abilities", "continuations"}
"""Exams of which one card takes over five processor minutes, most of them training or judging:
`workbench calibrate NAME --exam EXAM --again` measures these again."""


def drawn() -> list[str]:
    """Three of the other exams that have cards, drawn by what their files hold: each is measured again sooner or later."""
    held = {file.stem: zlib.crc32(file.read_bytes()) for file in FILES if file.stem in EXAMS and file.stem not in LONG}
    return sorted(held, key=lambda exam: held[exam])[:3]


@pytest.mark.full
@pytest.mark.parametrize("exam", drawn())
def test_a_shipped_card_is_measured_again_from_nothing(exam: str, tmp_path: Path) -> None:
    """One card an exam; which one, its file's bytes say. Models are trained anew; every number is compared within what that moves."""
    (file,) = [file for file in FILES if file.name == f"{exam}.json"]
    text = file.read_text(encoding="utf-8")
    family = EXAMS.load(exam).families[0]
    own = [card for card in parsed(text, file.name) if card.family == family]
    chosen = own[zlib.crc32(text.encode()) % len(own)]
    (again,) = calibrate([chosen.of], exam=exam, families=[family], again=True, store=Store.open(tmp_path / "home")).cards
    assert disagreements(chosen, again, EXAMS.load(exam).grid) == []
