"""Compiled layers tried in a process of their own, and what was found, as JSON: the type checks of the tests cannot be compiled."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from tests.training.setting import Copying, model, spec
from workbench.core.tolerance import gap
from workbench.training.loop import train
from workbench.training.parallel.plan import layers_changed
from workbench.training.parallel.spec import ParallelSpec


def stepped(deep: Any, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The mean loss and all gradients of one batch, with dropout drawn from ``seed``."""
    deep.zero_grad()
    torch.manual_seed(seed)
    total, count = deep.loss(Copying(64).batch(range(64)))
    (total / count).backward()
    gradient = torch.cat([p.grad.flatten() for p in deep.parameters() if p.grad is not None])
    return total.detach() / count, gradient / gradient.abs().max()


def tried(**how: bool) -> dict[str, Any]:
    """Three layers under a plan beside the plain ones."""
    deep = model(n_layers=3, d_model=32, n_heads=4, dropout=0.1).train()
    loss, gradient = stepped(deep)
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    with layers_changed(deep, ParallelSpec.parse(how)):
        found, theirs = stepped(deep)
        other, _ = stepped(deep, seed=1)
    again, _ = stepped(deep)
    return {
        "loss": gap(found, loss), "gradient": gap(theirs, gradient), "graphs": counters["stats"]["unique_graphs"],
        "breaks": len(counters["graph_break"]), "other": float(other) != float(found), "restored": torch.equal(again, loss),
    }  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    weights = [train(model(), Copying(), spec(steps=6, parallel={"compile": True}))["weights"] for _ in range(2)]
    found = {"compile": tried(compile=True), "both": tried(compile=True, recompute=True), "same": weights[0] == weights[1]}
    print(json.dumps(found))
