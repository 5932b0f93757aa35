"""Cards measured on workers of Ray are those of one process, and a worker that is lost loses no piece."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.lab.toy_exam import Toy, untimed
from workbench.cli.main import main
from workbench.core.errors import BadValue, Incompatible, MissingExtra
from workbench.lab import card_rays
from workbench.lab.calibrate import calibrate
from workbench.lab.card_pieces import Piece, pieces_of
from workbench.lab.every_card import cards_of, every_card
from workbench.lab.rays import cluster
from workbench.store.runs import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


class _Lost(Exception):
    pass


class _Failed(Exception):
    pass


class Played:
    """What of Ray is used, played in this process: ``lose`` is how many answers are lost, ``machines`` where its nodes are."""

    class exceptions:
        RayError, RayTaskError = Exception, _Failed

    def __init__(self, lose: int = 0, machines: tuple[str, ...] = ("a",), error: Exception | None = None) -> None:
        self.lose, self.machines, self.error, self.most, self.cancelled = lose, machines, error, 0, 0
        self.running: list[Any] = []

    def remote(self, **how: Any) -> Any:
        assert how == {"num_cpus": 1, "max_retries": 0}
        return lambda function: SimpleNamespace(remote=lambda *given: self._begin(function, given))

    def _begin(self, function: Any, given: Any) -> Any:
        self.running.append(one := Running(lambda: function(*given)))
        self.most = max(self.most, len(self.running))
        return one

    def wait(self, running: list[Any], num_returns: int, timeout: float | None = None) -> Any:
        return running[-1:], running[:-1]

    def get(self, one: Any) -> Any:
        self.running.remove(one)
        if self.error is not None:
            raise self.error
        if self.lose:
            self.lose -= 1
            raise _Lost("killed")
        return one.ask()

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeManagerAddress": one, "Alive": True} for one in self.machines]

    def cancel(self, one: Any) -> None:
        self.cancelled += 1


class Running:
    """A task that has begun."""

    def __init__(self, ask: Any) -> None:
        self.ask = ask


def played(monkeypatch: pytest.MonkeyPatch, ray: Any) -> Any:
    @contextmanager
    def joined(engine: str) -> Iterator[Any]:
        yield ray

    monkeypatch.setattr(card_rays, "joined", joined)
    monkeypatch.setattr(card_rays, "silence", lambda: None)
    return ray


@pytest.mark.slow
def test_pieces_on_workers_give_the_cards_of_one_process(store: Store, tmp_path: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = played(monkeypatch, Played(lose=2))
    heard: list[tuple[int, int]] = []
    hear = lambda at, of, words="": heard.append((at, of))  # noqa: E731
    found = cards_of(every_card(pieces_of("places"), engine="ray:2", store=store, progress=hear))
    assert (ray.lose, ray.most, ray.running, ray.cancelled) == (0, 2, [], 0)
    assert (heard[0], heard[-1]) == ((0, 2), (2, 2))
    with Store.open(tmp_path / "one") as alone:
        whole = calibrate(store=alone)
    by_name = lambda cards: sorted(untimed(cards), key=lambda card: (card.family, card.of))  # noqa: E731
    assert by_name(found.cards) == by_name(whole.cards)
    assert len(found.cards) == 4
    assert list(store.home.glob(".seen-*")) == []


def test_a_store_that_workers_do_not_share_is_refused(store: Store, tmp_path: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    played(monkeypatch, Played(machines=("a", "b")))
    with pytest.raises(Incompatible, match=r"SQLite is for the processes of one machine, and the cluster has 2.*WORKBENCH_STORE"):
        every_card(pieces_of("places"), engine="ray:2", again=True, store=store)
    assert store.runs.list() == (), "nothing is known to have been asked for"
    Store.open(tmp_path / "other").close()
    real = Store.open
    for elsewhere in ("none", "other"):  # on the worker's machine there is no such folder, or another store
        ray = played(monkeypatch, Played())
        with monkeypatch.context() as there:
            there.setattr(Store, "open", lambda address, create=True, at=elsewhere: real(tmp_path / at, create=create))
            with pytest.raises(Incompatible, match=r"a worker does not see it; it takes a database .*WORKBENCH_HOME"):
                every_card(pieces_of("places"), engine="ray:2", store=store)
        assert ray.cancelled == 2
    assert toy.asked == []
    assert not (tmp_path / "none").exists()


def test_a_worker_that_cannot_begin_says_why(store: Store, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    played(monkeypatch, Played(error=_Failed("first\nNo module named 'workbench'.")))
    with pytest.raises(Exception, match=r"1 of 1 pieces were not measured: places on gpt: a worker failed: No module named 'workbench'\."):
        every_card(pieces_of("places", families=["gpt"]), engine="ray", store=store)


def test_what_cannot_be_is_refused_before_anything_is_asked(
    store: Store, toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(BadValue, match="local, ray, or ray:N"):
        every_card(pieces_of("places"), engine="rays", again=True, store=store)
    with pytest.raises(BadValue, match=r"at most \d+, the processors of this machine"):
        every_card(pieces_of("places"), engine="ray:4096", again=True, store=store)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "ray", None)
        with pytest.raises(MissingExtra, match=r"assay-workbench\[ray\]"):
            every_card(pieces_of("places"), engine="ray", again=True, store=store)
    assert (store.runs.list(), toy.asked) == ((), [])
    assert main(["calibrate", "--model", "family:gpt", "--engine", "ray"]) == 64
    assert "--engine shares out the families of exams" in capsys.readouterr().err
    assert main(["calibrate", "--blind", "4", "--engine", "ray"]) == 64
    assert main(["calibrate", "saliency", "--engine", "ray:0"]) == 64
    assert "ray:N with the number of workers" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_gives_an_exam_to_workers(
    store: Store, toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ray = played(monkeypatch, Played())
    monkeypatch.setenv("WORKBENCH_HOME", str(store.home))
    assert main(["calibrate", "saliency", "--engine", "ray:2", "--json"]) == 0
    assert ray.most == 2
    said = capsys.readouterr().out
    assert [line.strip() for line in said.splitlines() if '"of":' in line] == ['"of": "saliency",'] * 2
    assert main(["calibrate", "saliency"]) == 0, "what was said of one call is not said of the next"
    assert capsys.readouterr().out == "saliency on bert: its card is current\nsaliency on gpt: its card is current\n"


# --- real processes ---------------------------------------------------------------------------------------------


@pytest.mark.full
def test_real_workers_measure_the_same_and_one_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    if find_spec("ray") is None:  # not imported yet: what is imported before the cluster begins decides where it listens
        pytest.skip("Ray is not installed; pip install 'assay-workbench[ray]'")
    good = Piece("places", "gpt", ("saliency",))
    with Store.open(tmp_path / "one") as store:
        alone = calibrate(good.tools, exam=good.exam, families=[good.family], grid="quick", store=store)
    killed: list[int] = []

    def kill() -> None:
        """The worker that measures, as soon as one of its answers is kept."""
        until = time.monotonic() + 300
        with Store.open(tmp_path / "several") as other:
            while not killed and time.monotonic() < until:
                for run in other.runs.list(kind="calibrate", status="running"):
                    if other.sample_counts(run.id):
                        killed.append(other.runs.owner(run.id)["pid"])
                        os.kill(killed[0], signal.SIGKILL)
                time.sleep(0.01)

    with Store.open(tmp_path / "several") as store, cluster():
        killer = threading.Thread(target=kill)
        killer.start()
        found = cards_of(every_card([good], engine="ray:2", grid="quick", store=store))
        killer.join()
        assert killed
        assert killed[0] != os.getpid()
        assert [(run.id, run.status) for run in store.runs.list(kind="calibrate")] == [(found.run, "done")], "its rows were gone on with"
    assert untimed(found.cards) == untimed(alone.cards)
