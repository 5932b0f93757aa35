"""No word of a set with a warning stands in a report, and the report says what it leaves out for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from probes.attention_pattern import AttentionPatternResult
from workbench.core.finding import Plan
from workbench.core.result import Provenance, Result
from workbench.data import sources
from workbench.lab.audit_findings import Described, Gathered, Origin
from workbench.lab.audit_report import compose
from workbench.reports.render import html
from workbench.reports.report import Report

NAME = "attention-pattern"
WORDS = ("quillwort", "marshbell", "fernseed")
"""Harmless, and nowhere else in a report."""


def result(words: tuple[str, ...]) -> AttentionPatternResult:
    size = len(words)
    tokens = np.array([words], dtype=object)
    values = xr.Dataset(
        {
            "pattern": (("layer", "head", "batch", "query", "key"), np.full((1, 1, 1, size, size), 1 / size)),
            "to_first": (("layer", "head", "batch"), np.full((1, 1, 1), 1 / size)),
            "row_error": (("layer", "head", "batch", "query"), np.zeros((1, 1, 1, size))),
            "query_token": (("batch", "query"), tokens),
            "key_token": (("batch", "key"), tokens),
        },
        coords={"layer": [0], "head": [0], "batch": [0], "query": range(size), "key": range(size)},
    )
    return AttentionPatternResult(NAME, values, notes=(f"Positions are {words[0]} to {words[-1]}.",))


def described(part: str, ref: str, task: str) -> Described:
    return Described(
        part=part, ref=ref, family="bert", config={"n_layers": 1}, parameters=9, model_digest="ab" * 32, domain="text",
        origin=Origin(words=f"trained for task {task}", trained_on=task, recipe="cd" * 32),
    )  # fmt: skip


def composed(parts: Mapping[Any, tuple[str, ...]], audited: str, reference: str) -> Report:
    """The report of models trained on these sets, each part asked about words of its own."""
    plan = Plan.parse({"name": "p", "model": "m", "reference": "r", "instruments": [NAME],
                       "mitigations": [{"method": "steering", "of": "trigger"}]})  # fmt: skip
    subjects = [described("audited", "m", audited), described("reference", "r", reference)]
    results: dict[str, dict[str, Result]] = {part: {NAME: result(words)} for part, words in parts.items()}
    return compose(plan, subjects, Gathered(results, [], []), date="2026-01-01", here=Provenance())


@pytest.fixture
def plants(monkeypatch: pytest.MonkeyPatch) -> str:
    """A set with a warning."""
    made = replace(sources.SOURCES["toxic-spans"], name="plants", warning="names of plants")
    monkeypatch.setitem(sources.SOURCES, made.name, made)
    return made.name


def test_no_word_of_a_set_with_a_warning_stands_in_a_report(plants: str) -> None:
    parts = dict.fromkeys(("audited", "reference", "mended-1"), WORDS)
    report = composed(parts, plants, plants)
    page, stored = html.render(report), report.to_json()
    assert [word for word in WORDS if word in page or word in stored] == []
    why = "it would show words of a set with a warning (names of plants); the stored result has its numbers"
    assert [(one.what, one.why) for one in report.left_out] == [(f"the figure of {NAME}, {part} model", why) for part in parts]


def test_what_the_other_model_was_asked_is_drawn_in_words(plants: str) -> None:
    report = composed({"audited": ("north", "south"), "reference": WORDS}, "towns", plants)
    (section,) = [one for one in report.sections if one.anchor == f"instrument-{NAME}"]
    assert [one.title for one in section.figures] == [f"{NAME}, audited model"]
    assert section.text == ("Positions are north to south.",)
    assert [word in report.to_json() for word in ("south", *WORDS)] == [True, False, False, False]
    assert [one.what for one in report.left_out] == [f"the figure of {NAME}, reference model"]
