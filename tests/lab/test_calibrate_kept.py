"""What a calibration leaves behind: rows of one code, cards that are whole, and nothing measured twice."""

from __future__ import annotations

import multiprocessing
import os
import platform
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from tests.lab.toy_exam import GRID, TOOLS, Stopped, Toy, untimed
from workbench.calibration.agreement import disagreements
from workbench.calibration.cards import is_stale, measured
from workbench.cli.main import main
from workbench.core import whole_file
from workbench.core.errors import CorruptFile
from workbench.lab import calibrate as lab
from workbench.lab.calibrate import calibrate
from workbench.lab.record import Interrupted, recorded
from workbench.store.runs import Store

ALL = len(GRID.models()) * len(TOOLS)
"""Questions of a family."""


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store.open(tmp_path / "home") as opened:
        yield opened


def interrupted(toy: Toy, at: int, **asked: Any) -> str:
    """The words of a call that is stopped at its ``at``-th question."""
    toy.before = Stopped(len(toy.asked) + at)
    with pytest.raises(Interrupted) as stop:
        calibrate(families=["gpt"], **asked)
    return str(stop.value)


@pytest.mark.slow
@pytest.mark.parametrize("other", ["exam_digest", "torch"])
def test_an_interrupted_run_of_other_code_is_not_gone_on_with(store: Store, toy: Toy, monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    interrupted(toy, 5, store=store)
    if other == "torch":
        real = lab.Provenance.here()
        changed = type(real)(**{**vars(real), "packages": {**real.packages, "torch": "0.1"}})
        monkeypatch.setattr(lab.Provenance, "here", lambda: changed)
    else:
        monkeypatch.setattr(lab, "exam_digest", lambda exam: "1" * 64)
    before = len(toy.asked)
    done = calibrate(families=["gpt"], store=store)
    assert len(toy.asked) - before == ALL, "every question was asked anew"
    assert [run.status for run in store.runs.list()] == ["done", "interrupted"]
    facts = done.cards[0].provenance
    assert (facts["exam code"] == "1" * 64, facts["torch"] == "0.1") == (other == "exam_digest", other == "torch")


@pytest.mark.slow
def test_an_interrupted_run_of_the_same_code_is_gone_on_with(store: Store, toy: Toy) -> None:
    assert interrupted(toy, 5, store=store) == (
        "Interrupted; what was finished is kept. Go on with the same command, without `--again` if that was said."
    )
    done = calibrate(families=["gpt"], store=store)
    assert len(toy.asked) == ALL
    assert [run.id for run in store.runs.list()] == [done.run]


@pytest.mark.slow
def test_anew_is_from_the_beginning_and_is_gone_on_with_without_saying_so_again(store: Store, toy: Toy) -> None:
    interrupted(toy, 5, store=store)
    interrupted(toy, 7, store=store, again=True)
    assert len(toy.asked) == 5 + 7, "nothing of the first call was used"
    done = calibrate(families=["gpt"], store=store)
    assert len(toy.asked) == 5 + ALL
    assert {run.id: run.status for run in store.runs.list()}[done.run] == "done"
    assert calibrate(families=["gpt"], store=store).current == (("gpt", "occlusion"), ("gpt", "saliency")), "the first call is past"
    interrupted(toy, 3, store=store, again=True)
    current = len(toy.asked)
    assert calibrate(["saliency"], families=["gpt"], store=store).cards == (), "of another call nothing is known"
    assert untimed(calibrate(families=["gpt"], store=store).cards) == untimed(done.cards)
    assert len(toy.asked) == current + ALL - 3


def test_runs_say_how_their_own_command_goes_on(store: Store) -> None:
    said = {}
    for kind in ("eval", "calibrate", "trend"):
        with pytest.raises(Interrupted) as stop, recorded(store, kind, {}, "x", provenance={}) as run:
            raise KeyboardInterrupt
        said[kind] = str(stop.value).removeprefix("Interrupted; what was finished is kept. ").replace(run, "RUN")
    assert said == {
        "eval": "Go on with the same command and `--resume RUN`.",
        "calibrate": "Go on with the same command, without `--again` if that was said.",
        "trend": "The same command begins anew.",
    }


def test_a_card_says_of_what_it_was_made_and_is_not_judged_by_it(store: Store, toy: Toy) -> None:
    (card,) = calibrate(["saliency"], families=["gpt"], store=store).cards
    assert card.provenance == {
        "exam code": lab.exam_digest(lab.EXAMS.load("places")), "torch": torch.__version__, "python": platform.python_version(),
        "assay": lab.Provenance.here().code, "machine": platform.machine(),
    }  # fmt: skip
    other = card.model_copy(update={"provenance": {"torch": "0.1", "machine": "abacus"}})
    assert disagreements(card, other, GRID) == []
    assert not is_stale(other)
    (found,) = measured(store.home)
    assert found == card


# --- files ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_card_that_cannot_be_written_leaves_the_one_there_was(store: Store, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    first = calibrate(["saliency"], families=["gpt"], store=store)

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(whole_file.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            calibrate(["saliency"], families=["gpt"], store=store, again=True)
    assert measured(store.home) == first.cards
    assert [path.name for path in (store.home / "cards").iterdir() if path.suffix != ".lock"] == ["places-gpt-saliency.json"]
    before = len(toy.asked)
    assert untimed(calibrate(["saliency"], families=["gpt"], store=store).cards) == untimed(first.cards)
    assert len(toy.asked) == before, "what was asked is kept; only the card is written"


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False])
def test_who_reads_while_cards_are_written_finds_whole_ones(store: Store, toy: Toy, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    def in_halves(place: Path, write: Callable[[BinaryIO], object]) -> None:
        held = BytesIO()
        write(held)
        place.write_bytes(held.getvalue()[: len(held.getvalue()) // 2])
        time.sleep(0.05)
        place.write_bytes(held.getvalue())

    if not whole:
        monkeypatch.setattr(lab, "write_whole", in_halves)
    calibrate(["saliency"], families=["gpt"], store=store)
    found: list[int | str] = []
    over = threading.Event()

    def reading() -> None:
        while not over.is_set():
            try:
                found.append(len(measured(store.home)))
            except CorruptFile:
                found.append("broken")

    reader = threading.Thread(target=reading)
    reader.start()
    for _ in range(3):
        calibrate(["saliency"], families=["gpt"], store=store, again=True)
    over.set()
    reader.join()
    assert set(found) == ({1} if whole else {1, "broken"})


# --- several processes ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a lock is a courtesy that this system does not have")
@pytest.mark.parametrize("in_turn", [True, False])
def test_of_two_processes_one_measures_and_the_other_finds_the_card(
    tmp_path: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch, in_turn: bool
) -> None:
    if not in_turn:
        monkeypatch.setattr(lab, "_in_turn", lambda *given: nullcontext())
    context = multiprocessing.get_context("fork")  # so that the toy is theirs too
    together, said = context.Barrier(2), context.Queue()
    toy.before = lambda number: time.sleep(0.02)

    def process() -> None:
        together.wait()
        with Store.open(tmp_path / "home") as store:
            done = calibrate(families=["gpt"], store=store)
        said.put((len(toy.asked), len(done.cards), len(done.current)))

    both = [context.Process(target=process) for _ in range(2)]
    for one in both:
        one.start()
    found = sorted(said.get(timeout=60) for _ in both)
    for one in both:
        one.join()
    assert found == ([(0, 0, 2), (ALL, 2, 0)] if in_turn else [(ALL, 2, 0), (ALL, 2, 0)])
    with Store.open(tmp_path / "home") as store:
        assert len(measured(store.home)) == 2
        assert [run.status for run in store.runs.list()] == ["done"] * (1 if in_turn else 2)


# --- the floor --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_card_under_its_exams_floor_is_kept_and_said_to_be(
    store: Store, toy: Toy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.best = 0.7
    asked = ("calibrate", "saliency", "--family", "gpt", "--json")
    words = "saliency on gpt: planted part above a silent one, dose 1 is 0.695, under the floor of 0.85"
    monkeypatch.setenv("WORKBENCH_HOME", str(store.home))
    assert main(list(asked)) == 0
    said = capsys.readouterr()
    assert f'"under_floor": [\n    "{words}"\n  ]' in said.out
    assert said.err == f"{words}; its card says so and is no recommendation.\n"
    assert len(measured(store.home)) == 1
    toy.best = 1.0
    assert main([*asked, "--again"]) == 0
    said = capsys.readouterr()
    assert '"under_floor": []' in said.out
    assert said.err == ""
