"""All cards of a standing in one command: what it takes in, and that processes side by side find what one finds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from evals import SUITES
from probes import INSTRUMENTS
from tests.lab.toy_exam import GRID, TOOLS, Stopped, Toy, untimed
from workbench.calibration.exams import EXAMS
from workbench.calibration.exams.places import EXAM as PLACES
from workbench.cli.main import main
from workbench.core.errors import AssayError, UnknownName
from workbench.lab import every_card as every
from workbench.lab.calibrate import calibrate
from workbench.lab.card_pieces import Piece, carried_out, pieces, pieces_of
from workbench.lab.every_card import cards_of, every_card
from workbench.lab.rays import TRIES
from workbench.lab.record import Interrupted
from workbench.store.runs import Store


def test_a_standing_takes_in_whatever_some_exam_asks_of_its_entries() -> None:
    headline, standard = ({(p.exam, p.family, tool) for p in pieces(name) for tool in p.tools} for name in ("headline", "standard"))
    assert headline < standard
    assert {("places", family, "integrated-gradients") for family in PLACES.families} <= headline
    status = {name: catalog[name].status for catalog in (INSTRUMENTS, SUITES) for name in catalog}
    assert {status[tool] for _, _, tool in headline} == {"headline"}
    everything = {(exam, f, t) for exam in EXAMS for f in EXAMS.load(exam).families for t in EXAMS.load(exam).tools(f)}
    assert {status[tool] for _, _, tool in everything - standard} <= {"experimental"}


def test_a_standing_takes_no_names_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "saliency", "--exam", "headline"]) == 64
    assert "takes every entry from that standing up" in capsys.readouterr().err


def test_an_exam_is_shared_out_by_families() -> None:
    assert pieces_of("places", ["explanation-quality", "saliency"], ["vit", "clip"]) == (
        Piece("places", "vit", ("saliency", "explanation-quality")), Piece("places", "clip", ("saliency",)),
    )  # fmt: skip
    assert {(p.family, tool) for p in pieces_of("places") for tool in p.tools} == {(f, t) for f in PLACES.families for t in PLACES.tools(f)}
    with pytest.raises(UnknownName, match="no family of the exam 'gtp'"):
        pieces_of("places", families=["gtp"])


# --- anew, without processes --------------------------------------------------------------------------------------


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces are measured by this process, in their order; one that is interrupted ends the call."""

    def here(todo: Sequence[Piece], count: int, address: str, grid: Any, progress: Any) -> Iterator[Any]:
        for piece in todo:
            if (found := carried_out(piece, grid, address)) == "it was interrupted.":
                raise KeyboardInterrupt
            yield piece, found

    monkeypatch.setattr(every, "_by_pool", here)


@pytest.mark.slow
@pytest.mark.usefixtures("one_by_one")
def test_what_was_asked_for_anew_and_had_not_begun_is_gone_on_with_too(tmp_path: Path, toy: Toy) -> None:
    both = pieces_of("places")
    with Store.open(tmp_path / "home") as store:
        first = cards_of(every_card(both, store=store))
        assert len(first.cards) == 4
        whole = len(toy.asked)
        toy.before = Stopped(whole + 5)
        with pytest.raises(Interrupted) as stop:
            every_card(both, again=True, store=store)
        assert str(stop.value) == "Interrupted. What was finished is kept. Go on with the same command without `--again`."
        assert cards_of(every_card(both[1:], store=store)).current == (), "of this one no question had been asked"
        anew = cards_of(every_card(both, store=store))
        assert anew.current == (("gpt", "occlusion"), ("gpt", "saliency"))
        assert len(toy.asked) == 2 * whole
        assert cards_of(every_card(both, store=store)).cards == ()
        assert {run.status for run in store.runs.list()} == {"done"}
        assert untimed(anew.cards) == untimed(first.cards)[:2]


@pytest.mark.slow
def test_a_piece_that_is_lost_is_measured_by_another_process_and_goes_on_where_it_was(
    tmp_path: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, deaths = list[int](), TRIES - 1

    def losing(todo: Sequence[Piece], count: int, address: str, grid: Any, progress: Any) -> Iterator[Any]:
        for piece in todo:
            toy.before = Stopped(len(toy.asked) + 5 if len(ended) < deaths else -1)
            found = carried_out(piece, grid, address)
            ended.extend([1] if isinstance(found, str) else [])
            yield piece, None if isinstance(found, str) else found

    monkeypatch.setattr(every, "_by_pool", losing)
    with Store.open(tmp_path / "home") as store:
        for again in (False, True):
            ended.clear()
            before = len(toy.asked)
            assert len(cards_of(every_card(pieces_of("places", families=["gpt"]), again=again, store=store)).cards) == 2
            assert (len(ended), len(toy.asked) - before) == (deaths, len(GRID.models()) * len(TOOLS))
        deaths = 2 * TRIES
        with pytest.raises(AssayError, match=rf"^1 of 1 pieces were not measured: places on bert: its process ended {TRIES} times"):
            every_card(pieces_of("places", families=["bert"]), store=store)


@pytest.mark.full
def test_processes_side_by_side_find_what_one_finds_and_a_failed_piece_loses_no_other(tmp_path: Path) -> None:
    good = Piece("places", "gpt", ("saliency",))
    with Store.open(tmp_path / "several") as store:
        heard: list[tuple[int, int]] = []
        hear = lambda at, of, words="": heard.append((at, of))  # noqa: E731
        with pytest.raises(AssayError, match=r"1 of 2 pieces were not measured: places on bert: .*nothing"):
            every_card((Piece("places", "bert", ("nothing",)), good), grid="quick", processes=2, store=store, progress=hear)
        assert heard[-1] == (4, 4)  # two clean twins and two planted models
        (run,) = store.runs.list(kind="calibrate")
        assert run.status == "done"

        def stopping(at: int, of: int, words: str = "") -> None:
            raise KeyboardInterrupt

        with pytest.raises(Interrupted, match="Go on with the same command"):
            every_card([good], grid="quick", processes=2, store=store, progress=stopping)
        killed: list[int] = []

        def killing(at: int, of: int, words: str = "") -> None:
            for child in psutil.Process().children() if at >= 1 and not killed else ():
                if "spawn_main" in " ".join(child.cmdline()):
                    child.kill()
                    killed.append(child.pid)

        found = cards_of(every_card([good], grid="quick", processes=2, store=store, progress=killing))
        assert killed
    with Store.open(tmp_path / "one") as store:
        alone = calibrate(good.tools, exam=good.exam, families=[good.family], grid="quick", store=store)
    assert untimed(found.cards) == untimed(alone.cards)
