"""Every organism of the catalogue stands on the page about them."""

import re
from pathlib import Path

from workbench.families import FAMILIES
from workbench.organisms import ORGANISMS


def test_the_page_names_every_organism() -> None:
    page = (Path(__file__).parents[2] / "docs" / "organisms.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)*)`", page.split("Compiled circuits")[0]))
    named |= {f"leaning-{rest}" for rest in re.findall(r"`-([a-z]+)`", page)} | {f"shortcut-{family}" for family in FAMILIES}
    assert set(ORGANISMS) <= named
