"""Write the tables of all shipped cards into ``docs/calibration.md``.

    python benchmarks/atlas.py

The cards themselves are measured by ``workbench calibrate``; what stands in a home's folder ``cards`` is copied, exam by exam, into
``workbench/calibration/shipped`` by ``--from HOME``. A tool whose newest card lies under its exam's floor is withheld, and said so.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from workbench.calibration.atlas import page
from workbench.calibration.cards import dump, measured, shipped
from workbench.calibration.exam import Exam
from workbench.calibration.exams import EXAMS

ROOT = Path(__file__).parents[1]
HEADING = "## All cards\n\n"


def ship(home: Path) -> None:
    """Put the cards measured in ``home`` into the package, one file an exam; shipped ones of what was not measured there stay."""
    for exam in EXAMS:
        found = {(card.family, card.of): card for card in (*shipped(), *measured(home)) if card.exam == exam}
        whole: Exam = EXAMS.load(exam)
        for key, card in list(found.items()):
            if why := whole.under_floor(card.of, card.rates, whole.grid):
                print(f"withheld on {card.family}: {why}")
                del found[key]
        if found:
            text = dump([found[key] for key in sorted(found)])
            (ROOT / "workbench" / "calibration" / "shipped" / f"{exam}.json").write_text(text, encoding="utf-8")
    shipped.cache_clear()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="home", default="", help="a home whose cards become the shipped ones")
    asked = parser.parse_args()
    if asked.home:
        ship(Path(asked.home))
    place = ROOT / "docs" / "calibration.md"
    before, heading, _ = place.read_text(encoding="utf-8").partition(HEADING)
    place.write_text(before + heading + page(shipped()), encoding="utf-8")
    print(f"{len(shipped())} cards written to {place}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
