"""Worker processes give the numbers of one process to the bit, and a worker that is killed loses nothing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.engine.models import lettered
from workbench.core.errors import AssayError, BadValue, Incompatible, MissingExtra
from workbench.lab import rays as spreading
from workbench.lab.rays import TRIES, Rays, cluster, parse, rays
from workbench.lab.run import evaluate
from workbench.store.runs import Store

SUITE = "occupation-pronoun"
FIELDS: dict[str, Any] = {"contexts": 4}


def test_what_an_engine_may_be() -> None:
    assert [parse(one) for one in ("local", "ray", "ray:7")] == [0, 2, 7]
    for odd in ("", "rays", "ray:", "ray:0", "ray:-1", "ray:x", "local:2"):
        with pytest.raises(BadValue, match="local, ray, or ray:N"):
            parse(odd)


def test_a_model_that_workers_cannot_load_and_too_many_workers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with Store.open(tmp_path) as store:
        with pytest.raises(Incompatible, match="a model in memory"), rays("ray", "memory:abc", lettered(), store):
            pass
        with rays("local", "memory:abc", lettered(), store) as none:
            assert none is None
        with pytest.raises(BadValue, match=r"at most \d+, the processors of this machine"), rays("ray:4096", "m", lettered(), store):
            pass


def test_without_ray_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with Store.open(tmp_path) as store, pytest.raises(MissingExtra, match=r"assay-workbench\[ray\]"), rays("ray", "m", lettered(), store):
        pass


# --- the way of a chunk, without processes ----------------------------------------------------------------------


class _Died(Exception):
    pass


class _Failed(Exception):
    pass


class Played:
    """What of Ray is used, played in this process: ``deaths`` counts how often each chunk (by its first sample) ends its worker."""

    class exceptions:
        RayError, RayActorError, RayTaskError = Exception, _Died, _Failed

    def __init__(self, deaths: dict[int, int] | None = None, error: Any = None) -> None:
        self.deaths, self.error, self.begun, self.killed = dict(deaths or {}), error, 0, 0

    def remote(self, **_: Any) -> Any:
        return lambda kind: type("Made", (), {"remote": staticmethod(self._begin)})

    def _begin(self, *_: Any) -> Any:
        self.begun += 1
        method = type("Method", (), {"remote": staticmethod(lambda name, spec, chunk: (self.begun, tuple(chunk)))})
        return type("Worker", (), {"answers": method})

    def wait(self, running: list[Any], num_returns: int) -> Any:
        return running[-1:], running[:-1]  # the last that was asked is the first that is ready

    def get(self, ready: Any) -> Any:
        if self.error is not None:
            if isinstance(self.error, str):
                return self.error
            raise self.error
        if self.deaths.get(ready[1][0], 0):
            self.deaths[ready[1][0]] -= 1
            raise _Died("killed")
        return list(ready[1])

    def kill(self, worker: Any) -> None:
        self.killed += 1


class _Named:
    name = "named"

    @staticmethod
    def model_dump(mode: str) -> dict[str, Any]:
        return {}


CHUNKS: Any = [[n, n + 1] for n in range(0, 12, 2)]


@pytest.mark.parametrize("deaths", [{}, {4: 1}, {0: 2, 6: 1, 10: 2}])
def test_every_chunk_comes_back_once_whoever_dies(deaths: dict[int, int]) -> None:
    played: Any = Played(deaths)
    made = Rays(played, 2, ())
    named: Any = _Named
    found = list(made(named, named, CHUNKS))
    assert sorted(found) == sorted(CHUNKS)
    assert (made.lost, played.begun) == (sum(deaths.values()), 2 + sum(deaths.values()))
    made.close()
    assert played.killed == 2, "only living workers are ended"


def test_a_chunk_that_ends_every_worker_ends_the_run() -> None:
    named: Any = _Named
    played: Any = Played({4: TRIES})
    with pytest.raises(AssayError, match=f"The same samples ended {TRIES} workers, the last so: killed"):
        list(Rays(played, 2, ())(named, named, CHUNKS))


def test_what_a_worker_raises_is_raised_here() -> None:
    named: Any = _Named
    for error, said in (("x is 1, but it must be 2.", "^x is 1, but it must be 2.$"), (_Failed("first\nlast."), "A worker failed: last.$")):
        played: Any = Played(error=error)
        with pytest.raises(AssayError, match=said):
            list(Rays(played, 1, ())(named, named, CHUNKS))


# --- real processes ---------------------------------------------------------------------------------------------


@pytest.mark.full
def test_two_processes_give_the_bits_of_one_and_a_killed_one_loses_nothing(
    store: Store, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("ray") is None:  # not imported yet: what is imported before the cluster begins decides where it listens
        pytest.skip("Ray is not installed; pip install 'assay-workbench[ray]'")
    whole = evaluate(SUITE, trained, store=store, batch=4, **FIELDS)
    victims: list[int] = []

    class Shot(Rays):
        """Both of the first workers are killed, at two moments."""

        def __call__(self, *asked: Any) -> Iterator[Any]:
            victims.extend(self.pids())
            for number, found in enumerate(super().__call__(*asked)):
                if number in (1, 3):
                    os.kill(victims[number // 2], signal.SIGKILL)
                yield found

    with cluster() as ray:
        assert {node["NodeManagerAddress"] for node in ray.nodes()} == {"127.0.0.1"}, "no other machine can reach it"
        spread = evaluate(SUITE, trained, store=store, batch=4, engine="ray:2", **FIELDS)
        monkeypatch.setattr(spreading, "Rays", Shot)
        shot = evaluate(SUITE, trained, store=store, batch=4, engine="ray:2", **FIELDS)
    assert len(set(victims)) == 2
    for run, lost in ((spread, 0), (shot, 2)):
        assert run.results[SUITE].canonical() == whole.results[SUITE].canonical()
        assert store.sink(run.run, SUITE).read() == store.sink(whole.run, SUITE).read()
        assert [one.details for one in store.events(run.run) if one.name == "spread"] == [{"engine": "ray:2", "lost": lost}]
