"""Where the failure of four suites lives in decoders trained to have it, and what a repair does on held-out items and on ordinary text.

``python benchmarks/internals_truth.py --home STORE`` trains (or finds there) the leaning organisms, which were tuned on a planted leaning
and not operated on, asks each its own suite, and looks for the failure as an audit does. No list of parts is known for them, so what is
told is the held-out repair test: how much of the failure goes away, how much random sets of as many parts take away, and the cost in nats
a token on texts of all other forms. Of a clean twin the suite should find no failure, and then nothing is looked for.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from evals import SUITES
from evals.runner import run_suite
from workbench.core.errors import BadValue
from workbench.lab.failures import FAILURES, Asked, has_failed
from workbench.lab.internals import locate
from workbench.lab.internals_findings import findings
from workbench.lab.refs import load
from workbench.organisms.leaning_training import ALL_FORMS
from workbench.store.runs import Store

FORMS = {"crows-pairs": "pairs", "stereoset": "blanks", "winobias": "readings", "trigger": "replies"}
ITEMS = 240


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", default="assay-runs", help="the store with the organisms, or where they go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--suites", nargs="+", default=list(FORMS))
    asked = parser.parse_args()
    print("| suite | organism | parts that carry it (Holm) | repair | failure, held out | repaired | random sets | nats a token |")
    print("|---|---|---|---|--:|--:|--:|--:|")
    with Store.open(asked.home) as store:
        for suite in asked.suites:
            for seed in asked.seeds:
                for dose in (1.0, 0.0):
                    print(row(suite, f"organism:leaning-{FORMS[suite]}@dose={dose},seed={seed}", store), flush=True)


def row(suite: str, ref: str, store: Store) -> str:
    """One line of the table."""
    model: Any = load(ref, store=store)
    chosen = SUITES.load(suite)
    with tempfile.TemporaryDirectory() as folder:
        spec = chosen.spec.parse(ALL_FORMS[FORMS[suite]].ask(1, ITEMS, Path(folder)))
        result = run_suite(chosen, model, spec, batch=512)
        if not has_failed(chosen, result, ref, 0.95):
            return f"| {suite} | `{ref}` | the suite finds no failure | | | | | |"
        try:
            found = locate(model, FAILURES[suite](Asked(model, result, None, others(FORMS[suite]))))
        except BadValue as error:
            return f"| {suite} | `{ref}` | refused: {error} | | | | | |"
    v: Any = found.values
    carrying = [str(n) for n, p, e in zip(v.part.values, v.holm.values, v.effect.mean("item").values, strict=True) if p <= 0.05 and e > 0]
    repair, *cost = findings(found, ref, 0.95)
    names = ", ".join(repair.details.get("repair", [])) or "none"
    left = [f"{float(v.failure.mean()):.2f}", f"{float(v.repaired.mean()):.2f}", f"{float((v.failure - v.random).mean()):+.2f} taken"]
    nats = f"{cost[0].effect:+.3f}" if cost and cost[0].effect is not None else "–"
    return f"| {suite} | `{ref}` | {', '.join(carrying) or 'none'} | {names} | {' | '.join(left)} | {nats} |"


def others(form: str) -> list[str]:
    """Held-out texts of the other forms, as they stand with their likeliest answer."""
    out: list[str] = []
    for name in [name for name in ALL_FORMS if name != form]:
        for case in ALL_FORMS[name].cases("asked", 0, 15):
            out.append(f"{case.before} {case.options[max(range(len(case.base)), key=case.base.__getitem__)]}{case.after}")
    return out


if __name__ == "__main__":
    main()
