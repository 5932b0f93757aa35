"""Adapters (LoRA) trained by several real processes that hold a part of every tensor (FSDP) or share every layer (tensor parallel):
one device's curve, one device's adapters, and a base nobody has touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.parallel.driver import answer
from tests.training.parallel.launch import answers
from tests.training.parallel.test_together import CLOSE, job, same
from workbench.families import FAMILIES
from workbench.training.adapter_files import load_adapter
from workbench.training.checkpoint import load_model, read
from workbench.training.lora import addition

EVERY = {"rank": 3, "select": ["*"]}
"""Every linear map; two processes have two rows of A and one."""
STEPS = {"steps": 15, "validate_every": 10}


def adapted(family: str, kind: str = "none", *, tp: int = 0, train: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    return job(family, kind, tp=tp, train=STEPS | (train or {}), lora=EVERY, **rest)


ALONE: dict[str, dict[str, Any]] = {}


def alone(wanted: dict[str, Any]) -> dict[str, Any]:
    """The same training in this process."""
    same_one = {name: wanted[name] for name in ("family", "dtype", "config", "lora", "stir") if name in wanted}
    same_one["train"] = {name: value for name, value in wanted["train"].items() if name != "parallel"}
    if str(same_one) not in ALONE:
        ALONE[str(same_one)] = answer(same_one)
    return ALONE[str(same_one)]


def equal(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    expected = alone(wanted)
    same(found, expected)
    assert found["losses"][-1] < expected["losses"][0] - 0.02, "it learns"
    assert found["base"], "the frozen weights are as they were, to the byte"
    assert found["learning"] == expected["learning"]
    assert {name.rpartition(".")[2] for name in found["learning"]} == {"lora_a", "lora_b"}
    for what in ("shown", "merged"):
        assert found[what] == pytest.approx(expected[what], abs=1e-8)


@pytest.mark.full
def test_two_processes_adapt_as_one_and_save_and_reshard(tmp_path: Path) -> None:
    saved, out = {"save_every": 5}, {kind: str(tmp_path / kind) for kind in ("fsdp", "tp")}
    curves = [adapted(family, kind) for family, kind in (("gpt", "fsdp"), ("gpt", "tp"), ("seq2seq", "fsdp"))]
    cut = [adapted("gpt", kind, train=saved, out=out[kind], stop=13, copy=f"{out[kind]}-copy") for kind in out]
    again = [adapted("gpt", kind, train=saved, out=out[kind], adapter=str(tmp_path / f"adapter-{kind}")) for kind in out]
    found = answers(2, [*curves, *cut, *again], tmp_path)
    for one, wanted in zip(found, curves):
        equal(one, wanted)
    whole = alone(adapted("gpt", train=saved))
    for number, kind in enumerate(out):
        stopped, went_on = found[len(curves) + number], found[len(curves) + len(out) + number]
        assert (stopped["stopped"], went_on["resumed_from"]) == ("enough", 10)
        parts = read(Path(f"{out[kind]}-copy") / "step-00000010")
        assert parts.cut
        assert parts.optimizer is not None
        learning = set(whole["learning"])
        assert {name.rpartition(".")[0] for name in parts.optimizer} == learning, "moments of the adapters and of nothing else"
        fewer = answer(adapted("gpt", train=saved, out=f"{out[kind]}-copy"))
        assert fewer["resumed_from"] == 10
        for one in (went_on, fewer):
            same(one, whole)
            assert one["merged"] == pytest.approx(whole["merged"], abs=1e-8)
        # The adapter that two processes left is the one that their last checkpoint holds, and fits the base.
        final, base = load_model(Path(out[kind]) / "final"), FAMILIES.load("gpt").tiny(seed=0)[0].double()
        load_adapter(base, tmp_path / f"adapter-{kind}")
        assert all(torch.equal(value, addition(base)[name]) for name, value in addition(final).items())


@pytest.mark.full
def test_a_fault_in_sharing_adapters_would_be_caught(tmp_path: Path) -> None:
    short = {"steps": 5, "validate_every": 0}
    planted = [adapted("gpt", "tp", train=short, broken="summands"), adapted("gpt", "fsdp", train=short, broken="mean")]
    planted += [adapted("gpt", "fsdp", train=short, broken="veiled", stir=True)]  # while B is zero both weights are one
    sound = adapted("gpt", "fsdp", train=short, stir=True)
    *all_found, right = answers(2, [*planted, sound], tmp_path)
    assert right["losses"] == pytest.approx(alone(sound)["losses"], abs=CLOSE)
    for found, wanted in zip(all_found, planted, strict=True):
        assert max(abs(a - b) for a, b in zip(found["losses"], alone(wanted)["losses"], strict=True)) > 1e5 * CLOSE, wanted["broken"]


@pytest.mark.full
@pytest.mark.parametrize(("kind", "families"), [("tp", ("vit",)), ("fsdp", ("bert",))])
def test_four_processes_in_groups_of_two(kind: str, families: tuple[str, ...], tmp_path: Path) -> None:
    jobs = [adapted(family, kind, tp=2, train={"batch_rows": 10}) for family in families]
    for found, wanted in zip(answers(4, jobs, tmp_path), jobs, strict=True):
        equal(found, wanted)
