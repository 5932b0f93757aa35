"""What suites see of plants that are not theirs, and of a backdoor that hides; and the blind trials that were held.

    python benchmarks/leanings.py crosstalk --home assay-runs/leanings [--write]
    python benchmarks/leanings.py backdoors --home assay-runs/leanings [--write]
    python benchmarks/leanings.py blind --home assay-runs/leanings [--write]

Models are made by their references and kept in the home; ``--write`` puts the table into ``docs/benchmarks``, and of every blind trial in
the home its opening as JSON beside it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from workbench.calibration import backdoors, crosstalk
from workbench.calibration.blind_page import page
from workbench.calibration.exams.suites import EFFECTS, EXAM, FORM_OF, asked
from workbench.engine.threads import one_thread
from workbench.lab.refs import load
from workbench.store.runs import Store

DOCS = Path(__file__).parents[1] / "docs" / "benchmarks"
SUITES = EXAM.tools("gpt")
SETS = (90, 91)
"""Numbers of the sets that are asked: no card was measured on them."""
DILUTIONS = (1, 3, 10, 30, 100)


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


TITLES = {"crosstalk": "Cross-talk between suites", "backdoors": "A backdoor that hides", "blind": "Blind trials"}


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
        else:
            text = (talk if given.what == "crosstalk" else hide)(store, range(given.seeds))
    print(text)
    if given.write:
        seeds = "" if given.what == "blind" else f"--seeds {given.seeds} "
        made = f"Made by `python benchmarks/leanings.py {given.what} {seeds}--write`.\n\n"
        (DOCS / f"{given.what}.md").write_text(f"# {TITLES[given.what]}\n\n{made}{text.rstrip()}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
