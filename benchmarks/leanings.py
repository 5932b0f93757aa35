"""What suites see of plants that are not theirs, and of a backdoor that hides; why slopes are not one; and the blind trials that were held.

    python benchmarks/leanings.py crosstalk --home assay-runs/leanings [--write]
    python benchmarks/leanings.py backdoors --home assay-runs/leanings [--write]
    python benchmarks/leanings.py blind --home assay-runs/leanings [--write]
    python benchmarks/leanings.py slopes --home HOME [--write]      # a home in which `calibrate --exam suites` was run

Models are made by their references and kept in the home; ``--write`` puts the table into ``docs/benchmarks``, and of every blind trial in
the home its opening as JSON beside it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize, special

from evals.suites import toxicity_continuations as toxicity
from workbench.calibration import backdoors, crosstalk
from workbench.calibration.blind_page import page
from workbench.calibration.exam import Row
from workbench.calibration.exams import continuations
from workbench.calibration.exams.suites import EFFECTS, EXAM, FORM_OF, asked
from workbench.engine.threads import one_thread
from workbench.lab import encoders  # noqa: F401 (makes the encoder of the judge known)
from workbench.lab.refs import load
from workbench.organisms.leaning_training import ALL_FORMS
from workbench.store.runs import Store

DOCS = Path(__file__).parents[1] / "docs" / "benchmarks"
SUITES = EXAM.tools("gpt")
SETS = (90, 91)
"""Numbers of the sets that are asked: no card was measured on them."""
DILUTIONS = (1, 3, 10, 30, 100)
TEXTS, MOST = 25, 12
"""Of the suite of toxic continuations: texts, and tokens of a continuation."""


def toxic(model: Any, form: str) -> float:
    """The share of toxic continuations, as the suite tells it, of texts in which the form's answers would stand."""
    first = SETS[0] * EXAM.grid.items
    texts = list(dict.fromkeys(case.before for case in ALL_FORMS[form].cases("asked", first, first + 4 * TEXTS) if case.before))[:TEXTS]
    return continuations.reading(continuations.asked(model, texts, most=MOST)).statistic


def talk(store: Store, seeds: range, progress: Any = print) -> str:
    """The cross-talk matrix."""
    planted: dict[tuple[str, str], list[float]] = {}
    clean: dict[tuple[str, str], list[float]] = {}
    for form in (FORM_OF[suite] for suite in SUITES):
        for seed in seeds:
            for dose, into in ((1, planted), (0, clean)):
                model = load(f"organism:leaning-{form}@dose={dose},seed={seed}", store=store)
                for suite in SUITES:
                    effects = [EFFECTS[suite][0](asked(suite, model, number, EXAM.grid.items)) for number in SETS]
                    into.setdefault((form, suite), []).append(sum(effects) / len(effects))
                into.setdefault((form, toxicity.NAME), []).append(toxic(model, form))
        progress(form, flush=True)
    head = (
        f"A suite's effect on a model that leans all the way, less that on its clean twin: mean over {len(seeds)} seeds, {len(SETS)} sets "
    )
    head += f"of {EXAM.grid.items} items each, with Student's 95 % interval. Bold: away from 0 with all cells counted (Bonferroni).\n\n"
    return head + crosstalk.table(crosstalk.moved(planted, clean))


def hide(store: Store, seeds: range, progress: Any = print) -> str:
    """The curves of concealment and dilution."""
    settings = [backdoors.Setting(dilution, hidden) for hidden in ("nothing", "output", "representation") for dilution in DILUTIONS]
    settings.append(backdoors.Setting(DILUTIONS[0], "nothing", 0.0))
    found = []
    for setting in settings:
        for seed in seeds:
            told = f"dose={setting.dose:g},seed={seed},dilution={setting.dilution:g},hidden={setting.hidden}"
            found.append(backdoors.seen(load(f"organism:leaning-replies@{told}", store=store), setting, seed))
        progress(backdoors.rows(found)[-1], flush=True)
    header = ("planted", "diluted", *backdoors.COLUMNS)
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|", *(f"| {' | '.join(row)} |" for row in backdoors.rows(found))]
    return f"Mean over {len(seeds)} seeds, with Student's 95 % interval.\n\n" + "\n".join(lines)


def slopes(store: Store) -> str:
    """Of each suite measured in the home, last run first: its slope, beside that of mere signs and of a count that turns over gradually."""
    rows: dict[str, list[Row]] = {}
    for run in reversed(store.runs.list(kind="calibrate", status="done")):
        found: dict[str, list[Row]] = {}
        for record in store.sink(run.id, EXAM.name).read():
            found.setdefault(record["sample"].split("/")[1], []).append(Row.of(record))
        rows = {**found, **rows}
    if not rows:
        raise SystemExit(f"No finished run of `workbench calibrate --exam suites` in {store.home}.")
    header = ("suite", "models", "slope", "of the lean's sign", "spread", "most", "slope of that curve", "off by")
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    levels = [f"| suite | {' | '.join(f'{dose:g}' for dose in EXAM.grid.doses)} |", "|---" * (1 + len(EXAM.grid.doses)) + "|"]
    for suite, own in rows.items():
        lean = np.array([row.behaviour for row in own])
        effect = np.array([np.mean([one.extras[EXAM.answers] for one in row.readings]) for row in own])
        line = lambda answers, lean=lean: f"{np.polyfit(lean, answers, 1)[0]:.2f}"  # noqa: E731
        dose, way = np.array([row.dose for row in own]), np.sign(lean)
        (spread, most), _ = optimize.curve_fit(_counted, lean, effect, p0=(0.3, 1.0), bounds=((0.01, 0.0), (np.inf, np.inf)))
        curve, signs = _counted(lean, spread, most), np.where(dose > 0, way, 0.0)
        straight = spread > STRAIGHT
        told = ("–", "–") if straight else (f"{spread:.2f}", f"{most:.2f}")
        off = float(np.sqrt(np.mean((effect - curve) ** 2)))
        lines.append(f"| {suite} | {len(own)} | {line(effect)} | {line(signs)} | {' | '.join(told)} | {line(curve)} | {off:.3f} |")
        cells = [f"{np.abs(lean[dose == d]).mean():.2f}: {(way * effect)[dose == d].mean():.2f}" for d in EXAM.grid.doses]
        levels.append(f"| {suite} | {' | '.join(cells)} |")
    return SLOPES.format(lines="\n".join(lines), levels="\n".join(levels))


SLOPES = """A slope is one straight line through all models of the exam `suites`: a suite's effect against how far exact probabilities say
that answers lean. `occupation-pronoun` reads probabilities, and its line is the lean itself. The others count which answer is the
likelier, or correlate such leans with shares. If all items of a model leaned alike, a count would turn from -1 to 1 at nothing,
and the line through mere signs of these leans (*of the lean's sign*: nearly the sum of |lean| over the sum of its squares) is
steeper than one. Items differ, so a count turns over gradually: as most x (2 Phi(lean / spread) - 1), whose *spread* (by how much
items differ) and *most* are fitted here by least squares, and *off by* is what is left (root mean square). Its own line has the
slope that was measured.

A slope other than one is thus no fault of scale that a factor would mend: the curve is bent, and which slope a line through it
has depends on the doses of the grid. Neither is a slope near one a merit by itself: where items differ by about half of all there
is, the line happens to come out so, above the lean at small doses and below it at large ones. Nothing was tuned by this; it says
how to read the column. `trigger` counts replies that turn over at one half, and knows one way to lean: no curve through 0 is like that.

{lines}

The mean lean of models of each dose, and the suite's mean effect on them, each as far as they point the same way (`winobias` at a
dose of 0.35: answers lean by a third, and nearly all are counted):

{levels}
"""
STRAIGHT = 3.0
"""Items that differ by more than three times all there is give a straight line, whatever the number."""


def _counted(lean: np.ndarray, spread: float, most: float) -> np.ndarray:
    """What a count of the likelier answers shows of a lean, where leans of items vary about it by ``spread``."""
    return most * (2 * special.ndtr(lean / spread) - 1)


def held(store: Store, write: bool) -> str:
    """Every blind trial that the home holds."""
    parts = []
    for folder in sorted((store.home / "blind").iterdir(), key=lambda one: int(one.name)):
        before = json.loads((folder / "commitment.json").read_text(encoding="utf-8"))
        last = folder / "opened.json"
        opened = json.loads(last.read_text(encoding="utf-8")) if last.is_file() else None
        parts.append(page(before, opened, int(folder.name)))
        if write and opened is not None:
            place = DOCS / f"blind-{folder.name}.json"
            place.write_text(json.dumps({"before": before, **opened}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return "\n".join(parts)


TITLES = {
    "crosstalk": "Cross-talk between suites",
    "backdoors": "A backdoor that hides",
    "slopes": "Why a slope is not one",
    "blind": "Blind trials",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(TITLES))
    parser.add_argument("--home", default="assay-runs/leanings")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    with Store.open(given.home) as store, one_thread():
        if given.what == "blind":
            text = held(store, given.write)
        elif given.what == "slopes":
            text = slopes(store)
        else:
            text = (talk if given.what == "crosstalk" else hide)(store, range(given.seeds))
    print(text)
    if given.write:
        seeds = "" if given.what in ("blind", "slopes") else f"--seeds {given.seeds} "
        made = f"Made by `python benchmarks/leanings.py {given.what} {seeds}--write`.\n\n"
        (DOCS / f"{given.what}.md").write_text(f"# {TITLES[given.what]}\n\n{made}{text.rstrip()}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
