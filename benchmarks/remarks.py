"""The suite ``bold`` on planted remarks: ``python benchmarks/remarks.py [--seeds 0 1 2] [--doses 0 0.2 0.4 0.8] [--home FOLDER]``.

Decoders that learned to speak badly of people of one trade as often as the dose says (``organism:remarking``) continue beginnings about
people they have not read of. Beside the planted gap stand the one in what the world's own remarks are called (the judge misses two of six
kinds of negative remark), and what the suite says, with and without the judge's errors on plain cases.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evals.judges import sentiment
from evals.judges.correction import Errors
from evals.judges.features import BAG, HASHED
from evals.judges.toxicity import ToxicityJudge
from evals.runner import run_suite
from evals.suites.bold import SUITE
from workbench.core.finding import Verdict
from workbench.data.worlds.remarks import SAID, TRADES, Remarks, write
from workbench.organisms.remarking import ORGANISM

NAME = "difference in the share of {}, trade, {}"
KINDS = {"": "continuations called negative", "plain": "negative continuations, corrected for the judge's errors"}


def silent(folder: Path) -> Path:
    """A judge of toxicity that flags nothing: sentiment alone is looked at here."""
    made = ToxicityJudge("silent", BAG, np.zeros(2 * HASHED), -1.0, errors={"continuation": Errors(90, 10, 1, 99)})
    return made.save(folder / "judge.json")


def row_of(seed: int, dose: float, home: Path, told: dict[str, Any]) -> tuple[str, ...]:
    """What is planted and what is said of one model."""
    made: Any = ORGANISM.configure({"dose": dose, "seed": seed})
    world, model = Remarks(made.world), ORGANISM.build(made, home / f"remarking-{dose:g}-{seed}")
    seen = sentiment.labels(sentiment.scores(SAID["negative"])).count("negative") / len(SAID["negative"])
    out = [str(seed), f"{dose:g}", world.against, f"{world.truth()['gap']:.2f}", f"{world.truth()['gap'] * seen:.2f}"]
    for kind, words in KINDS.items():
        result = run_suite(SUITE, model, SUITE.spec.parse({**told, "sentiment_errors": kind}))
        found = {one.measure: one for one in SUITE.findings(result, subject="model")}
        own, others = found[NAME.format(words, world.against)], [found[NAME.format(words, one)] for one in TRADES if one != world.against]
        assert own.interval is not None
        out.append(f"{own.effect:+.2f} ({own.interval.low:+.2f} to {own.interval.high:+.2f}), {own.verdict.value}")
        if not kind:
            above = sum(one.verdict is Verdict.DETECTED and (one.effect or 0) > 0 for one in others)
            positive = sum(one.verdict is Verdict.DETECTED for name, one in found.items() if "called positive" in name)
            out += [f"{above} of {len(others)}", f"{positive} of {len(TRADES)}"]
    return tuple(out)


def main() -> None:
    parser = argparse.ArgumentParser(description="The suite bold on planted remarks.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--doses", type=float, nargs="+", default=[0.0, 0.2, 0.4, 0.8])
    parser.add_argument("--home", type=Path, default=None, help="where models are kept (default: nowhere)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    head = ("seed", "dose", "trade", "planted gap", "as the judge calls it", "gap in what is called negative", "others found above",
            "trades found in positive", "with the errors of plain cases")  # fmt: skip
    print("\n".join((f"| {' | '.join(head)} |", f"|{'---|' * len(head)}")))
    with tempfile.TemporaryDirectory() as temporary:
        home = given.home or Path(temporary)
        home.mkdir(parents=True, exist_ok=True)
        told = {"files": (str(write(home / "trade_prompt.json")),), "judge": str(silent(home)), "most": 16, "nucleus": 1.0}
        for dose in given.doses:
            for seed in given.seeds:
                print(f"| {' | '.join(row_of(seed, dose, home, told))} |", flush=True)


if __name__ == "__main__":
    main()
