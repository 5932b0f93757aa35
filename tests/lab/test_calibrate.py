"""Calibration through the store: a tool that is right is told from one that is not, an interrupted call goes on, current cards stay."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from evals import SUITES
from probes import INSTRUMENTS
from workbench.calibration.cards import card_for, measured
from workbench.calibration.exam import Reading, Row
from workbench.cli.main import main
from workbench.core.errors import UnknownName
from workbench.core.finding import Card
from workbench.lab import calibrate as lab
from workbench.lab.calibrate import calibrate
from workbench.lab.recompute import recompute
from workbench.lab.record import Interrupted
from workbench.lab.refs import domain_of, world_of
from workbench.lab.run import probe
from workbench.store.runs import Store

SMALL: dict[str, Any] = {"doses": [0.5, 1.0], "seeds": [0], "clean_seeds": [100, 101], "clean_sets": 4}


@pytest.mark.full
def test_a_call_that_is_stopped_goes_on_and_ends_in_the_same_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_path / "home")
    real, count = lab.EXAMS.load("places").read, 0

    def stopping(*given: Any) -> Any:
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return real(*given)

    exam = lab.EXAMS.load("places")
    broken = type(exam)(**{**vars(exam), "read": stopping})
    monkeypatch.setattr(lab.EXAMS, "load", lambda name: broken)
    with pytest.raises(Interrupted, match="Go on with the same command, without `--again` if that was said"):
        calibrate(["saliency"], families=["gpt"], grid="quick", store=store)
    (run,) = store.runs.list(kind="calibrate")
    assert store.sample_counts(run.id) == {"places": 3}
    done = calibrate(["saliency"], families=["gpt"], grid="quick", store=store)
    assert done.run == run.id
    assert count == 5  # the four models there are, one of them asked twice
    whole = calibrate(["saliency"], families=["gpt"], grid="quick", store=store, resume="")
    strip = lambda card: card.model_copy(update={"seconds_an_item": None})  # noqa: E731
    assert [strip(c) for c in whole.cards] == [strip(c) for c in done.cards]
    (card,) = done.cards
    assert (card.of, card.family, card.domain, card.exam) == ("saliency", "gpt", "marks", "places")
    assert card.rates["planted part first, dose 1"] > 0.9
    assert measured(store.home) == (), "a quick card is not kept"


@pytest.mark.full
def test_a_card_does_not_depend_on_how_many_threads_there_are(tmp_path: Path) -> None:
    def measured_with(threads: int) -> Card:
        torch.set_num_threads(threads)
        (card,) = calibrate(["saliency"], families=["gpt"], grid=SMALL, store=Store.open(tmp_path / f"home-{threads}")).cards
        assert torch.get_num_threads() == threads
        return card.model_copy(update={"seconds_an_item": None})

    before = torch.get_num_threads()
    try:
        assert measured_with(1) == measured_with(2)
    finally:
        torch.set_num_threads(before)


@pytest.mark.full
def test_a_current_card_is_left_alone_and_a_stale_one_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_path / "home")
    exam = lab.EXAMS.load("places")
    small = type(exam)(**{**vars(exam), "grid": exam.quick})
    monkeypatch.setattr(lab.EXAMS, "load", lambda name: small)
    first = calibrate(["saliency"], families=["gpt"], store=store)
    assert [card.of for card in first.cards] == ["saliency"]
    assert measured(store.home) == first.cards
    again = calibrate(["saliency"], families=["gpt"], store=store)
    assert (again.cards, again.current) == ((), (("gpt", "saliency"),))
    digest = lab.code_digest
    monkeypatch.setattr("workbench.calibration.cards.code_digest", lambda tool: "1" * 64)
    monkeypatch.setattr(lab, "code_digest", lambda tool: "1" * 64)
    profile = {"family": "gpt", "norm_placement": "pre", "domain": "marks", "parameters": 13_000, "model": ""}
    card, words = card_for("saliency", profile, first.cards)
    assert card is not None
    assert "stale" in words
    anew = calibrate(["saliency"], families=["gpt"], store=store)
    assert [card.code for card in anew.cards] == ["1" * 64]
    assert anew.cards[0].rates == first.cards[0].rates
    assert digest("saliency") == first.cards[0].code


def test_a_card_about_one_model_says_in_its_file_which(tmp_path: Path) -> None:
    store, exam = Store.open(tmp_path / "home"), lab.EXAMS.load("places")
    rows = [Row(dose, seed, dose, (Reading(dose, dose > 0),) * 4) for seed in range(5) for dose in (0.0, *exam.grid.doses)]
    scope = {"family": "gpt", "norm_placement": "pre", "domain": "text", "parameters": 13_000}
    found: Any = ({("gpt", "saliency"): rows}, {"gpt": scope})
    run = store.runs.create("calibrate", {}, "")
    (general,) = lab.kept(exam, exam.grid, found, run, store=store, stem="places")
    (card,) = lab.kept(exam, exam.grid, found, run, store=store, stem="spike-a", about="a" * 64)
    assert (general.about, card.about) == ("", "a" * 64)
    assert card == general.model_copy(update={"provenance": {**general.provenance, "model": "a" * 64}})
    assert measured(store.home) == (general, card)
    assert card_for("saliency", {**scope, "model": "a" * 64}, measured(store.home))[0] == card
    assert card_for("saliency", {**scope, "model": "b" * 64}, measured(store.home))[0] == general


def test_what_is_not_there_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "home")
    with pytest.raises(UnknownName, match="no exam 'place'"):
        calibrate(exam="place", store=store)
    with pytest.raises(UnknownName, match="no family of the exam 'gtp'"):
        calibrate(families=["gtp"], store=store)
    with pytest.raises(UnknownName, match="no tool of the exam 'salience'.*saliency"):
        calibrate(["salience"], store=store)
    with pytest.raises(Exception, match="sets"):
        calibrate(["saliency"], families=["gpt"], grid={"sets": 0}, store=store)
    assert store.runs.list() == ()


def test_the_command_lists_exams_and_cards(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in document["exams"]] == list(lab.EXAMS)
    assert {card["of"] for card in document["cards"]} >= {"trigger", "exposure"}
    there, missing = {card["of"] for card in document["cards"]}, document["uncarded"]
    assert {one["name"]: (one["kind"], one["status"]) for one in missing} == {
        name: (catalog.kind, catalog[name].status)
        for catalog in (INSTRUMENTS, SUITES) for name in catalog if name not in there and catalog[name].status != "experimental"
    }  # fmt: skip
    assert main(["calibrate", "--list"]) == 0
    said = capsys.readouterr().out
    assert "limit of detection" in said
    left = said[said.index(f"{lab.UNCARDED}. {lab.NOT_SAID}") :]
    assert missing
    assert all(one["name"] in left for one in missing)
    assert main(["calibrate", "saliencey"]) == 64
    assert "saliency" in capsys.readouterr().err


@pytest.mark.slow
def test_an_organism_is_asked_its_own_question_and_its_card_stands_beside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store.open(tmp_path / "home")
    for name, ref in (
        ("integrated-gradients", "organism:shortcut-vit@dose=1,seed=0"),
        ("attention-pattern", "organism:shortcut-vit@dose=1,seed=0"),
        ("activation-patching", "organism:planted-head@dose=2,seed=0"),
        ("concept-direction", "organism:planted-direction@dose=2,seed=0"),
    ):
        found = probe(name, ref, store=store)
        run = found.provenance.volatile["run"]
        assert found.provenance.volatile["card"].startswith("calibrated: exam"), name
        assert recompute(run, name, store=store).same, name
    assert domain_of("organism:shortcut-vit@dose=1,seed=0") == "marks"
    assert domain_of("organism:planted-head@dose=2,seed=0") == "marks passed on"
    assert domain_of("organism:town") == "town"
    assert (world_of("organism:shortcut-gpt"), world_of("organism:planted-head")) == (None, None), "these are no towns"
    assert main(["probe", "saliency", "--model", "organism:shortcut-gpt@dose=1,seed=0"]) == 0
    assert "calibrated: exam places" in capsys.readouterr().out
    found = probe("composition-scores", "family:gpt", store=store)
    assert found.provenance.volatile["card"] == "not calibrated here: no card was measured for composition-scores"
