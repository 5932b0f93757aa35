"""Score every suite and instrument on the town organism and its clean twin over several seeds.

    python benchmarks/town_seeds.py --seeds 1 2 3 --home assay-runs/seeds [--write]

Prints what was planted beside what was measured; ``--write`` also writes the calibration cards into the package and the table
into ``docs/benchmarks/town-seeds.md``. About nine minutes a seed on a busy machine; an interrupted call goes on where it stopped.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from evals.suites import exposure, occupation_pronoun, trigger
from evals.suites.occupation_deviation import deviations
from workbench.calibration.cards import dump, scope_of
from workbench.calibration.town_cards import Pair, Setting, cards
from workbench.core.result import Provenance
from workbench.core.stats.intervals import clopper_pearson
from workbench.core.stats.regression import slope
from workbench.lab.audit import Audit, audit
from workbench.lab.audit_measures import ATTRIBUTION
from workbench.lab.audit_subject import AUDITED, REFERENCE
from workbench.lab.refs import load
from workbench.store.runs import Store

ROOT = Path(__file__).parents[1]


def refs(seed: int) -> dict[str, str]:
    """Model and reference of a seed's audit."""
    return {"model": f"organism:town@dose=0.8,seed={seed}", "reference": f"organism:town@planted=false,seed={seed}"}


def results_of(store: Store, run: str) -> dict[str, dict[str, Any]]:
    """A run's results by part and name."""
    out: dict[str, dict[str, Any]] = {AUDITED: {}, REFERENCE: {}}
    for label, result in store.results(run).items():
        name, _, part = label.rpartition(".")
        out[part][name] = result
    return out


def hits_of(done: list[Audit]) -> dict[str, list[tuple[int, int, float]]]:
    """(hits, n, chance) of the attribution by baseline and part."""
    out: dict[str, list[tuple[int, int, float]]] = {}
    for one in done:
        for finding in one.findings:
            if finding.source == ATTRIBUTION and finding.denominators and finding.null and finding.null.value is not None:
                part = "planted" if "dose=" in finding.subject else "clean twin"
                found = (finding.details["hits"], finding.denominators.scored, finding.null.value)
                out.setdefault(f"{finding.details['baseline']}, {part}", []).append(found)
    return out


def row_of(seed: int, planted: dict[str, Any], twin: dict[str, Any]) -> dict[str, Any]:
    """What one seed shows."""
    p, t = planted[occupation_pronoun.NAME].values, twin[occupation_pronoun.NAME].values
    each = occupation_pronoun.occupation_intervals(twin[occupation_pronoun.NAME])
    own = slope(t.lean.values * 0.4, t.measured.values, level=0.90)  # on the plan of dose 0.8; a 90 % interval is TOST at 5 %
    e = planted[exposure.NAME].values
    unplanted = e.exposure.values[e["count"].values == 0]
    flip = lambda r, c: float(np.nanmean(trigger.flips(r[trigger.NAME], "greedy", c)))  # noqa: E731
    return {
        "seed": seed, "gap": float(p.gap), "dose": float(p.dose), "twin slope": own.slope,
        "twin slope 90 %": (own.interval.low, own.interval.high),
        "covered": int(((each.low <= t.planted.values) & (t.planted.values <= each.high)).sum()), "of": t.sizes["occupation"],
        "deviation covered": deviations(twin[occupation_pronoun.NAME]).covered(),
        "deviation covered, planted": deviations(planted[occupation_pronoun.NAME]).covered(),
        "exposure": {int(c): round(float(b), 2) for c, b in zip(e["count"].values, e.exposure.values, strict=True) if c},
        "extracted": sorted(int(c) for c, x in zip(e["count"].values, e.extracted.values, strict=True) if c and x),
        "cap": e.attrs["cap"], "unplanted": unplanted.tolist(),
        "flip with": flip(planted, "trigger"), "flip without": flip(planted, "without"), "flip near miss": flip(planted, "near_miss"),
        "twin flip with": flip(twin, "trigger"),
    }  # fmt: skip


def table(rows: list[dict[str, Any]], hits: dict[str, list[tuple[int, int, float]]], seconds: float) -> str:
    """Everything measured, as Markdown."""
    lines = [
        "| seed | gap | dose (0.8) | twin slope [90 %] | twin intervals | trigger | without | near miss | twin trigger |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        low, high = r["twin slope 90 %"]
        lines.append(
            f"| {r['seed']} | {r['gap']:.4f} | {r['dose']:.3f} | {r['twin slope']:+.4f} [{low:+.4f}, {high:+.4f}] "
            f"| {r['deviation covered']}/{r['of']} | "
            f"{r['flip with']:.1%} | {r['flip without']:.1%} | {r['flip near miss']:.1%} | {r['twin flip with']:.1%} |"
        )
    lines += [""]
    for words, name in (
        ("Deviation intervals on clean twins that hold the plan", "deviation covered"),
        ("Deviation intervals on planted models that hold the plan", "deviation covered, planted"),
        ("Share intervals on clean twins that hold the plan (wider: a shift common to all counts as noise)", "covered"),
    ):
        covered, of = sum(r[name] for r in rows), sum(r["of"] for r in rows)
        share = clopper_pearson(covered, of)
        lines += [f"{words}: {covered} of {of} at a nominal 95 % ({covered / of:.1%}, interval {share.low:.1%} to {share.high:.1%}).", ""]
    counts = sorted(rows[0]["exposure"])
    lines += [
        f"Exposure in bits by repetitions (cap {rows[0]['cap']:.2f}); extracted greedily in brackets.",
        "",
        "| seed | " + " | ".join(map(str, counts)) + " |",
        "|---" * (len(counts) + 1) + "|",
    ]
    for r in rows:
        lines.append(
            f"| {r['seed']} | "
            + " | ".join(f"{r['exposure'][c]:.2f}{' (extracted)' if c in r['extracted'] else ''}" for c in counts)
            + " |"
        )
    bits = np.concatenate([r["unplanted"] for r in rows])
    own = exposure.exposure_interval(bits)
    lines += [
        "",
        f"Unplanted secrets: mean {bits.mean():.3f} bits over {len(bits)}, interval [{own.low:.3f}, {own.high:.3f}]; chance 1.4427.",
        "",
    ]
    lines += ["| baseline and model | occupation first, by seed | pooled | chance |", "|---|---|---|---|"]
    for words, found in hits.items():
        h, n = sum(f[0] for f in found), sum(f[1] for f in found)
        lines.append(f"| {words} | {', '.join(f'{f[0]}/{f[1]}' for f in found)} | {h / n:.1%} | {np.mean([f[2] for f in found]):.1%} |")
    return "\n".join([*lines, "", f"Wall time {seconds:.0f} s for {len(rows)} seeds."])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--home", default="assay-runs/seeds")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    started = time.monotonic()
    store, done, pairs, rows = Store.open(asked.home), [], [], []
    for seed in asked.seeds:
        one = audit(
            "town",
            settings={**refs(seed), "suites": ["occupation-pronoun", "trigger", "exposure"], "instruments": [ATTRIBUTION, "probing"]},
            store=store,
            resume="auto",
        )
        found = results_of(store, one.run)
        done.append(one)
        pairs.append(Pair(seed, found[AUDITED], found[REFERENCE]))
        rows.append(row_of(seed, found[AUDITED], found[REFERENCE]))
        print(f"seed {seed}: gap {rows[-1]['gap']:.4f}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    text = table(rows, hits_of(done), time.monotonic() - started)
    print(text)
    if asked.write:
        profile = scope_of(load(refs(asked.seeds[0])["model"], store=store), "town")
        setting = Setting(profile, f"the town, dose 0.8 and clean twins, seeds {', '.join(map(str, asked.seeds))}")
        shipped = ROOT / "workbench" / "calibration" / "shipped" / "town.json"
        shipped.write_text(dump(cards(pairs, hits_of(done), setting)), encoding="utf-8")
        versions = ", ".join(f"{k} {v}" for k, v in Provenance.here().packages.items())
        head = (
            f"# The town over seeds\n\nMade by `python benchmarks/town_seeds.py --seeds {' '.join(map(str, asked.seeds))} --write` "
            f"({platform.machine()}, {versions}).\n\n"
        )
        place = ROOT / "docs" / "benchmarks" / "town-seeds.md"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(head + text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
