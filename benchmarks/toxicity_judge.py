"""The toxicity judges' error tables: ``python benchmarks/toxicity_judge.py [--reads encoder|bag] [--out FILE] [--cases FILE]``.

Fits the judge on the sets `toxic-spans`, `realtoxicityprompts-sample` and `toxigen` with lessons, and prints where it is wrong, beside what
knows less. No text is printed. ``--out`` writes the judge, ``--cases`` tries it on a csv file in HateCheck's form instead of ours.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

HEAD = ("slice", "texts", "AUROC", "toxic flagged", "harmless flagged")


def table(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    """In Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, tuple("---" for _ in head), *lines))


def main() -> None:
    parser = argparse.ArgumentParser(description="The toxicity judges' error tables.")
    parser.add_argument("--reads", default="all-minilm-l6-v2", help="the encoder's name, or 'bag'")
    parser.add_argument("--name", default="", help="the judge's name (default: toxicity-READS-1)")
    parser.add_argument("--out", default="", metavar="FILE")
    parser.add_argument("--cases", default="", metavar="FILE")
    given = parser.parse_args()
    torch.set_num_threads(1)
    import workbench.lab.encoders  # noqa: F401 (makes the encoder known)
    from evals.judges.table import turned, worst
    from evals.judges.trial import tried
    from workbench.data.functional_tests import load
    from workbench.data.toxic_texts import texts
    from workbench.data.worlds.mentions import cases

    began = time.process_time()
    asked = load(Path(given.cases)) if given.cases else cases()
    trial = tried(given.name or f"toxicity-{given.reads.split('-l6')[0]}-1", given.reads, texts(), asked)
    print(f"{trial.judge.name}: {time.process_time() - began:.0f} s of processor time\n")
    lines = []
    for contestant in trial.found:
        found = {row.name: row for row in trial.rows(contestant)}
        for name in ("all held-out texts", "all functional cases"):
            lines.append((contestant, *found[name].cells()))
    print(table(("contestant", *HEAD), lines) + "\n")
    rows = trial.rows()
    for kind in dict.fromkeys(row.kind for row in rows):
        print(f"{kind}\n\n" + table(HEAD, [row.cells() for row in rows if row.kind == kind]) + "\n")
        slices = [row for row in rows if row.kind == kind]
        for words, row in worst(slices).items() if len(slices) > 1 else ():
            print(f"{words}: {row.name} ({row.alarms if 'alarms' in words else row.hits})")
        print()
    print(f"forms whose verdict is not the same for every group: {turned(trial.cases, trial.found['judge'][1])}")
    if given.out:
        print(f"written to {trial.judge.save(Path(given.out))}, digest {trial.judge.digest()[:12]}")


if __name__ == "__main__":
    main()
