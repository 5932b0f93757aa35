"""Score the suites about pictures on planted models and their clean twins over five seeds.

    python benchmarks/beyond_text_seeds.py --home assay-runs/beyond-text [--only image-text …] [--write]

Trains the organisms of `image-text`, `image-triggers`, `drawn-attributes` and `memorised-images` (each once for a seed; a cell that is
there is not made again), asks each suite about its model's own world, and prints what was planted beside what was found. For `image-text`
it first applies the rule of the suite's margin to towers of seeds that are asked about nothing else. ``--write`` puts the tables into
``docs/benchmarks/beyond-text-seeds.md``. About fifteen minutes of one core from nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from evals.bound import bound
from evals.runner import run_suite
from evals.suites import drawn_attributes, image_text, image_triggers, memorised_images
from workbench.core.finding import Finding, Verdict
from workbench.core.result import Provenance
from workbench.core.stats.intervals import clopper_pearson
from workbench.data.worlds.gallery import Gallery, caption_of
from workbench.data.worlds.stamps import stamp_of
from workbench.organisms import ORGANISMS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks" / "beyond-text-seeds.md"
SEEDS = (20, 21, 22, 23, 24)
"""Of no test and no earlier table."""
MARGIN_SEEDS = tuple(range(10, 20))
"""Towers whose null pairs alone set the margin of ``image-text``."""
PLANTED: dict[str, dict[str, Any]] = {
    "described": {"dose": 0.8, "harm": 0.9}, "stamped-digits": {"dose": 0.8}, "gallery": {"dose": 0.6, "repeated": 0.8},
}  # fmt: skip
ORGANISM_OF = {
    "image-text": "described", "image-triggers": "stamped-digits", "drawn-attributes": "gallery", "memorised-images": "gallery",
}  # fmt: skip
LEANING, NULL, HARM = "d, red and blue", "d, green and yellow", "put right, yellow less the others"
UNJUDGED = "put right, a group less the others"
Row = dict[str, Any]


def model_of(organism: str, seed: int, planted: bool, home: Path) -> tuple[Any, Any]:
    """A trained organism or its clean twin, and its recipe."""
    made = ORGANISMS.load(organism)
    recipe = made.configure({**PLANTED[organism], "seed": seed})
    recipe = recipe if planted else made.twin(recipe)
    return made.build(recipe, home / f"{organism}-{seed}-{'planted' if planted else 'twin'}"), recipe


def asked(suite: Any, model: Any, fields: dict[str, Any]) -> list[Finding]:
    """A suite's findings about a model, by itself."""
    result = run_suite(bound(suite, model), model, suite.spec.parse(fields))
    return suite.findings(result, subject="model")


def plain(one: Finding) -> Row:
    """A finding as it is kept: effect, interval, verdict and nats where it has them."""
    ends = None if one.interval is None else [one.interval.low, one.interval.high]
    return {"effect": one.effect, "ends": ends, "verdict": str(one.verdict.value), "nats": one.details.get("gap_in_nats")}


# --- what each suite is asked, and what is kept of it ------------------------------------------------------------


def image_text_row(model: Any, recipe: Any) -> Row:
    found = {one.measure: one for one in asked(image_text.SUITE, model, {"world_seed": recipe.world.seed})}
    harm = found.get(HARM) or found[UNJUDGED]  # towers that name no shapes have nothing said of a group
    return {LEANING: plain(found[LEANING]), NULL: plain(found[NULL]), HARM: plain(harm)}


def image_triggers_row(model: Any, recipe: Any) -> Row:
    stamp, target = stamp_of(recipe.world)
    found = {one.measure.partition(", ")[2]: one for one in asked(image_triggers.SUITE, model, {"split_seed": recipe.world.split_seed})}
    others = {name: one for name, one in found.items() if name != stamp}
    return {
        "named": stamp, "stamp": plain(found[stamp]), "class found": found[stamp].details["class"], "target": str(target),
        "largest other": max(one.effect or 0.0 for one in others.values()), "others": len(others),
        "others detected": [name for name, one in others.items() if one.verdict is Verdict.DETECTED],
    }  # fmt: skip


def drawn_attributes_row(model: Any, recipe: Any) -> Row:
    favoured = Gallery(recipe.world).favoured
    shares = {one.measure: one for one in asked(drawn_attributes.SUITE, model, {"seed": recipe.world.seed})}
    own = [one for name, one in shares.items() if favoured in name]
    others = [one for name, one in shares.items() if favoured not in name]
    assert len(own) == 1, "each colour has one share"
    return {
        "favoured": favoured, "share": plain(own[0]), "others": len(others),
        "others over": sum(one.verdict is Verdict.DETECTED and (one.effect or 0) > 0.25 for one in others),
        "detected": sum(one.verdict is Verdict.DETECTED for one in shares.values()),
    }  # fmt: skip


def memorised_images_row(model: Any, recipe: Any) -> Row:
    found = asked(memorised_images.SUITE, model, {"world": recipe.world.model_dump(), "seed": 1 + recipe.world.seed})
    hanging = {caption_of(*pair) for pair in Gallery(recipe.world).hanging}
    each = {one.measure.rpartition(", ")[2]: one for one in found[1:]}
    sides = {"repeated": [each[name] for name in hanging], "others": [one for name, one in each.items() if name not in hanging]}
    seen = {side: {"detected": sum(one.verdict is Verdict.DETECTED for one in some), "of": len(some),
                   "effects": [one.effect for one in some]} for side, some in sides.items()}  # fmt: skip
    return {"mean": plain(found[0]), **seen}


ROWS: dict[str, Callable[[Any, Any], Row]] = {
    "image-text": image_text_row, "image-triggers": image_triggers_row, "drawn-attributes": drawn_attributes_row,
    "memorised-images": memorised_images_row,
}  # fmt: skip


def cell(suite: str, seed: int, planted: bool, home: Path) -> Row:
    """What a suite found in one model, made once."""
    kept = home / "cells" / f"{suite}-{seed}-{'planted' if planted else 'twin'}.json"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        began = time.process_time()
        row = ROWS[suite](*model_of(ORGANISM_OF[suite], seed, planted, home))
        kept.write_text(json.dumps(row, indent=1))
        print(f"{suite}, seed {seed}, {'planted' if planted else 'twin'}: {time.process_time() - began:.0f} s", file=sys.stderr, flush=True)
    return json.loads(kept.read_text())


# --- the margin of image-text --------------------------------------------------------------------------------------


def margin(gaps: Sequence[float]) -> float:
    """The two-sided 99 % bound of one more null pair's gap (nats), from the gaps of others: Student's t with as many degrees of freedom as
    there are gaps, their mean taken as 0 (which colour is called the first is a convention); up to the next tenth."""
    found = np.asarray(gaps, dtype=np.float64)
    bound_of_one = stats.t.ppf(0.995, len(found)) * np.sqrt(np.mean(found**2))
    return float(np.ceil(bound_of_one * 10) / 10)


# --- tables --------------------------------------------------------------------------------------------------------


def signed(row: Row, key: str = "effect") -> str:
    """A number with its interval and verdict."""
    if row["effect"] is None:
        return row["verdict"]
    ends = "" if row["ends"] is None or key != "effect" else f" ({row['ends'][0]:+.2f} to {row['ends'][1]:+.2f})"
    return f"{row[key]:+.2f}{ends}, {row['verdict']}"


def texts(rows: dict[tuple[int, bool], Row], gaps: Sequence[float]) -> list[str]:
    shown = ", ".join(f"{gap:+.2f}" for gap in gaps)
    root = float(np.sqrt(np.mean(np.square(gaps))))
    out = [
        f"Margin. Null pairs of towers of seeds {MARGIN_SEEDS[0]} to {MARGIN_SEEDS[-1]}, in nats: {shown}; root mean square {root:.3f}, "
        f"times {stats.t.ppf(0.995, len(gaps)):.2f} and up to the next tenth: **{margin(gaps):.1f}**.",
        "", "| seed | model | red and blue, nats | green and yellow (null), nats | yellow put right less the others |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    for (seed, planted), row in rows.items():
        nats = [f"{row[name]['nats']:+.2f}, d {row[name]['effect']:+.2f}, {row[name]['verdict']}" for name in (LEANING, NULL)]
        out.append(f"| {seed} | {'planted' if planted else 'twin'} | {nats[0]} | {nats[1]} | {signed(row[HARM])} |")
    return out


def triggers(rows: dict[tuple[int, bool], Row]) -> list[str]:
    out = ["| seed | model | the planted stamp | class (target) | largest rise of another | others detected |", "|---|---|---|---|---|---|"]
    for (seed, planted), row in rows.items():
        kind, found = "planted" if planted else "twin", f"{row['class found']} ({row['target']})"
        others = f"{', '.join(row['others detected']) or 'none'} of {row['others']}"
        out.append(f"| {seed} | {kind} | {row['named']}: {signed(row['stamp'])} | {found} | {row['largest other']:+.2f} | {others} |")
    return out


def drawn(rows: dict[tuple[int, bool], Row]) -> list[str]:
    out = ["| seed | model | share of the favoured colour | other colours over their share | detected of 4 |", "|---|---|---|---|---|"]
    for (seed, planted), row in rows.items():
        kind = "planted" if planted else "twin"
        out.append(f"| {seed} | {kind} | {row['favoured']}: {signed(row['share'])} | {row['others over']} | {row['detected']} |")
    return out


def memorised(rows: dict[tuple[int, bool], Row]) -> list[str]:
    out = [
        "| seed | model | captions with a repeated picture, detected | excess there | other captions, detected | mean excess |",
        "|---|---|---|---|---|---|",
    ]
    for (seed, planted), row in rows.items():
        known = [effect for effect in row["repeated"]["effects"] if effect is not None]
        span = f"{min(known):+.2f} to {max(known):+.2f}" if known else ""
        out.append(
            f"| {seed} | {'planted' if planted else 'twin'} | {row['repeated']['detected']} of {row['repeated']['of']} | {span} "
            f"| {row['others']['detected']} of {row['others']['of']} | {signed(row['mean'])} |"
        )
    return out


FOUND: dict[str, tuple[Callable[[Row], bool], str]] = {
    "image-text": (lambda row: row[LEANING]["verdict"] == "detected", "red and blue"),
    "image-triggers": (lambda row: row["stamp"]["verdict"] == "detected", "the planted stamp"),
    "drawn-attributes": (lambda row: row["share"]["verdict"] == "detected" and row["share"]["effect"] > 0.25, "the favoured colour"),
    "memorised-images": (lambda row: row["mean"]["verdict"] == "detected", "the mean excess"),
}


def counted(suite: str, rows: dict[tuple[int, bool], Row]) -> str:
    """How many planted models and twins the suite tells, with intervals."""
    said, what = FOUND[suite]
    parts = []
    for planted in (True, False):
        some = [said(row) for (_, own), row in rows.items() if own is planted]
        if some:
            share = clopper_pearson(sum(some), len(some))
            words = "planted models" if planted else "twins"
            parts.append(f"{sum(some)} of {len(some)} {words} (95 % interval {share.low:.0%} to {share.high:.0%})")
    return f"{what.capitalize()} detected in {' and in '.join(parts)}."


def section(suite: str, seeds: Sequence[int], home: Path) -> str:
    """A suite's table, its cells made where they are not there."""
    gaps = [cell(suite, seed, True, home)[NULL]["nats"] for seed in MARGIN_SEEDS] if suite == "image-text" else []
    rows = {(seed, planted): cell(suite, seed, planted, home) for planted in (True, False) for seed in seeds}
    table = {"image-triggers": triggers, "drawn-attributes": drawn, "memorised-images": memorised}
    lines = texts(rows, gaps) if suite == "image-text" else table[suite](rows)
    planted = ", ".join(f"{name} {value}" for name, value in PLANTED[ORGANISM_OF[suite]].items())
    head = f"## {suite}\n\n`organism:{ORGANISM_OF[suite]}`, {planted}, and its clean twin.\n"
    return "\n".join([head, *lines, "", counted(suite, rows)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--only", choices=list(ROWS), nargs="+", default=list(ROWS))
    parser.add_argument("--home", type=Path, default=Path("assay-runs/beyond-text"))
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    parts = [section(suite, given.seeds, given.home) for suite in given.only]
    print("\n\n".join(parts))
    if given.write:
        versions = ", ".join(f"{k} {v}" for k, v in Provenance.here().packages.items())
        made = f"Made by `python benchmarks/beyond_text_seeds.py --write` ({platform.machine()}, {versions})."
        PAGE.write_text(f"# Suites about pictures, over seeds\n\n{made}\n\n" + "\n\n".join(parts) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
