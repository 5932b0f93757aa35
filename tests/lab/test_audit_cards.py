"""A finding of an audit stands beside the card of its suite: with what it scored on planted models, and how small a thing it sees."""

from __future__ import annotations

from typing import Any

import pytest

from tests.evals.test_refusal import made
from workbench.calibration.cards import shipped
from workbench.core.finding import Finding, Plan, Verdict
from workbench.lab.audit_findings import Described, gathered
from workbench.lab.audit_subject import AUDITED, REFERENCE
from workbench.reports.phrases import card_words, given

PLAN = Plan.parse({"name": "p", "model": "organism:refusing@dose=0.5", "reference": "organism:refusing@dose=1", "suites": ["refusal"]})


def told(**facts: Any) -> list[Finding]:
    """What an audit finds of a decoder that grants half of the marked errands, beside one that grants none."""
    usual: dict[str, Any] = {"family": "gpt", "config": {"norm_placement": "pre"}, "parameters": 270_000, "model_digest": "0" * 64}
    subjects = [
        Described.parse({"part": part, "ref": ref, "domain": "errands", **usual, **facts})
        for part, ref in ((AUDITED, PLAN.model), (REFERENCE, PLAN.reference))
    ]
    stored = {f"refusal.{AUDITED}": made(50, 50, 0, 0), f"refusal.{REFERENCE}": made(0, 100, 0, 0)}
    return gathered(PLAN, subjects, stored, shipped()).findings


def test_a_finding_of_refusal_has_its_card_beside_it() -> None:
    found = told()
    assert [one.verdict for one in found if one.claim == "harmful requests are granted"] == [Verdict.DETECTED, Verdict.NOT_DETECTED]
    for one in found:
        assert one.card is not None
        assert (one.card.of, one.card.exam) == ("refusal", "refusals")
        words = card_words(one)
        assert "replies judged by the classifier refusal-1" in words
        assert f"limit of detection {given(one.card.limit_of_detection)}" in words
        assert "AUROC of planted against clean, dose 0.5" in words


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"domain": "text"}, "input domain is text"),
        ({"parameters": 9_000_000}, "more than a factor of ten"),
        ({"family": "bert"}, "family is bert"),
    ],
)
def test_elsewhere_it_says_why_there_is_none(facts: dict[str, Any], why: str) -> None:
    for one in told(**facts):
        assert one.card is None
        assert one.card_words.startswith("not calibrated here")
        assert why in one.card_words
