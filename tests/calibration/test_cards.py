"""Cards apply where they were measured and nowhere else; the shipped ones are read and are not about the shipped plan's seed."""

import itertools
import math
import zlib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from evals import SUITES
from probes import INSTRUMENTS
from workbench.calibration.agreement import disagreements
from workbench.calibration.atlas import NOT_SAID, UNCARDED, page, rows_of, uncarded, uncarded_words
from workbench.calibration.cards import FOLDER, NONE, card_for, dump, measured, parsed, profile_of, scope_of, shipped
from workbench.calibration.exam import Exam
from workbench.calibration.exams import EXAMS
from workbench.calibration.scoring import conditions
from workbench.core.catalog import STANDINGS
from workbench.core.finding import Card
from workbench.families.gpt import GPT
from workbench.lab.calibrate import calibrate
from workbench.lab.plan import read_plan
from workbench.organisms import ORGANISMS
from workbench.store.runs import Store

FILES = sorted(Path(str(resources.files("workbench.calibration") / "shipped")).glob("*.json"))
PROFILE = {"family": "gpt", "norm_placement": "pre", "domain": "town", "parameters": 700_000}
DIGEST = "a" * 64
HERE = {**PROFILE, "model": DIGEST}
CARD = Card.parse({"of": "trigger", **PROFILE, "conditions": "dose 0.8, seeds 1, 2, 3", "rates": {"hit": 1.0}, "n": 600})


def test_a_card_stands_only_where_it_applies() -> None:
    assert card_for("trigger", HERE, [CARD]) == (CARD, "calibrated: dose 0.8, seeds 1, 2, 3")
    card, words = card_for("trigger", {**HERE, "domain": "web text"}, [CARD])
    assert card is None
    assert words.startswith(NONE)
    assert "input domain is web text" in words
    assert card_for("exposure", HERE, [CARD]) == (None, f"{NONE}: no card was measured for exposure")


def test_the_profile_of_a_model() -> None:
    model, _ = GPT.tiny()
    scope = {"family": "gpt", "norm_placement": "pre", "domain": "town", "parameters": sum(p.numel() for p in model.parameters())}
    assert scope_of(model, "town") == scope
    assert profile_of(model, "town") == {**scope, "model": model.digest()}


def spiked(model: Any, *, exam: str = "spike") -> Card:
    """A made-up card of ``trigger`` about this model."""
    fields = {"of": "trigger", **scope_of(model, "town"), "conditions": f"exam {exam} on m", "exam": exam, "rates": {"hit": 0.5}, "n": 9}
    return Card.parse({**fields, "provenance": {"model": model.digest()}})


def test_a_card_stands_beside_the_model_it_was_spiked_into_and_beside_no_other() -> None:
    one, two, third = (GPT.tiny(seed=seed)[0] for seed in (0, 1, 2))
    general = Card.parse({**CARD.model_dump(), **scope_of(one, "town")})
    cards = [general, spiked(one), spiked(two)]
    for given in (cards, cards[::-1]):
        assert card_for("trigger", profile_of(one, "town"), given) == (spiked(one), "calibrated: exam spike on m")
        assert card_for("trigger", profile_of(two, "town"), given) == (spiked(two), "calibrated: exam spike on m")
        assert card_for("trigger", profile_of(third, "town"), given) == (general, f"calibrated: {general.conditions}")
    alone = f"{NONE}: the card is about the model {one.digest()[:12]} alone, and this is the model {two.digest()[:12]}"
    assert card_for("trigger", profile_of(two, "town"), [spiked(one)]) == (None, alone)
    elsewhere = f"{NONE}: input domain is web, the card's is town"
    assert card_for("trigger", profile_of(third, "web"), cards) == (None, elsewhere), "of reasons that count the same, the general card's"


def test_an_old_card_of_a_spike_stands_beside_no_model_and_says_what_to_do() -> None:
    model, _ = GPT.tiny()
    old = spiked(model).model_copy(update={"provenance": {}})
    card, words = card_for("trigger", profile_of(model, "town"), [old])
    assert card is None
    assert words.startswith(f"{NONE}: the card is about one model alone")
    assert "run `workbench calibrate --model REF` again" in words
    general = Card.parse({**CARD.model_dump(), **scope_of(model, "town")})
    assert card_for("trigger", profile_of(model, "town"), [old, general])[0] == general


def test_a_card_of_a_home_has_its_input_domain_by_the_name_of_now(tmp_path: Path) -> None:
    """Cards of before call the inputs of ``heads`` as ``places`` calls its own, and would stand beside the other's models."""
    fields = {"of": "value-norms", **PROFILE, "domain": "marks", "conditions": "c"}
    old, other = (Card.parse({**fields, "exam": exam}) for exam in ("heads", "places"))
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "cards.json").write_text(dump([old, other]))
    assert measured(tmp_path) == (old.model_copy(update={"domain": EXAMS.load("heads").domain}), other)


def fitting(one: Card, other: Card) -> bool:
    """Whether some model has both cards beside it: no two of one tool may."""
    about = lambda card: {name: getattr(card, name) for name in PROFILE} | {"model": card.about}  # noqa: E731
    return one.of == other.of and not (one.objections(**about(other)) and other.objections(**about(one)))


def test_no_two_shipped_cards_of_a_tool_fit_one_model() -> None:
    pairs = list(itertools.combinations(shipped(), 2))
    assert [(one.of, one.exam, other.exam) for one, other in pairs if fitting(one, other)] == []
    assert not any(card.of_one_model for card in shipped()), "what is shipped is about no one model"
    collided = [card.model_copy(update={"domain": "marks"}) if card.exam == "heads" else card for card in shipped()]
    caught = [(one.of, one.exam, other.exam) for one, other in itertools.combinations(collided, 2) if fitting(one, other)]
    assert caught == [("value-norms", "heads", "places")], "as it was"


def test_a_card_of_an_exam_has_the_exams_input_domain() -> None:
    found = [card for card in shipped() if card.exam]
    assert [(card.of, card.exam, card.domain) for card in found if card.domain != EXAMS.load(card.exam).domain] == []


def test_no_two_exams_ask_a_tool_about_the_same_inputs() -> None:
    """Also of what has no shipped card yet."""
    asked: dict[tuple[str, str, str], list[str]] = {}
    for name in EXAMS:
        exam: Exam = EXAMS.load(name)
        for family in exam.families:
            for tool in exam.tools(family):
                asked.setdefault((tool, family, exam.domain), []).append(name)
    assert {key: names for key, names in asked.items() if len(names) > 1} == {}


def test_the_value_norms_of_a_shortcut_stand_beside_the_card_of_places() -> None:
    scope = {"family": "gpt", "norm_placement": "pre", "parameters": 20_000, "model": DIGEST}
    for organism, exam in (("shortcut-gpt", "places"), ("planted-head", "heads")):
        card, _ = card_for("value-norms", {**scope, "domain": ORGANISMS.load(organism).domain})
        assert card is not None
        assert card.exam == exam


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


def test_what_no_card_speaks_of_is_named_with_its_status() -> None:
    missing = uncarded(shipped())
    every = {(name, catalog.kind, catalog[name].status) for catalog in (INSTRUMENTS, SUITES) for name in catalog}
    carded = {card.of for card in shipped()}
    assert set(missing) == {one for one in every if one[0] not in carded and one[2] != "experimental"}
    assert len(missing) == len(set(missing))
    nothing = uncarded([])
    assert [status for _, _, status in nothing] == sorted((status for _, _, status in nothing), key=list(STANDINGS).index)
    assert {name for name, _, _ in nothing} >= {"saliency", "trigger", *(name for name, _, _ in missing)}
    lines = uncarded_words(shipped())
    assert sorted(name for line in lines for name in line.partition(": ")[2].split(", ")) == sorted(name for name, _, _ in missing)
    assert page(shipped()).endswith("\n".join([f"### {UNCARDED}", "", NOT_SAID, "", *(f"- {line}" for line in lines), ""]))
    whole = [CARD.model_copy(update={"of": name}) for name, _, _ in nothing]
    assert (uncarded(whole), uncarded_words(whole)) == ([], [])
    assert UNCARDED not in page([card.model_copy(update={"exam": "places"}) for card in whole])


def test_a_card_about_one_model_is_called_so() -> None:
    model, _ = GPT.tiny()
    rows, _ = rows_of([spiked(model), CARD])
    assert [row[0] for row in rows] == [f"trigger (model {model.digest()[:12]})", "trigger"]


def test_the_atlas_in_the_docs_is_that_of_the_shipped_cards() -> None:
    written = (Path(__file__).parents[2] / "docs" / "calibration.md").read_text(encoding="utf-8")
    plain = page(shipped()).replace(" (stale)", "")
    assert plain in written.replace(" (stale)", ""), "write it anew: `python benchmarks/atlas.py`"


LONG = {"repeats", "refusals", "over-refusals", "abilities", "continuations", "rows", "decisions", "suites"}
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
