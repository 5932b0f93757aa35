"""Memory of a training step, family by family: bytes a parameter and bytes a position, with and without recomputing layers.

    python benchmarks/training_memory.py [--rows 8]

Each family by the model and the rows of one of its recipes. Weights, gradients and Adam's moments take 16 bytes a parameter (float32).
What a step takes besides is counted from torch's own record of what was allocated and freed, so neither the interpreter nor what the
allocator keeps is in it. Positions are those of all stacks and rows. ``recompute``: ``train.parallel.recompute``. One thread.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch
from torch.autograd.profiler import profile

from workbench.lab.recipe import TaskRecipe, read
from workbench.training.optimizer import adamw
from workbench.training.parallel.plan import layers_changed
from workbench.training.parallel.spec import ParallelSpec

RECIPES = {
    "gpt": "tinyshakespeare-same-size",
    "bert": "bert-town",
    "seq2seq": "seq2seq-copying",
    "vit": "vit-digits",
    "clip": "clip-shapes",
    "dalle": "dalle-shapes",
    "imagen": "imagen-shapes",
    "whisper": "whisper-tones",
}


def most_held(work: Any) -> int:
    """The most bytes that ``work`` held at once, beyond what was held before it."""
    with profile(profile_memory=True) as seen:
        work()
    whole: Any = seen
    record = whole.kineto_results
    changes = [(event.start_ns(), event.nbytes()) for event in record.events() if event.name() == "[memory]"]
    held = most = 0
    for _, change in sorted(changes, key=lambda one: one[0]):
        held += change
        most = max(most, held)
    return most


def positions(model: Any, batch: Any) -> int:
    """Of all rows and stacks, as the loss runs them."""
    seen: list[int] = []
    watched = [
        stack.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[0] * given[0].shape[1])) for stack in model.stacks()
    ]
    with torch.no_grad():
        model.loss(batch)
    for one in watched:
        one.remove()
    return sum(seen)


def measured(family: str, rows: int) -> str:
    """A row of the table."""
    recipe: Any = read(RECIPES[family])
    ready = recipe.prepare()
    model = ready.model.train()
    part, spec = list(recipe.trainings())[-1] if isinstance(recipe, TaskRecipe) else ("", recipe.train)
    if part:
        model.learn(part)
    batch = ready.rows.batch(range(rows))
    optimizer, count = adamw(model, spec), sum(p.numel() for p in model.parameters() if p.requires_grad)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        total, n = model.loss(batch)
        (total / n).backward()
        optimizer.step()

    step()  # the moments are there from now on
    optimizer.zero_grad(set_to_none=True)
    plain = most_held(step)
    optimizer.zero_grad(set_to_none=True)
    with layers_changed(model, ParallelSpec.parse({"recompute": True})):
        less = most_held(step)
    optimizer.zero_grad(set_to_none=True)
    places = positions(model, batch)
    each = [(most - 4 * count) / places for most in (plain, less)]  # gradients are 4 bytes a parameter of what is held at most
    whole = [(12 * count + most) / 2**20 for most in (plain, less)]
    return (
        f"| {family} | `{RECIPES[family]}` | {count:,} | {places:,} | {whole[0]:.1f} MiB | {whole[0] * 2**20 / count:.0f} | {each[0]:,.0f} "
        f"| {whole[1]:.1f} MiB | {whole[1] * 2**20 / count:.0f} | {each[1]:,.0f} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--families", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{asked.rows} rows a step, float32, torch {torch.__version__}\n")
    print(
        "| family | recipe | parameters | positions | at most | a parameter | a position | recomputed: at most | a parameter | a position |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for family in asked.families:
        print(measured(family, asked.rows), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
