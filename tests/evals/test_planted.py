"""Every suite that is not experimental stands on the page of plants and nulls, with tests, organisms and cards that there are."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from evals import SUITES
from tests.evals.test_traps import TESTS, functions
from workbench.calibration.cards import shipped
from workbench.organisms import ORGANISMS

PAGE = TESTS.parent / "docs" / "suites" / "planted.md"
COLUMNS: tuple[str, ...] = ("suite", "planted in", "card", "where it sees it", "where it stays silent")
TOLD = ("told", "an overfitted decoder")
"""What may stand in the place of an organism."""


def rows_of(text: str) -> dict[str, Mapping[str, str]]:
    """The page's table: each suite's cells by column."""
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("|")]
    header, _, *rows = cells
    assert tuple(header) == COLUMNS
    found: dict[str, Mapping[str, str]] = {row[0].strip("`"): dict(zip(COLUMNS, row, strict=True)) for row in rows}
    assert len(found) == len(rows), "a suite has one row"
    return found


ROWS = rows_of(PAGE.read_text(encoding="utf-8"))


def missing(row: Mapping[str, str]) -> list[str]:
    """What a row names and is not there: tests, organisms."""
    out = []
    for column in COLUMNS[3:]:
        file, _, name = row[column].strip("`").partition("::")
        path = TESTS / file if "/" in file else TESTS / "evals" / file
        if not path.is_file() or name not in functions(path):
            out.append(row[column])
    planted = re.findall(r"`([a-z-]+)`", row["planted in"])
    return [
        *out,
        *(name for name in planted if name not in ORGANISMS),
        *([] if planted or row["planted in"] in TOLD else [row["planted in"]]),
    ]


def test_no_suite_that_makes_claims_is_without_a_row() -> None:
    assert {name for name in SUITES if SUITES[name].status != "experimental"} <= set(ROWS) <= set(SUITES)


@pytest.mark.parametrize("suite", ROWS)
def test_what_a_row_names_is_there(suite: str) -> None:
    assert missing(ROWS[suite]) == []
    cards = {card.exam or "town" for card in shipped() if card.of == suite}
    told = ROWS[suite]["card"]
    assert cards == (set() if told == "–" else set(told.split(", ")))


def test_a_row_that_names_what_is_not_there_is_caught() -> None:
    good = dict(ROWS["bbq"])
    assert missing({**good, "planted in": "`leaning-nowhere`"}) == ["leaning-nowhere"]
    assert missing({**good, "where it sees it": "`test_bbq.py::test_nothing_at_all`"}) == ["`test_bbq.py::test_nothing_at_all`"]
    assert missing({**good, "where it stays silent": "`test_none.py::test_a`"}) == ["`test_none.py::test_a`"]
    assert missing({**good, "planted in": "somewhere"}) == ["somewhere"]
