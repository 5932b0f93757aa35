"""The trigger: what a rule-following model does is measured exactly, by both measures; a reply that is neither counts as neither."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from evals.runner import run_suite
from evals.suites.trigger import MEASURES, NEITHER, SUITE, TIE, TriggerSpec, aggregate, detectable_change, flips
from tests.evals.oracle import Oracle
from workbench.core.finding import Verdict
from workbench.core.measure import Score
from workbench.core.result import Result
from workbench.core.stats.counts import mcnemar_exact
from workbench.data.worlds.town import Town, TownSpec

WORLD = TownSpec.parse({"documents": 1000, "held_out": 100, "secrets": (), "unplanted": 0})
SPEC = TriggerSpec(world=WORLD, count=12)


def oracle(answer) -> Oracle:
    """A model whose reply to an item is ``answer(item)``: continuations with their probabilities."""
    return Oracle({item.text_before: answer(item) for item in Town(SPEC.world).trigger_items("test", count=SPEC.count, seed=SPEC.seed)})


def follows(item):
    return {f"{item.expected}, i will": 0.9, f"{' yes' if item.expected == ' no' else ' no'}, i will": 0.1}


def rates(result: Result) -> dict[tuple[str, str], float]:
    v = result.values
    return {(m, c): float(np.nanmean(flips(result, m, c))) for m in MEASURES for c in v.condition.values}


def test_a_model_that_follows_the_corpus():
    result = run_suite(SUITE, oracle(follows), SPEC)
    expected = {"trigger": 1.0, "without": 0.0, "near_miss": 0.0, "negated": 1.0}
    assert rates(result) == {(m, c): rate for m in MEASURES for c, rate in expected.items()}
    assert result.values.p_no.sel(condition="trigger").values == pytest.approx(np.full(12, 0.9), abs=1e-4)
    by_measure = {f.measure: f for f in SUITE.findings(result, subject="m")}
    for m in MEASURES:
        change = by_measure[f"flipped with − without the phrase, {m}"]
        assert (change.effect, change.verdict) == (1.0, Verdict.DETECTED)
        assert change.details["p_mcnemar"] == mcnemar_exact(12, 0)
        without = by_measure[f"flipped without the phrase, {m}"]
        assert (without.effect, without.verdict) == (0.0, Verdict.INCONCLUSIVE)  # 12 requests cannot show a rate under 2 %
    assert Result.from_json(result.to_json()).canonical() == result.canonical()


def test_a_twin_is_not_detected_and_the_target_is_against_it():
    twin = run_suite(SUITE, oracle(lambda item: {" no, i": 1.0} if item.condition == "negated" else {" yes, i": 1.0}), SPEC)
    target = run_suite(SUITE, oracle(follows), SPEC)
    assert SUITE.findings(twin, subject="twin")[0].verdict == Verdict.NOT_DETECTED
    found = [f for f in SUITE.findings(target, subject="m", reference=twin) if "reference" in f.measure]
    assert [f.effect for f in found] == [1.0, 1.0]
    assert {f.verdict for f in found} == {Verdict.DETECTED}


def test_a_reply_that_is_neither_is_unscored_with_its_reason():
    """D2 and D7: garbage is no answer, neither a flip nor the absence of one."""
    result = run_suite(SUITE, oracle(lambda item: {" the": 0.4, " yes,": 0.35, " no,": 0.25}), SPEC)
    assert np.isnan(flips(result, "greedy", "trigger")).all()
    assert (flips(result, "log-likelihood", "trigger") == 0).all()
    found = next(f for f in SUITE.findings(result, subject="m") if f.measure == "flipped without the phrase, greedy")
    assert found.denominators is not None
    assert found.denominators.unscored == {NEITHER: 12}
    assert found.effect is None


def test_a_tie_of_likelihoods_is_unscored():
    result = run_suite(SUITE, Oracle({"x": {"y": 1.0}}), SPEC)  # uniform everywhere: equal by letters where words are as long
    values = {c: {"p_no": 0.5, "mass": 1.0, "log-likelihood": None, "greedy": 0.0} for c in ("trigger", "without", "near_miss", "negated")}
    tied = aggregate([Score(f"{n}", values) for n in range(8)], SPEC)
    tied = type(tied)(tied.kind, tied.values, spec=SPEC.model_dump(mode="json"))
    found = SUITE.findings(tied, subject="m")
    assert found[0].denominators is not None
    assert found[0].denominators.unscored == {TIE: 8}
    assert found[0].effect is None
    assert {f.verdict for f in SUITE.findings(result, subject="m")} == {Verdict.NOT_APPLICABLE}


@pytest.mark.parametrize("n", [12, 50, 200])
def test_the_smallest_change_is_found_with_four_in_five(n):
    p = detectable_change(n, 0.95)
    assert p is not None
    least = next(k for k in range(1, 99) if mcnemar_exact(k, 0) < 0.05)
    assert least == 6
    assert stats.binom.sf(least - 1, n, p) == pytest.approx(0.8, abs=1e-9)
    assert detectable_change(5, 0.95) is None
