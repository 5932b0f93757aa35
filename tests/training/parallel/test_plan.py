"""Who does what: shares, refusals, and what a plan changes in a model, without a second process."""

from __future__ import annotations

import itertools
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.parallel.driver import answer
from tests.training.setting import Copying, model, spec
from workbench.core.errors import BadValue, Incompatible, LostRank, UsageError
from workbench.families import FAMILIES
from workbench.lab.recipe import TaskRecipe, plan_of, read, shipped, training_of
from workbench.training.loop import train
from workbench.training.parallel.plan import layers_changed
from workbench.training.parallel.spec import ParallelSpec
from workbench.training.parallel.team import Team
from workbench.training.parallel.tensor import objections
from workbench.training.parallel.world import World, joined
from workbench.training.spec import TrainSpec


def parallel(**fields: Any) -> ParallelSpec:
    return ParallelSpec.parse(fields)


@pytest.mark.parametrize(
    ("fields", "world", "groups"),
    [
        ({"kind": "ddp"}, 3, (3, 1)), ({"kind": "fsdp"}, 4, (4, 1)), ({"kind": "fsdp", "tp": 2}, 4, (2, 2)),
        ({"kind": "tp"}, 4, (1, 4)), ({"kind": "tp", "tp": 2}, 4, (2, 2)), ({"kind": "pipeline"}, 4, (1, 1)),
    ],
)  # fmt: skip
def test_groups(fields: dict[str, Any], world: int, groups: tuple[int, int]) -> None:
    assert parallel(**fields).groups(world) == groups


def test_specs_that_cannot_be() -> None:
    with pytest.raises(BadValue, match=r"parallel\.tp is 3.*a divisor of the number of processes, 4"):
        parallel(kind="tp", tp=3).groups(4)
    with pytest.raises(UsageError, match="tp is of the kinds fsdp and tp, and the kind is ddp"):
        parallel(kind="ddp", tp=2)
    with pytest.raises(UsageError, match="kind"):
        parallel(kind="dpp")


def test_one_process_is_stored_as_before_there_were_several() -> None:
    assert "parallel" not in spec().model_dump(mode="json")
    assert TrainSpec.parse(spec(parallel={"kind": "ddp"}).model_dump(mode="json")).parallel.kind == "ddp"


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 7])
def test_shares_are_neighbours_that_differ_by_a_row(processes: int) -> None:
    class Fake:
        dp = processes

    for rows in range(30):
        bounds = World.bounds(Fake(), rows)  # type: ignore[arg-type]  # a world in which nothing but the number is asked
        sizes = [end - begin for begin, end in itertools.pairwise(bounds)]
        assert (bounds[0], bounds[-1], len(sizes)) == (0, rows, processes)
        assert max(sizes) - min(sizes) <= 1


def test_a_start_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        BadValue, match=r"parallel\.kind is 'ddp'.*torchrun did not start.*torchrun --nproc-per-node 2 -m workbench\.cli train"
    ):
        train(model(), Copying(), spec(parallel={"kind": "ddp"}))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadValue, match="2 processes were started: each would train the whole alone"):
        train(model(), Copying(), spec())
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(BadValue, match=r"parallel\.tp is 3"), joined(parallel(kind="tp", tp=3)):
        pass


def test_layers_that_cannot_be_shared_are_named() -> None:
    gpt = FAMILIES.load("gpt").tiny()[0]
    assert objections(gpt, 2) == []
    assert objections(gpt, 4)[0] == "'stack.blocks.0.attn' has 2 key heads, which 4 processes cannot share evenly"
    clip = FAMILIES.load("clip").tiny()[0]
    assert any("'image.stack.blocks.0.attn' has 3 heads" in why for why in objections(clip, 2))
    assert objections(torch.nn.Linear(2, 2), 2) == ["it has no attention"]
    odd = FAMILIES.load("gpt").tiny()[0]
    odd.stack.blocks[1].mlp.out = torch.nn.Sequential(odd.stack.blocks[1].mlp.out)
    assert objections(odd, 2) == ["'stack.blocks.1.mlp.out' is no plain linear map"]


def test_recomputing_changes_no_byte_and_is_undone() -> None:
    plain = train(model(), Copying(), spec(accumulate=2))["weights"]
    m = model()
    assert train(m, Copying(), spec(accumulate=2, parallel={"recompute": True}))["weights"] == plain
    assert "forward" not in vars(m.stack.blocks[0])
    calls: list[int] = []
    block: Any = m.stack.blocks[0]
    real = block.attn.forward
    block.attn.forward = lambda *a, **k: (calls.append(1), real(*a, **k))[1]
    m.train()
    with layers_changed(m, parallel(recompute=True)):
        m.loss(Copying().batch([0]))[0].backward()
    assert len(calls) == 2  # once forward, once more in the backward pass


@pytest.fixture
def alone_in_a_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """A world of this process: all of the machinery, without another process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize("kind", ["ddp", "fsdp", "tp"])
def test_a_world_of_one_is_one_process(alone_in_a_world: None, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"family": "gpt", "dtype": "float64", "train": {"steps": 6, "save_every": 4}, "out": str(tmp_path / kind)}
    found = answer(job | {"train": job["train"] | {"parallel": {"kind": kind}}})
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name)
    expected = answer({name: value for name, value in job.items() if name != "out"})
    assert found["losses"] == pytest.approx(expected["losses"], abs=1e-12)
    assert found["heard"] == pytest.approx(expected["heard"], abs=1e-10)
    again = answer(job)
    assert (again["weights"], again["losses"]) == (found["weights"], [])  # it finds the run finished, whatever finished it


def test_more_processes_than_rows_are_refused(alone_in_a_world: None) -> None:
    """The number of processes is played: there is one here."""
    with joined(parallel(kind="ddp")) as world, ExitStack() as changes:
        assert world is not None
        world.dp = 3
        with pytest.raises(BadValue, match=r"3 processes to share 2 rows of a micro-batch.*Raise batch_rows, or lower accumulate"):
            Team(model(), spec(batch_rows=4, accumulate=2, parallel={"kind": "ddp"}), world, changes)


@pytest.mark.parametrize("kind", ["ddp", "fsdp", "tp"])
def test_adapters_alone_learn_in_a_world_of_one(alone_in_a_world: None, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"family": "gpt", "dtype": "float64", "train": {"steps": 4}, "lora": {"rank": 2, "select": ["*"]}}
    found = answer(job | {"train": job["train"] | {"parallel": {"kind": kind}}})
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name)
    expected = answer(job)
    assert found["losses"] == pytest.approx(expected["losses"], abs=1e-12)
    assert found["merged"] == pytest.approx(expected["merged"], abs=1e-10)
    assert found["base"]
    assert found["learning"] == expected["learning"]
    assert {name.rpartition(".")[2] for name in found["learning"]} == {"lora_a", "lora_b"}


class Doubled(nn.Linear):
    """A map that computes the weight it shows."""

    weight: Any = property(lambda self: 2 * self._parameters["weight"])


def test_maps_that_are_not_what_they_show_are_refused(alone_in_a_world: None) -> None:
    odd = model()
    odd.get_submodule("stack.blocks.0.attn.q").__class__ = Doubled
    with joined(parallel(kind="fsdp")) as world, ExitStack() as changes:
        assert world is not None
        with pytest.raises(Incompatible, match=r"'stack\.blocks\.0\.attn\.q' computes its weight from others"):
            Team(odd, spec(parallel={"kind": "fsdp"}), world, changes)
    assert objections(odd, 2)[0] == "'stack.blocks.0.attn.q' is no plain linear map"


def test_a_codebook_that_learns_is_refused(alone_in_a_world: None) -> None:
    painter = FAMILIES.load("dalle").tiny()[0]
    painter.learn(painter.parts[0])
    with joined(parallel(kind="ddp")) as world, ExitStack() as changes:
        assert world is not None
        with pytest.raises(Incompatible, match="its codebook is renewed by what the whole of a batch chose, so one process learns it"):
            Team(painter, spec(parallel={"kind": "ddp"}), world, changes)


def test_what_a_lost_process_is_told() -> None:
    found = LostRank("Rank 1 of 2 is gone", step=7, last="run/step-00000005")
    kept = "The last checkpoint, 'run/step-00000005', is whole: resume to go on from there."
    assert str(found) == f"Rank 1 of 2 is gone. Training stopped after step 7. {kept}"
    assert "No checkpoint had been written" in str(LostRank("Rank 1 of 2 is gone"))
    assert found.exit_code == 3


@pytest.mark.parametrize("name", ["tinyshakespeare-baseline", "vit-digits", "town-target"])
def test_a_run_is_stored_without_the_processes_it_has(name: str) -> None:
    """So that a run that several began is found and continued by any other number."""
    divided = read(name, {"train": {"parallel": {"kind": "ddp", "recompute": True}}})
    assert training_of(divided).parallel == parallel(kind="ddp", recompute=True)
    assert training_of(read(name)).parallel == ParallelSpec()
    assert plan_of(divided) == plan_of(read(name)) == read(name).model_dump(mode="json")


def test_parts_learned_one_after_the_other_have_the_same_processes() -> None:
    name = next(name for name in shipped() if getattr(read(name), "phases", ()))
    divided = read(name, {"train": {"parallel": {"kind": "fsdp"}}})
    assert isinstance(divided, TaskRecipe)
    assert {how.parallel.kind for _, how in divided.trainings()} == {"fsdp"}
