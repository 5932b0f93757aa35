"""Look at what a painter paints: for every pair of colour and shape its picture, and beside it the nearest picture it was trained on.

    python benchmarks/paintings.py run:ID paintings.png [--guidance 2] [--temperature 0.5] [--seed 0]

Rows of the picture: painted, nearest training picture, painted, nearest …, eight pairs a row; pairs never trained on come last. Prints,
for each pair, what the judge says the painting shows, and its distance (root mean squared, full brightness 1) to the nearest training
picture beside what 5 % of real held-out pictures lie below.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from typing import Any

import numpy as np
import torch
from PIL import Image

from evals.judge import Judge, nearest
from workbench.data.worlds.shapes import CLASSES, Shapes, caption_of, tokens_of
from workbench.lab.recipe import TaskRecipe, read
from workbench.lab.refs import load
from workbench.store.runs import Store

ACROSS, SIDE, GAP = 8, 96, 2


def world_of(reference: str, store: Store) -> Shapes:
    """The world of the recipe that the run trained."""
    recipe = read(store.runs.get(reference.removeprefix("run:")).spec)
    assert isinstance(recipe, TaskRecipe), "a painter is trained for a task"
    drawn: Any = recipe.drawn()
    return Shapes(drawn)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("file")
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--temperature", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    store = Store.open()
    painter: Any = load(asked.model, store=store)
    world = world_of(asked.model, store)
    pairs = [*world.seen, *world.unseen]
    chosen = inspect.signature(painter.paint).parameters
    settings = {name: getattr(asked, name) for name in ("guidance", "temperature") if name in chosen}
    painted = painter.paint(tokens_of([caption_of(*pair) for pair in pairs]), seed=asked.seed, **settings)
    train, test = (world.labelled(split) for split in ("train", "test"))
    real, held = (rows.batch(range(len(rows))).pixels for rows in (train, test))
    places, distances = nearest(painted, real)
    bound = float(torch.quantile(nearest(held, real)[1], 0.05))
    shown = Judge.of(world.spec).classes(painted)
    for pair, distance, found in zip(pairs, distances.tolist(), shown.tolist(), strict=True):
        seen = "" if pair in world.seen else ", never trained on"
        print(f"{' '.join(pair):<16} shows {CLASSES[found]:<16} {distance:.3f} to the nearest (real: 5 % below {bound:.3f}){seen}")
    Image.fromarray(_sheet(painted, real[places])).save(asked.file)
    print(asked.file)
    return 0


def _sheet(painted: torch.Tensor, beside: torch.Tensor) -> np.ndarray:
    """All pictures ``[row, column, 3]`` on one white sheet."""
    count, _, height, width = painted.shape
    scale = max(1, SIDE // height)
    down, high, wide = -(-count // ACROSS) * 2, height * scale + GAP, width * scale + GAP
    sheet = np.full((down * high + GAP, ACROSS * wide + GAP, 3), 255, np.uint8)
    for place in range(count):
        for below, picture in enumerate((painted[place], beside[place])):
            pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy().repeat(scale, 0).repeat(scale, 1)
            top, left = (place // ACROSS * 2 + below) * high + GAP, place % ACROSS * wide + GAP
            sheet[top : top + len(pixels), left : left + pixels.shape[1]] = pixels
    return sheet


if __name__ == "__main__":
    sys.exit(main())
