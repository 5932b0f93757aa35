"""Recomputed and compiled layers: the same training, by less memory or other kernels, and nothing left behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from tests.training.setting import Copying, model, spec
from tests.training.test_every_family_resumes import NAMES, learner
from workbench.blocks.stack import Block
from workbench.core.protocol import Resume
from workbench.core.tolerance import tolerance
from workbench.training.loop import train
from workbench.training.parallel import plan
from workbench.training.parallel.plan import layers_changed
from workbench.training.parallel.spec import ParallelSpec
from workbench.training.spec import TrainSpec

RECOMPUTE = ParallelSpec.parse({"recompute": True})


def short(**fields: Any) -> TrainSpec:
    return TrainSpec.parse({"steps": 3, "batch_rows": 4, "accumulate": 2, "lr": 1e-2, "min_lr": 1e-3, "warmup": 1, "threads": 1, **fields})


@pytest.mark.parametrize("name", [name if name == "gpt" else pytest.param(name, marks=pytest.mark.slow) for name in NAMES])
def test_a_training_that_recomputes_is_the_plain_one_to_the_byte(name: str) -> None:
    """With dropout in every family that has it, drawn again as it was."""
    plain = train(*learner(name), short())
    again = train(*learner(name), short(parallel={"recompute": True}))
    assert again["weights"] == plain["weights"]
    assert again["record"] == plain["record"]


@pytest.mark.parametrize("fields", [{"economy": {"groups": 1}, "n_layers": 3}, {"economy": {"window": 3}}], ids=["shared", "window"])
@pytest.mark.parametrize("precision", [pytest.param("float32", marks=pytest.mark.slow), "fp16"])
def test_so_is_one_with_an_economy_or_in_half_precision(fields: dict[str, Any], precision: str) -> None:
    weights = [train(model(**fields), Copying(), spec(precision=precision, parallel={"recompute": r}))["weights"] for r in (False, True)]
    assert weights[0] == weights[1]


def test_dropout_drawn_anew_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = train(model(), Copying(), spec())["weights"]
    monkeypatch.setattr(plan, "checkpoint", partial(plan.checkpoint, preserve_rng_state=False))
    assert train(model(), Copying(), spec(parallel={"recompute": True}))["weights"] != plain


def held(of: Any, loss: Callable[[], Tensor]) -> int:
    """The bytes that a loss keeps for its backward pass, weights aside."""
    own, kept = {p.untyped_storage().data_ptr() for p in of.parameters()}, dict[int, int]()

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        whole = loss()
    del whole
    return sum(kept.values())


def test_a_recomputed_layer_keeps_its_input_alone() -> None:
    deep = model(n_layers=8, d_model=32, dropout=0.1).train()
    batch = Copying(64).batch(range(64))
    plain = held(deep, lambda: deep.loss(batch)[0])
    with layers_changed(deep, RECOMPUTE):
        less = held(deep, lambda: deep.loss(batch)[0])
    stream = 64 * 9 * 32 * 4
    assert plain > 8 * 15 * stream
    assert less < 20 * stream  # one a layer, and what stands before and after the layers
    assert less < plain / 8


def test_who_listens_or_takes_no_gradient_meets_the_plain_layer() -> None:
    tiny, rows = learner("gpt")
    tiny.eval()
    batch = rows.batch([0, 1])
    site = "blocks.1.hook_resid_mid"
    expected = tiny.run(batch, capture=site, grad=True)
    expected.logits.sum().backward()
    with layers_changed(tiny, RECOMPUTE):
        trace = tiny.run(batch, capture=site, grad=True)
        assert torch.equal(trace[site], expected[site])
        trace.logits.sum().backward()  # a site heard again here would fail
        past = tiny.run(batch.tokens, cache=True).past
        assert past.length == batch.tokens.shape[1]
        tiny.run(batch.tokens[:, :1], resume=Resume(past=past))


def test_nothing_is_left_behind_also_after_a_failure() -> None:
    tiny, _ = learner("gpt")
    before = [vars(module).copy() for module in tiny.modules() if isinstance(module, Block)]
    changes = layers_changed(tiny, RECOMPUTE)
    changes.__enter__()
    assert all("forward" in vars(module) for module in tiny.modules() if isinstance(module, Block))
    changes.__exit__(RuntimeError, RuntimeError("on purpose"), None)
    assert [vars(module) for module in tiny.modules() if isinstance(module, Block)] == before


@pytest.mark.full
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
def test_compiled_layers_agree_with_plain_ones_dropout_included() -> None:
    """Sums in another order, so within the table's bound for gradients. One graph serves all layers, and nothing falls out of it."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.training.compile_driver"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for how in ("compile", "both"):
        one = found[how]
        assert one["loss"] < 1e-5
        assert one["gradient"] < tolerance(torch.float32, "gradient").bound
        assert (one["graphs"], one["breaks"], one["other"], one["restored"]) == (1, 0, True, True), how
    assert found["same"]  # the same training twice, dropout included
