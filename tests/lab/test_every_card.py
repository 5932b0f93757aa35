"""All cards of a standing in one command: what it takes in, and that processes side by side find what one finds."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from evals import SUITES
from probes import INSTRUMENTS
from workbench.calibration.exams import EXAMS
from workbench.calibration.exams.places import EXAM as PLACES
from workbench.cli.main import main
from workbench.core.errors import AssayError
from workbench.lab import every_card as every
from workbench.lab.calibrate import calibrate
from workbench.lab.every_card import Piece, cards_of, every_card, pieces
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


@pytest.mark.full
def test_processes_side_by_side_find_what_one_finds_and_a_failed_piece_loses_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Piece("places", "gpt", ("saliency",))
    with Store.open(tmp_path / "several") as store:
        heard: list[tuple[int, int]] = []
        monkeypatch.setattr(every, "pieces", lambda standing: (Piece("places", "bert", ("nothing",)), good))
        with pytest.raises(AssayError, match=r"1 of 2 pieces were not measured: places on bert: .*nothing"):
            every_card("headline", grid="quick", processes=2, store=store, progress=lambda at, of, words="": heard.append((at, of)))
        assert heard[-1] == (4, 4)  # two clean twins and two planted models
        (run,) = store.runs.list(kind="calibrate")
        assert run.status == "done"
        monkeypatch.setattr(every, "pieces", lambda standing: (good,))

        def stopping(at: int, of: int, words: str = "") -> None:
            raise KeyboardInterrupt

        with pytest.raises(Interrupted, match="Go on with the same command"):
            every_card("headline", grid="quick", processes=2, store=store, progress=stopping)
        killed: list[int] = []

        def killing(at: int, of: int, words: str = "") -> None:
            for child in psutil.Process().children() if at >= 1 and not killed else ():
                if "spawn_main" in " ".join(child.cmdline()):
                    child.kill()
                    killed.append(child.pid)

        found = cards_of(every_card("headline", grid="quick", processes=2, store=store, progress=killing))
        assert killed
    with Store.open(tmp_path / "one") as store:
        alone = calibrate(good.tools, exam=good.exam, families=[good.family], grid="quick", store=store)
    assert [card.model_copy(update={"seconds_an_item": None}) for card in found.cards] == [
        card.model_copy(update={"seconds_an_item": None}) for card in alone.cards
    ]
