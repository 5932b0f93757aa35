"""A finding of an audit stands beside the card of its suite: with what it scored on planted models, and how small a thing it sees."""

from __future__ import annotations

from typing import Any

import pytest

from tests.evals.test_refusal import made
from workbench.calibration.cards import shipped
from workbench.core.finding import Finding, Mitigation, Plan, Verdict
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


def test_a_card_about_one_model_stands_beside_that_model_alone() -> None:
    """Beside neither the reference nor what a mitigation made of the model, of the same shape as they are."""
    plan = PLAN.model_copy(update={"mitigations": (Mitigation(of="refusal", method="steering"),)})
    digests = {AUDITED: "a" * 64, REFERENCE: "b" * 64}
    shape: dict[str, Any] = {"family": "gpt", "config": {"norm_placement": "pre"}, "parameters": 270_000, "domain": "errands"}
    subjects = [
        Described.parse({"part": part, "ref": ref, "model_digest": digests[part], **shape})
        for part, ref in ((AUDITED, plan.model), (REFERENCE, plan.reference))
    ]
    stored = {f"refusal.{part}": made(50, 50, 0, 0) for part in (AUDITED, REFERENCE, "mended-1")}
    (general,) = [card for card in shipped() if card.of == "refusal"]
    own = general.model_copy(update={"exam": "spike", "conditions": "exam spike on it", "provenance": {"model": "a" * 64}})
    beside: dict[str, set[tuple[str, str]]] = {}
    for one in gathered(plan, subjects, stored, (own, general)).findings:
        assert one.card is not None
        beside.setdefault(one.subject, set()).add((one.card.exam, one.card.about))
    mended = f"{plan.model} after steering (mended-1)"
    assert beside == {plan.model: {("spike", "a" * 64)}, plan.reference: {("refusals", "")}, mended: {("refusals", "")}}
    words = {one.subject: one.card_words for one in gathered(plan, subjects, stored, (own,)).findings if one.card is None}
    assert words == {
        plan.reference: f"not calibrated here: the card is about the model {'a' * 12} alone, and this is the model {'b' * 12}",
        mended: f"not calibrated here: the card is about the model {'a' * 12} alone, and this is another one",
    }


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
