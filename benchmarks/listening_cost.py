"""What it costs a training step that sites exist, where nobody listens.

    python benchmarks/listening_cost.py [--steps 300] [--threads 1]

The twin is generated: the sources of the blocks and of the family with every ``hear(listener, name, x)`` replaced by ``x``, every
listener (also ``under(...)``) no longer passed on, and every question whether there is one answered with no. Same weights, same batch; loss
and every gradient are compared to the bit first. Then steps (forward and backward) of the two alternate in one process. Prints the median
of the ratios of neighbours with a bootstrap interval (95 %).
"""

from __future__ import annotations

import argparse
import ast
import statistics
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.core.batch import TokenBatch
from workbench.families.gpt import GPT, GPTConfig

ROOT = Path(__file__).parents[1]
PARTS = ("norm", "attention", "mlp", "embed", "modulation", "stack", "economy")
SIZES = {"small": ((4, 128, 4, 64), 12), "tiny (little but what is between operations)": ((4, 16, 4, 8), 2)}


class Silent(ast.NodeTransformer):
    """Takes the sites out; ``taken`` counts them."""

    def __init__(self) -> None:
        self.taken = 0

    def visit_Call(self, node: ast.Call) -> Any:
        self.generic_visit(node)
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name == "hear":
            self.taken += 1
            return node.args[2]
        if name == "under":
            return ast.Name("listener", ast.Load())
        node.keywords = [word for word in node.keywords if word.arg != "listener"]
        node.args = [one for one in node.args if not (isinstance(one, ast.Name) and one.id == "listener")]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        self.generic_visit(node)
        given = node.args
        if given.args and given.args[-1].arg == "listener" and not given.defaults:
            given.defaults = [ast.Constant(None)]  # it is passed on no more
        return node

    def visit_Compare(self, node: ast.Compare) -> Any:
        self.generic_visit(node)
        if isinstance(node.left, ast.Name) and node.left.id == "listener":
            return ast.Constant(isinstance(node.ops[0], ast.Is))
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> Any:
        self.generic_visit(node)
        settled = isinstance(node.op, ast.Or)  # the value that decides alone
        values = [one for one in node.values if not (isinstance(one, ast.Constant) and one.value is (not settled))]
        if any(isinstance(one, ast.Constant) and one.value is settled for one in values):
            return ast.Constant(settled)
        return ast.Constant(not settled) if not values else values[0] if len(values) == 1 else ast.BoolOp(node.op, values)

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        self.generic_visit(node)
        return (node.body if node.test.value else node.orelse) if isinstance(node.test, ast.Constant) else node

    def visit_If(self, node: ast.If) -> Any:
        self.generic_visit(node)
        return ((node.body if node.test.value else node.orelse) or ast.Pass()) if isinstance(node.test, ast.Constant) else node


def twin_family() -> tuple[ModuleType, int]:
    """The family's module without sites, and how many were taken out."""
    silent = Silent()
    names = {f"workbench.blocks.{part}": f"unheard.{part}" for part in PARTS} | {"workbench.families.gpt": "unheard.gpt"}
    sys.modules["unheard"] = ModuleType("unheard")
    for original, name in names.items():
        found = find_spec(original)
        assert found is not None, original
        assert found.origin is not None, original
        tree = silent.visit(ast.parse(Path(found.origin).read_text()))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in names:
                node.module = names[node.module]
        made = sys.modules[name] = ModuleType(name)
        exec(compile(ast.fix_missing_locations(tree), f"<{name}>", "exec"), made.__dict__)
    return sys.modules["unheard.gpt"], silent.taken


def step(model: Any, batch: TokenBatch) -> Tensor:
    """Forward and backward."""
    model.zero_grad()
    total, count = model.loss(batch)
    (total / count).backward()
    return total.detach()


def ratios(one: Any, other: Any, batch: TokenBatch, steps: int) -> list[float]:
    """Seconds of ``one`` over those of ``other``, neighbour by neighbour; which comes first changes."""
    out = []
    for number in range(steps + 20):
        took = {}
        for model in (one, other) if number % 2 else (other, one):
            began = time.perf_counter()
            step(model, batch)
            took[id(model)] = time.perf_counter() - began
        if number >= 20:
            out.append(took[id(one)] / took[id(other)])
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    twin, taken = twin_family()
    print(
        f"{taken} sites taken out of {len(PARTS) + 1} files; torch {torch.__version__}, {asked.threads} threads, {asked.steps} steps each"
    )
    draw = np.random.default_rng(0)
    for name, ((layers, width, heads, length), rows) in SIZES.items():
        fields = {"n_layers": layers, "d_model": width, "n_heads": heads, "n_ctx": length, "d_vocab": 65}
        model, silent = GPT(GPTConfig.parse(fields), seed=0).train(), twin.GPT(twin.GPTConfig.parse(fields), seed=0).train()
        ids = torch.randint(0, 65, (rows, length + 1), generator=torch.Generator().manual_seed(0))
        batch = TokenBatch(ids[:, :-1], ids[:, 1:])
        assert torch.equal(step(model, batch), step(silent, batch)), "the twin computes something else"
        for (place, p), (_, q) in zip(model.named_parameters(), silent.named_parameters(), strict=True):
            assert p.grad is not None and q.grad is not None and torch.equal(p.grad, q.grad), place  # noqa: PT018
        found = ratios(model, silent, batch, asked.steps)
        drawn = np.median(draw.choice(np.asarray(found), (2000, len(found))), axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        print(f"{name}: {statistics.median(found):.4f} ({low:.4f} to {high:.4f}); goal: at most 1.01", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
