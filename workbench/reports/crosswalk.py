"""Where in a report a reader of a published framework finds something: headings only, and no claim that a requirement is met."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from importlib import resources
from typing import Any

import yaml

from workbench.reports.words import ENGLISH, words_of

_TITLES = {
    "identity": "identity.title",
    "coverage": "coverage.title",
    "findings": "page.findings",
    "sections": "crosswalk.sections",
    "left_out": "page.left_out",
    "limits": "limits.title",
    "verdicts": "page.reading",
    "provenance": "page.provenance",
    "rederive": "page.rederive",
}


@cache
def frameworks() -> tuple[dict[str, Any], ...]:
    """The frameworks with their headings as the data file has them."""
    return tuple(yaml.safe_load((resources.files("workbench.reports") / "crosswalk.yaml").read_text(encoding="utf-8")))


def crosswalk(parts: Collection[str], sources: Collection[str], language: str = ENGLISH) -> list[dict[str, Any]]:
    """For each framework its name, to whom it applies, its source, and for each heading where this report says something.

    ``parts`` are the parts of the report that are not empty, ``sources`` what its findings come from. A heading points to nothing that
    is not there.
    """
    say = words_of(language)
    asked = {source.split()[-1] for source in sources if source.split()}
    out = []
    for framework in frameworks():
        rows = []
        for heading, wanted in framework["headings"]:
            if framework.get("suites"):
                found = [name for name in wanted if name in asked]
            else:
                found = [say(_TITLES[name]) for name in wanted if name in parts]
            rows.append((heading, "; ".join(found) or say("crosswalk.nothing")))
        out.append(
            {
                "name": framework["name"],
                "applies": say("crosswalk.applies", who=say(framework["applies"])),
                "source": say("crosswalk.source", source=framework["source"]),
                "rows": rows,
            }
        )
    return out
