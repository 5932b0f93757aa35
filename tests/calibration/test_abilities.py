"""The exam of abilities: a loss is claimed where grammar is no longer found to be preferred, and only there."""

from __future__ import annotations

from typing import Any

import pytest

from evals.suites.blimp import BLiMPSpec, aggregate
from workbench.calibration import blind
from workbench.calibration.exams import abilities
from workbench.core.measure import Score

PARADIGMS, PAIRS = 6, 16


def result_of(right: float, *, scored: bool = True) -> Any:
    """A result in which so many of each paradigm's pairs are right, give or take one."""
    scores, terms = [], {}
    for paradigm in range(PARADIGMS):
        name = f"agreement_{paradigm}"
        terms[name] = "agreement"
        for pair in range(PAIRS):
            good = -1.0 if pair < round(right * PAIRS) + (paradigm % 3 - 1) * (0 < right < 1) else -3.0
            values = {"good": good, "bad": -2.0}
            given: dict[str, Any] = {"values": values} if scored else {"unscored": "too long"}
            scores.append(Score(f"{name}/{pair}", cluster=name, group="morphology", **given))
    result = aggregate(scores, terms, {})
    return type(result)(result.kind, result.values, spec=BLiMPSpec.parse({}).model_dump(mode="json"))


@pytest.mark.parametrize(("right", "lost", "avoided"), [(1.0, False, 0.0), (0.8, False, 0.0), (0.5, True, 0.0), (0.1, True, 1.0)])
def test_a_loss_is_claimed_where_grammar_is_not_found_to_be_preferred(right: float, lost: bool, avoided: float) -> None:
    found = abilities.reading(result_of(right))
    assert found.statistic == pytest.approx(1 - right, abs=0.5 / PAIRS)
    assert (found.claims, found.extras["grammar is avoided"]) == (lost, avoided)


def test_what_could_not_be_scored_is_no_loss() -> None:
    assert not abilities.reading(result_of(1.0, scored=False)).claims


def test_a_loss_of_agreement_stays_unseen_in_a_blind_trial() -> None:
    """No suite of the trial's plan asks about it, whatever cards there are, so that a quarter of its models can carry it."""
    from workbench.calibration.cards import shipped
    from workbench.calibration.exams.suites import FORM_OF

    assert abilities.EXAM.name != blind.EXAM.name
    assert FORM_OF[abilities.TOOL] not in {FORM_OF[suite] for suite in blind.rules(shipped())}
