"""``--engine ray``: the chunks of an evaluation on several processes, of this machine or of a Ray cluster.

Each worker loads the model by its reference and asks whole chunks, the same that one process would ask, with as many threads as this one
has; so every number is the same to the bit, whoever asked it and in whatever order chunks come back. The store is written here alone. A
worker that dies is replaced and its chunk asked again; a chunk that ends three workers ends the run, which can be resumed.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from evals import SUITES
from evals.bound import bound
from evals.runner import Answer, answers
from workbench.core.errors import AssayError, BadValue, Incompatible, MissingExtra
from workbench.core.measure import Answering, Sample, Suite
from workbench.core.protocol import HookedModel
from workbench.core.spec import Spec
from workbench.engine.threads import processors
from workbench.lab import encoders  # noqa: F401 (makes the encoders that judges read with known to a worker)
from workbench.lab.refs import load
from workbench.lab.silence import silence
from workbench.store.runs import Store

ENGINES = ("local", "ray")
TRIES = 3
"""Workers that a chunk may end."""
WORKERS = 2
CARRIED = ("WORKBENCH_HOME", "WORKBENCH_DATA_MIRROR", "WORKBENCH_DATA_CACHE")
"""What of the environment a worker gets; no key is among it."""


def parse(engine: str) -> int:
    """The number of workers that ``engine`` asks for (``local``: 0, ``ray`` or ``ray:4``). Raises BadValue."""
    name, sign, count = engine.partition(":")
    if engine == "local":
        return 0
    if name != "ray" or (sign and not (count.isascii() and count.isdigit() and int(count))):
        raise BadValue("engine", engine, "local, ray, or ray:N with the number of workers")
    return int(count) if count else WORKERS


class Worker:
    """The half that runs in a process of its own: one model, asked chunk by chunk."""

    def __init__(self, ref: str, address: str, digest: str, threads: int, folder: str) -> None:
        silence()
        if Path(folder).is_dir():
            os.chdir(folder)  # references and task files may be relative
        torch.set_num_threads(threads)
        with Store.open(address) as store:
            self.model = load(ref, store=store)
        if self.model.digest() != digest:
            raise AssayError(f"On a worker '{ref}' is another model (digest {self.model.digest()[:12]}… instead of {digest[:12]}…).")

    def ready(self) -> bool:
        """True once the model is loaded."""
        return True

    def answers(self, name: str, spec: dict[str, Any], chunk: Sequence[Sample]) -> list[Answer] | str:
        """The chunk asked and scored, as ``evals.runner.answers`` does it; the sentence of what ended it, where one of our errors did."""
        suite: Suite = SUITES.load(name)
        try:
            return answers(bound(suite, self.model), self.model, suite.spec.parse(spec, what=f"suite '{name}'"), chunk)
        except AssayError as error:
            return str(error)


class Rays:
    """Workers of one model; an instance is called as ``evals.runner.Spread``. ``lost`` counts workers that died."""

    def __init__(self, ray: Any, count: int, arguments: tuple[Any, ...]) -> None:
        self.lost = 0
        self._ray, self._arguments = ray, arguments
        self._remote = ray.remote(num_cpus=1)(Worker)
        self._workers = [self._begun() for _ in range(count)]

    def _begun(self) -> Any:
        return self._remote.remote(*self._arguments)

    def wait(self) -> None:
        """Until every worker has its model. Raises AssayError for one that cannot load it."""
        try:
            self._ray.get([worker.ready.remote() for worker in self._workers])
        except self._ray.exceptions.RayError as error:
            raise AssayError(f"A worker could not begin: {last_line(error)}.") from None

    def __call__(self, suite: Suite, spec: Spec, chunks: Sequence[Sequence[Sample]]) -> Iterator[list[Answer]]:
        """The answers of each chunk as they come. Raises AssayError where a chunk ends ``TRIES`` workers, or cannot be asked."""
        plain = spec.model_dump(mode="json")
        waiting = deque((list(chunk), 1) for chunk in chunks)
        idle, running = list(self._workers), {}
        while waiting or running:
            while waiting and idle:
                worker, (chunk, tried) = idle.pop(), waiting.popleft()
                running[worker.answers.remote(suite.name, plain, chunk)] = (worker, chunk, tried)
            (ready, *_), _ = self._ray.wait(list(running), num_returns=1)
            worker, chunk, tried = running.pop(ready)
            try:
                found = self._ray.get(ready)
            except self._ray.exceptions.RayActorError as error:
                idle.append(self._replaced(worker, tried, error))
                waiting.appendleft((chunk, tried + 1))
                continue
            except self._ray.exceptions.RayTaskError as error:
                raise AssayError(f"A worker failed: {last_line(error)}.") from None
            if isinstance(found, str):
                raise AssayError(found)
            idle.append(worker)
            yield found

    def _replaced(self, worker: Any, tried: int, error: Exception) -> Any:
        self.lost += 1
        if tried >= TRIES:
            raise AssayError(
                f"The same samples ended {TRIES} workers, the last so: {last_line(error)}. What was finished is kept."
            ) from None
        self._workers.remove(worker)
        self._workers.append(fresh := self._begun())
        return fresh

    def pids(self) -> list[int]:
        """The process of each worker (on its own machine)."""
        return self._ray.get([worker.__ray_call__.remote(lambda _: os.getpid()) for worker in self._workers])

    def close(self) -> None:
        for worker in self._workers:
            self._ray.kill(worker)


@contextmanager
def rays(engine: str, ref: str, model: HookedModel, store: Store) -> Iterator[Rays | None]:
    """Workers for an evaluation of ``model``, ended with the block; None for the local engine.

    Raises MissingExtra, BadValue (more workers than the cluster has processors), and Incompatible for a model that has no lasting
    reference, and for a server, which is asked several things at once as it is.
    """
    count = parse(engine)
    if not count:
        yield None
        return
    if isinstance(model, Answering):
        raise Incompatible("--engine ray", f"'{ref}'", ["a server answers many requests at once by itself: raise its at_once"])
    refuse_memory(ref)
    with joined(engine) as ray:
        workers = Rays(ray, count, (ref, store.address, model.digest(), torch.get_num_threads(), os.getcwd()))
        try:
            workers.wait()
            yield workers
        finally:
            workers.close()


@contextmanager
def joined(engine: str) -> Iterator[Any]:
    """Ray, joined to a cluster that has a processor for each worker that ``engine`` asks for. Raises MissingExtra and BadValue."""
    count = parse(engine)
    if count > (room := _room()):
        raise BadValue(
            "engine", engine, f"ray:N with at most {room}, the processors of this machine", do="RAY_ADDRESS names a larger cluster."
        )
    with cluster() as ray:
        there = int(ray.cluster_resources().get("CPU", 0))
        if there < count:
            raise BadValue("engine", engine, f"ray:N with at most {there}, the processors of this cluster")
        yield ray


def refuse_memory(ref: str) -> None:
    """Raises Incompatible for a model that only this process has."""
    if ref.startswith("memory:"):
        raise Incompatible("--engine ray", "a model in memory", ["workers load it by a reference: save it, and name the folder"])


def _room() -> float:
    """How many workers a cluster that begins here may have; another one says so itself."""
    return math.inf if os.environ.get("RAY_ADDRESS") else max(WORKERS, processors())


@contextmanager
def cluster() -> Iterator[Any]:
    """Ray, joined to a cluster: the one that this process is joined to already, else the one that RAY_ADDRESS names, else one that begins
    here. What the block joined it leaves again."""
    silence()
    here = not os.environ.get("RAY_ADDRESS")
    if here:  # read when Ray is imported; despite its name it decides on every system whether other machines may join
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        ray: Any = import_module("ray")
    except ImportError:
        raise MissingExtra("ray", "ray", "The engine ray") from None
    if ray.is_initialized():
        yield ray
        return
    room = {"num_cpus": int(_room())} if here else {}
    carried = {name: os.environ[name] for name in CARRIED if name in os.environ}
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": carried}, **room)
    try:
        yield ray
    finally:
        ray.shutdown()


def last_line(error: Exception) -> str:
    """What an error of a worker ends in, without its full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip().rstrip(".")
