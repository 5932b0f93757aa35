"""Character models of Shakespeare beside counting: the published small setting over seeds, n-grams, and the stronger recipe.

    python benchmarks/tinyshakespeare.py [--seeds 1337 1338 1339] [--strong] [--home assay-runs/shakespeare]

Prints validation loss in nats a character on nanoGPT's split (the last tenth), wall and processor seconds, and versions. The published
figure for the small setting is 1.88 (nanoGPT's README, its CPU run).
"""

from __future__ import annotations

import argparse
import os
import sys
import time

import numpy as np

from evals.ngram import KneserNey, as_bytes
from workbench.core.result import Provenance
from workbench.data.corpora import tinyshakespeare
from workbench.lab.recipe import read
from workbench.lab.run import train
from workbench.store.runs import Store
from workbench.training.loop import evaluate

PUBLISHED = 1.88


def trained(name: str, seed: int, store: Store) -> str:
    """One training as a row of the table. The loss is over every character of the validation part, in side-by-side windows."""
    recipe = read(name, {"train": {"seed": seed}})
    wall, own = time.monotonic(), time.process_time()
    done = train(
        recipe, store=store, resume="auto", progress=lambda d, n, words="": print(f"\r{name} {seed}: {words}", end="", file=sys.stderr)
    )
    ready = recipe.prepare()  # type: ignore[union-attr]  # a text recipe, by its name
    loss, count = evaluate(done.model, ready.validation)
    seconds = f"{time.monotonic() - wall:.0f} s wall, {time.process_time() - own:.0f} s processor"
    return f"| {name} | {seed} | {loss:.4f} | {count:,} characters | {seconds} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1337, 1338, 1339])
    parser.add_argument("--strong", action="store_true", help="also the stronger recipe (about twenty minutes on two free cores)")
    parser.add_argument("--home", default="assay-runs/shakespeare")
    asked = parser.parse_args()
    text, store = tinyshakespeare(), Store.open(asked.home)
    print("| model | seed | validation loss (nats a character) | over | cost |\n|---|---|---|---|---|")
    for order in (1, 3, 5):
        started = time.monotonic()
        counts = KneserNey(as_bytes(text["train"]), order=order)
        nats = float(np.mean(counts.nats(as_bytes(text["validation"]))))
        print(
            f"| Kneser-Ney, bytes, order {order} | | {nats:.4f} | {len(text['validation']):,} bytes | {time.monotonic() - started:.0f} s |",
            flush=True,
        )
    for name in ("tinyshakespeare-baseline", "tinyshakespeare-same-size"):
        for seed in asked.seeds:
            print(trained(name, seed, store), flush=True)
    if asked.strong:
        print(trained("tinyshakespeare-strong", 1, store), flush=True)
    print(f"\nPublished for the small setting: {PUBLISHED}. {os.cpu_count()} cores; {dict(Provenance.here().packages)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
