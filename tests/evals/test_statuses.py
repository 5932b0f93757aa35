"""What a suite's page says of its status is what the catalogue says.

A headline suite has a card, and tests whose names say of bad input that it is refused or counted; its page has a row on speed, or says that
it has none of its own: either will do, so a page that passes need not have a row.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from evals import SUITES
from tests.evals.test_traps import TESTS, functions
from workbench.calibration.cards import shipped

PAGES = TESTS.parent / "docs" / "suites"
SPEED = "(../engine.md#what-is-computed)"
NO_ROW = "no row of its own on speed"
BAD_INPUT = re.compile(r"refused|bad_(file|line|folder)|unscored\w*_(counted|reason)")
"""In the name of a test: what is done about the input, not the bare word."""
WITH_PAGE = sorted(name for name in SUITES if (PAGES / f"{name}.md").is_file())


def status_of(text: str) -> str:
    """What a page says; '' where it says nothing."""
    found = re.search(r"^Status: (headline|standard|experimental)\b", text, re.MULTILINE)
    return found[1] if found else ""


def lacking(text: str, cards: bool, tests: Path) -> list[str]:
    """What a headline suite of this page, with or without cards, and with these tests is short of."""
    out = [] if cards else ["card"]
    out += [] if SPEED in text or NO_ROW in text else ["speed row, or that there is none"]
    return out + ([] if any(BAD_INPUT.search(name) for name in functions(tests)) else ["tests of bad input"])


@pytest.mark.parametrize("name", WITH_PAGE)
def test_a_page_tells_the_catalogues_status(name: str) -> None:
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert status_of(text) == SUITES[name].status
    if SUITES[name].status == "headline":
        cards = any(card.of == name for card in shipped())
        assert lacking(text, cards, TESTS / "evals" / f"test_{name.replace('-', '_')}.py") == []


def test_a_headline_suite_has_a_page() -> None:
    headline = {name for name in SUITES if SUITES[name].status == "headline"}
    assert {"bbq", "stereoset", "winobias", "group-fairness", "crows-pairs"} <= headline
    assert headline <= set(WITH_PAGE)


def test_a_page_without_what_it_promises_is_caught(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("def test_two_ways_to_be_bad():\n    assert True\ndef test_a_tie_is_unscored():\n    assert True\n")
    assert lacking("Status: headline.", False, tmp_path / "t.py") == ["card", "speed row, or that there is none", "tests of bad input"]
    assert status_of("# bbq\n\nNo status here: headline.") == ""
