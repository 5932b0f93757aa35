"""Identity, denominators, limits and the crosswalk: nothing is left out silently, and nothing is claimed that is not there."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tests.reports.sample import COVERAGE, IDENTITIES, findings, sample
from workbench.core.finding import Verdict
from workbench.reports.crosswalk import crosswalk, frameworks
from workbench.reports.parts import Coverage, Identity
from workbench.reports.report import Report
from workbench.reports.standard import coverage_tables, identity_tables, limit_lines, several_identities
from workbench.reports.view import view
from workbench.reports.words import words_of


def test_what_nobody_stated_is_said_to_be_not_stated() -> None:
    full, manifest, bare = identity_tables(IDENTITIES)
    assert ("Licence", "Apache-2.0") in full.rows
    assert ("Parameters", "859,904") in full.rows
    assert manifest.rows[0] == ("town world, dose 0.8", "40,000", "Apache-2.0", "generated", "c4a2" * 16)
    assert manifest.rows[1] == ("secrets", "3", "not stated", "not stated", "not stated")
    assert ("Licence", "not stated") in bare.rows
    assert ("Training data", "No training data are stated, so nothing is known about what the model has seen.") in bare.rows


def test_denominators_add_up_or_are_refused() -> None:
    counts, reasons = coverage_tables(COVERAGE)
    for row in counts.rows:
        drawn, excluded, run, scored, passed, unscored, refused, out = (-1 if cell is None else int(cell) for cell in row[2:])
        assert drawn == excluded + run
        assert run == scored + unscored + refused + out
        assert passed <= scored
    assert ("trigger", "audited", "no parse", 2) in reasons.rows
    assert coverage_tables(()) == []
    with pytest.raises(ValidationError, match="not 10 = 9"):
        Coverage(kind="suite", asked="a", model="m", run=10, scored=8, unscored={"x": 1})
    with pytest.raises(ValidationError, match="not 9 of 8"):
        Coverage(kind="suite", asked="a", model="m", run=8, scored=8, passed=9)


def test_limits_follow_from_the_findings() -> None:
    lines = " ".join(limit_lines(sample()))
    assert "2 of 8 findings have a calibration card" in lines
    assert "2 of 8 findings are inconclusive" in lines
    assert "not detected" in lines
    assert "One seed of each model" in lines
    found = tuple(f for f in findings() if f.verdict is Verdict.DETECTED)
    alone = Report(title="t", subject="s", date="d", findings=found, identities=(Identity(part="audited", name="m"),))
    said = " ".join(limit_lines(alone))
    assert "not detected" not in said
    assert "No reference model was given" in said
    assert "are inconclusive" not in said, "nothing is said of none"
    bare = tuple(f.model_copy(update={"card": None}) for f in found)
    said = " ".join(limit_lines(alone.model_copy(update={"findings": bare})))
    assert "No finding has a calibration card" in said
    assert " 0 of" not in said
    carded = next(f.card for f in findings() if f.card is not None)
    all_of_them = tuple(f.model_copy(update={"card": carded}) for f in found)
    assert "calibration card" not in " ".join(limit_lines(alone.model_copy(update={"findings": all_of_them}))), "no others are left to name"
    assert limit_lines(Report(title="t", subject="s", date="d")) == [words_of()("limits.scope")]


def test_the_crosswalk_points_to_nothing_that_is_not_there() -> None:
    empty = crosswalk((), ())
    assert {where for framework in empty for _, where in framework["rows"]} == {"Nothing in this report."}
    assert [framework["name"] for framework in empty] == [
        "NIST AI RMF 1.0", "NIST AI 600-1", "EU AI Act, Annex IV", "EU AI Act, Annex XI", "ISO/IEC 42001:2023",
    ]  # fmt: skip
    assert [len(framework["rows"]) for framework in empty] == [19, 12, 9, 5, 9]
    bare = view(Report(title="t", subject="s", date="d"))
    assert "Identity" not in str(bare["crosswalk"])
    full = {framework["name"]: dict(framework["rows"]) for framework in view(sample())["crosswalk"]}
    assert full["NIST AI 600-1"]["2.6 Harmful Bias and Homogenization"] == "occupation-pronoun; crows-pairs"
    assert full["NIST AI 600-1"]["2.4 Data Privacy"] == "Nothing in this report."
    assert full["EU AI Act, Annex IV"]["1. General description of the AI system"] == "Identity of the models"


def test_the_crosswalk_says_what_applies_to_whom_and_that_it_is_no_assessment() -> None:
    assert "no conformity assessment" in words_of()("crosswalk.lead")
    for framework in view(sample())["crosswalk"]:
        assert framework["applies"].startswith("Applies to: ")
        assert framework["source"].startswith("Source: ")
    known = {"identity", "coverage", "findings", "sections", "left_out", "limits", "verdicts", "provenance", "rederive"}
    for framework in frameworks():
        wanted = {name for _, where in framework["headings"] for name in where}
        assert framework.get("suites") or wanted <= known


def test_a_report_of_several_runs_names_its_models_by_digest_and_says_where_the_rest_stands() -> None:
    (table,) = several_identities(IDENTITIES)
    assert [row[:2] for row in table.rows] == [(one.part, one.name) for one in IDENTITIES]
    assert [row[2] for row in table.rows] == [one.sha256 or "not stated" for one in IDENTITIES]
    assert "in the report of each" in table.note
    assert several_identities(()) == []
    shown = view(sample().model_copy(update={"kind": "comparison"}))
    assert [one["caption"] for one in shown["identity"]] == [table.caption]
