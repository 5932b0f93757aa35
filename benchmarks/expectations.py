"""Measure what to expect of a recipe: train it with several seeds and write its expectation, the file and the page.

    python benchmarks/expectations.py vit-digits whisper-tones [--seeds 1 2 3 4 5] [--home assay-runs/expectations]

Prints each measure's mean, prediction interval and values, and the wall seconds of each training.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from workbench.core.protocol import silent
from workbench.lab.expect import Expectation, measure, page
from workbench.store.runs import Store

ROOT = Path(__file__).parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--home", default="assay-runs/expectations")
    asked = parser.parse_args()
    store = Store.open(asked.home)
    for name in asked.recipes:
        told = lambda done, of, words="", name=name: print(f"\r{name}: {words}", end="", file=sys.stderr)  # noqa: E731
        found: Expectation = measure(name, asked.seeds, store=store, progress=told if sys.stderr.isatty() else silent)
        (ROOT / "workbench" / "expectations" / f"{name}.json").write_text(found.to_json(), encoding="utf-8")
        (ROOT / "docs" / "expectations").mkdir(exist_ok=True)
        (ROOT / "docs" / "expectations" / f"{name}.md").write_text(page(found), encoding="utf-8")
        print("\n" + page(found), flush=True)
    print(f"{os.cpu_count()} cores; {found.machine}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
