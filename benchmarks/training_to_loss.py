"""Time until a validation loss: the part of ``training_speed.py --time-to-loss``.

The published small setting under transformers' GPT-2 (learned positions, first weights 0.02, rate 1e-3, cosine, 2,000 steps) beside the
recipe of the same size that is shipped here. Both are validated on every character of the validation part, every ``EVERY`` steps; the
clock stands still meanwhile.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from training_contestants import CLOCKS, RATE, SHAPES, How, Loop, nll, text

from workbench.data.text import ContiguousRows
from workbench.lab.recipe import read
from workbench.training.loop import train
from workbench.training.spec import TrainSpec

WANTED, EVERY, STEPS, RECIPE = 1.88, 50, 2000, "tinyshakespeare-same-size"


class Reached(Exception):
    """The loss is low enough."""


class Stopwatch:
    """Seconds of training alone, and the validations."""

    def __init__(self, clock: str) -> None:
        self.now, self.seconds, self.curve = CLOCKS[clock], 0.0, list[tuple[int, float, float]]()
        self.began = self.now()

    def stop(self) -> None:
        self.seconds += self.now() - self.began

    def go(self) -> None:
        self.began = self.now()

    def heard(self, event: str, state: Any) -> None:
        """A training's callback: the clock stands still from the end of a step until its validation is done."""
        if event == "step":
            self.stop()
            self.go()
        if event == "validation":
            self.curve.append((state["step"], state["loss"], self.seconds))
            if state["loss"] <= WANTED:
                raise Reached
            self.go()


def plain(threads: int, device: str, seed: int, clock: str) -> Stopwatch:
    """transformers' GPT-2 under the plain loop."""
    torch.set_num_threads(threads)
    ids, held = text()
    how = How(SHAPES["small"], "float32", device, threads, False)
    loop, rows = Loop("transformers", how, ids, seed), ContiguousRows(held, how.shape.length)
    rates = TrainSpec.parse({"steps": STEPS, "lr": RATE, "min_lr": RATE / 10, "warmup": 100})
    watch = Stopwatch(clock)
    for step in range(STEPS):
        for group in loop.optimizer.param_groups:
            group["lr"] = rates.lr_at(step)
        loop.step().item()
        watch.heard("step", {})
        if (step + 1) % EVERY == 0:
            try:
                watch.heard("validation", {"step": step + 1, "loss": validated(loop, rows)})
            except Reached:
                break
    return watch


@torch.no_grad()
def validated(loop: Loop, rows: ContiguousRows, size: int = 48) -> float:
    """The mean loss over all windows, side by side."""
    loop.model.eval()
    total, count = 0.0, 0
    for first in range(0, len(rows), size):
        batch = rows.batch(range(first, min(first + size, len(rows)))).to(loop.how.device)
        n = batch.targets.numel()
        total, count = total + n * nll(loop.logits(batch.tokens), batch.targets).item(), count + n
    loop.model.train()
    return total / count


def shipped(threads: int, device: str, seed: int, clock: str) -> Stopwatch:
    """The recipe here."""
    how = {"seed": seed, "threads": threads, "validate_every": EVERY, "save_every": 0}
    recipe: Any = read(RECIPE, {"train": how})
    ready, watch = recipe.prepare(), Stopwatch(clock)
    with suppress(Reached):
        train(ready.model.to(device), ready.rows, recipe.train, validation=ready.validation, callbacks=[watch.heard])
    return watch


def time_to_loss(seeds: list[int], threads: int, device: str, clock: str) -> None:
    """Both, seed by seed."""
    print(f"| seed | | reached {WANTED} at step | seconds of training | validation loss there |\n|---|---|---|---|---|")
    for seed in seeds:
        found = {f"here, {RECIPE}": shipped(threads, device, seed, clock), "transformers' GPT-2": plain(threads, device, seed, clock)}
        for name, watch in found.items():
            step, loss, seconds = watch.curve[-1]
            print(f"| {seed} | {name} | {step if loss <= WANTED else f'not within {step}'} | {seconds:.1f} | {loss:.4f} |", flush=True)
        mine, theirs = (watch.curve[-1] for watch in found.values())
        bound = "" if theirs[1] <= WANTED else "at most "
        print(f"\nratio {bound}{mine[2] / theirs[2]:.2f} (goal: at most 0.60)", flush=True)
