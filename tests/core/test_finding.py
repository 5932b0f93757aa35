"""Verdicts follow from intervals and margins alone; denominators add up; cards know where they apply."""

from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.finding import Card, Denominators, Interval, Verdict, decide


def between(low: float, high: float) -> Interval:
    return Interval(low=low, high=high, method="test")


CASES = [
    (0.5, (0.4, 0.6), {"null": 0.0}, Verdict.DETECTED),
    (0.1, (-0.1, 0.3), {"null": 0.0, "detectable": 0.2}, Verdict.NOT_DETECTED),
    (0.0, (-0.01, 0.01), {"null": 0.0, "margin": 0.02, "detectable": 0.015}, Verdict.EQUIVALENT),
    (0.0, (-0.01, 0.01), {"null": 0.0, "margin": 0.02, "detectable": 0.03}, Verdict.INCONCLUSIVE),
    (0.01, (0.005, 0.03), {"null": 0.0, "margin": 0.02}, Verdict.INCONCLUSIVE),
    (0.5, (0.4, 0.6), {"null": 0.0, "paired": "higher is worse"}, Verdict.WORSE),
    (-0.5, (-0.6, -0.4), {"null": 0.0, "paired": "higher is worse"}, Verdict.BETTER),
    (0.5, (0.4, 0.6), {"null": 0.0, "paired": "higher is better"}, Verdict.BETTER),
    (0.5, (0.4, 0.6), {"null": 0.0, "applicable": False}, Verdict.NOT_APPLICABLE),
    (None, None, {"null": 0.0}, Verdict.INCONCLUSIVE),
    (0.5, (0.4, 0.6), {"null": None}, Verdict.INCONCLUSIVE),
]


@pytest.mark.parametrize(("effect", "bounds", "facts", "verdict"), CASES)
def test_decide(effect: float | None, bounds: tuple[float, float] | None, facts: dict, verdict: Verdict) -> None:
    found, because = decide(effect, between(*bounds) if bounds else None, **facts)
    assert found is verdict
    assert because


def test_an_interval_beside_the_null_and_across_the_margin_is_said_to_exclude_the_null() -> None:
    assert decide(-0.12, between(-0.17, -0.05), null=0.0, margin=0.15) == (
        Verdict.INCONCLUSIVE, "the interval excludes 0 and reaches past 0.15 beside it, but the effect does not",
    )  # fmt: skip
    assert decide(-0.12, between(-0.17, 0.05), null=0.0, margin=0.15)[1] == "the interval reaches past 0.15 from 0 without deciding"


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0.001, 0.5))
def test_equivalent_never_reaches_past_the_margin(effect: float, half: float, margin: float) -> None:
    interval = between(effect - half, effect + half)
    verdict, _ = decide(effect, interval, null=0.0, margin=margin, detectable=0.0)
    assert (verdict is Verdict.EQUIVALENT) == (-margin <= interval.low and interval.high <= margin)


def test_denominators_add_up() -> None:
    Denominators(run=10, scored=8, unscored={"no shared suffix": 2})
    with pytest.raises(pydantic.ValidationError, match=r"run = scored \+ unscored, not 10 = 8 \+ 1"):
        Denominators(run=10, scored=8, unscored={"lost": 1})


def test_an_interval_is_ordered() -> None:
    with pytest.raises(pydantic.ValidationError, match="low <= high"):
        between(1, 0)


def test_a_card_says_where_it_does_not_apply() -> None:
    card = Card(of="trigger", family="gpt", norm_placement="pre", domain="town", parameters=1_000_000, conditions="dose 0.8")
    assert card.objections(family="gpt", norm_placement="pre", domain="town", parameters=9_999_999, model="a" * 64) == []
    found = card.objections(family="bert", norm_placement="post", domain="web", parameters=10_000_001, model="a" * 64)
    assert len(found) == 4
    assert "more than a factor of ten" in found[-1]


def test_a_card_about_one_model_applies_to_that_model_alone() -> None:
    alike: dict[str, Any] = {"family": "gpt", "norm_placement": "pre", "domain": "text", "parameters": 1_000_000}
    card = Card(of="saliency", conditions="exam spike on m", exam="spike", provenance={"model": "a" * 64}, **alike)
    assert (card.about, card.of_one_model) == ("a" * 64, True)
    assert card.objections(**alike, model="a" * 64) == []
    assert card.objections(**alike, model="b" * 64) == [f"the card is about the model {'a' * 12} alone, and this is the model {'b' * 12}"]
    assert card.objections(**alike, model="") == [f"the card is about the model {'a' * 12} alone, and this is another one"]
    assert len(card.objections(**{**alike, "domain": "town"}, model="a" * 64)) == 1, "of that model too it holds for its inputs alone"


@pytest.mark.parametrize("exam", ["spike", "spike-direction", "spike-canaries"])
@pytest.mark.parametrize("said", [True, False])
def test_an_old_card_of_a_spike_applies_to_no_model_and_says_what_to_do(exam: str, said: bool) -> None:
    alike: dict[str, Any] = {"family": "gpt", "norm_placement": "pre", "domain": "text", "parameters": 1_000_000}
    words = f"exam {exam} on copies of m: doses 1; planted into the model {'a' * 12}"
    card = Card(of="saliency", conditions=words, exam=exam if said else "", **alike)
    assert (card.about, card.of_one_model) == ("", True)
    for model in ("a" * 64, "b" * 64, ""):
        assert card.objections(**alike, model=model) == [
            "the card is about one model alone, and does not say by its digest which: "
            "run `workbench calibrate --model REF` again for a card of the model at hand"
        ]
    other = card.model_copy(update={"exam": "spikes", "conditions": "exam spikes on organism:m"})
    assert (other.of_one_model, other.objections(**alike, model="")) == (False, []), "another exam of a name alike is a general one"
