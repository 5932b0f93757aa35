"""Dictionaries on features that are known: ``python benchmarks/dictionaries.py [--setting fast|whole] [--kinds …]``.

Vectors in which known features fire (correlated, Zipf frequencies, more of them than dimensions; ``workbench.data.worlds.features``) are
given to each kind of dictionary, several seeds each, and the directions found are compared with the true ones on vectors never trained on:
mean max cosine, share found (cosine 0.9), F1 of detection, explained variance, active features, dead features; where some features fire
only beside a parent, absorption; with twice as many dictionary features as true ones, splitting. Beside each kind stands the same training
with the decoder frozen as it was drawn, and once a world random directions. Quality, not timing: the numbers are the same on any machine,
up to rounding. ``fast`` (one small world, two seeds) takes under 3 minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probes.dictionaries.baselines import random_twin
from probes.dictionaries.dictionary import Dictionary
from probes.dictionaries.recovery import recovered
from probes.dictionaries.spec import KINDS, DictionarySpec, Kind, TrainingSpec
from probes.dictionaries.training import Trainer, prepare, train
from workbench.data.worlds.features import Features, FeaturesSpec, Sample

COLUMNS = ("similarity", "found", "f1", "explained", "active", "dead", "absorption", "splitting")


@dataclass(frozen=True)
class Setting:
    """A world, how many dictionary features for each true one, and the training."""

    world: dict[str, Any]
    times: int
    steps: int
    rows: int
    seeds: int


FAST = {"128 in 32": Setting({"features": 128, "width": 32, "active": 4.0}, 1, 700, 512, 2)}
WHOLE = {
    "64 in 16": Setting({"features": 64, "width": 16, "active": 3.0}, 1, 2000, 512, 3),
    "256 in 64": Setting({"features": 256, "width": 64, "active": 6.0}, 1, 2000, 512, 3),
    "128 in 32, 16 parents": Setting({"features": 128, "width": 32, "active": 4.0, "parents": 16}, 1, 1500, 512, 2),
    "1,024 in 256": Setting({"features": 1024, "width": 256, "active": 8.0}, 1, 2000, 512, 2),
    "256 in 64, twice as wide": Setting({"features": 256, "width": 64, "active": 6.0}, 2, 2000, 512, 2),
}
POOL, HELD = 131_072, 8_192
"""Vectors that a training draws from, and held-out ones."""


def batches(pool: Tensor, rows: int, seed: int, first: int) -> Iterator[Tensor]:
    """Rows drawn from the pool; batch i of a seed is always the same."""
    number = first
    while True:
        draw = torch.Generator().manual_seed((seed << 32) + number)
        yield pool[torch.randint(0, len(pool), (rows,), generator=draw)]
        number += 1


def scores(dictionary: Dictionary, world: Features, held: Sample, dead: float) -> dict[str, float]:
    """All scores of one dictionary on held-out vectors."""
    found = recovered(dictionary, world.directions, held.rows, held.strength > 0, world.parent if world.spec.parents else None)
    with torch.no_grad():
        error = (dictionary(held.rows) - held.rows).double().square().sum()
        active = float((dictionary.encode(held.rows) > 0).double().sum(1).mean())
    spread = (held.rows.double() - held.rows.double().mean(0)).square().sum()
    out = {name: getattr(found, name) for name in ("similarity", "found", "f1", "absorption", "splitting")}
    return {**out, "explained": float(1 - error / spread), "active": active, "dead": dead}


def one(kind: Kind, setting: Setting, world: Features, pool: Tensor, held: Sample, *, seed: int, frozen: bool) -> dict[str, float]:
    """Train and score one dictionary."""
    k = max(1, round(float(world.chance.sum())))
    spec = DictionarySpec(kind=kind, d_in=world.spec.width, d_sae=setting.times * world.spec.features, k=k)
    told = TrainingSpec(steps=setting.steps, rows=setting.rows, lr=3e-3, frozen=frozen, seed=seed)
    dictionary = Dictionary(spec, seed=seed)
    trainer: Trainer = train(dictionary, lambda first: batches(pool, setting.rows, seed, first), told)
    return scores(dictionary, world, held, trainer.history[-1]["dead"])


def at_random(setting: Setting, world: Features, pool: Tensor, held: Sample, seed: int) -> dict[str, float]:
    """Score random directions, normalised as a training would."""
    k = max(1, round(float(world.chance.sum())))
    shape = Dictionary(DictionarySpec(d_in=world.spec.width, d_sae=setting.times * world.spec.features, k=k), seed=seed)
    prepare(shape, lambda first: batches(pool, 512, seed, first), TrainingSpec())
    return scores(random_twin(shape, k, seed + 100), world, held, np.nan)


def line(name: str, rows: list[dict[str, float]]) -> str:
    """The mean over seeds of each score, with the smallest and the largest of the first."""
    cells = [f"{np.mean([row[column] for row in rows]):8.3f}" for column in COLUMNS]
    low, high = (getattr(np, word)([row["similarity"] for row in rows]) for word in ("min", "max"))
    return f"{name:22}" + "".join(f"{cell:>11}" for cell in cells) + f"   [{low:.3f}, {high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description="Dictionaries on features that are known.")
    parser.add_argument("--setting", choices=["fast", "whole"], default="fast")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--worlds", nargs="+", help="some of the worlds of the setting, by name")
    parser.add_argument("--seeds", type=int, default=0, help="trainings of each kind; 0: as the world says")
    parser.add_argument("--frozen-seeds", type=int, default=0, help="of those with a frozen decoder; 0: as many")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON line a dictionary besides")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for name, setting in (FAST if given.setting == "fast" else WHOLE).items():
        if given.worlds and name not in given.worlds:
            continue
        seeds = given.seeds or setting.seeds
        world = Features(FeaturesSpec.parse(setting.world))
        pool, held = world.sample(POOL, 1).rows, world.sample(HELD, 0)
        fires = float((held.strength > 0).sum(1).double().mean())
        print(f"{name}: {fires:.2f} features fire in a vector; {setting.steps} steps of {setting.rows}, {seeds} seeds")
        print(f"{'':22}" + "".join(f"{column:>11}" for column in COLUMNS) + "   similarity, least and largest", flush=True)
        print(line("random", [at_random(setting, world, pool, held, seed) for seed in range(seeds)]), flush=True)
        for kind in given.kinds:
            for frozen in (False, True):
                often = range(given.frozen_seeds or seeds) if frozen else range(seeds)
                rows = [one(kind, setting, world, pool, held, seed=seed, frozen=frozen) for seed in often]
                print(line(f"{kind}{', frozen' if frozen else ''}", rows), flush=True)
                if given.json:
                    print(json.dumps({"world": name, "kind": kind, "frozen": frozen, "seeds": rows}), flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
