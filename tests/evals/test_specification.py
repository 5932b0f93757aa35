"""Specification curves of suites: every way is the suite's own number where the suite has it; planted and null; what has no ways."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from evals.specification import WAYS, SpecificationResult, curves, finding, questions
from evals.suites import bbq as bbq_suite
from evals.suites import crows_pairs, stereoset, winobias
from tests.evals import test_bbq as bbq
from tests.evals import test_crows_pairs as crows
from tests.evals import test_stereoset as stereosets
from tests.evals import test_winobias as winobiases
from workbench.core.charts.svg import to_svg
from workbench.core.errors import BadValue, UnknownName
from workbench.core.finding import Verdict
from workbench.core.measure import Score
from workbench.core.result import Result
from workbench.data import sources


def pairs(share: float, *, by_scoring: bool = False, n: int = 300, seed: int = 0) -> Result:
    """Pairs of which a share prefers the stereotype; where ``by_scoring``, by the sum alone, and by the mean as many do not."""
    by = np.random.default_rng(seed)
    out = []
    for k in range(n):
        up = 1.0 if by.random() < share else -1.0
        values = {
            "sum": [-1.0 + up / 9, -1.0],
            "geometric_mean": [-1.0 + (-up if by_scoring else up) / 9, -1.0],
            "shared_suffix": [-1.0 + up / 9, -1.0],
            "bytes": 1000,
            "stereo": bool(k % 7),
        }
        out.append(Score(f"{k:04d}", values, cluster=f"w{k % 30}", group=("age", "gender")[k % 2]))
    return crows.result_of(out)


def one(result: Result) -> SpecificationResult:
    return curves(result)[0]


def way(curve: SpecificationResult, **choices: str) -> float:
    v = curve.values
    kept = np.ones(v.sizes["specification"], dtype=bool)
    for name, option in choices.items():
        kept &= v[f"choice: {name.replace('_', ' ')}"].values == option
    assert kept.sum() == 1
    return float(v.value.values[kept][0])


def test_the_ways_of_crows_pairs_hold_the_suites_own() -> None:
    result = pairs(0.6)
    curve = one(result)
    assert curve.values.sizes["specification"] == 3 * 3 * 3 * 2
    for scoring in crows_pairs.SCORINGS:
        own = crows_pairs.rate(crows_pairs.preferences(result, scoring), 0.95)["share"]
        assert way(curve, scoring=scoring, a_tie="against", pairs="as written", mean_over="pairs") == pytest.approx(own)


def test_a_preference_is_found_whatever_the_scoring_and_none_is_not() -> None:
    found, none = finding(one(pairs(0.7)), subject="m"), finding(one(pairs(0.5)), subject="m")
    assert found.verdict == Verdict.DETECTED
    assert found.details["above"] > found.details["below"]
    assert none.verdict == Verdict.NOT_DETECTED
    low, high = one(pairs(0.7)).values.attrs["choice_share"], one(pairs(0.75, by_scoring=True)).values.attrs
    assert high["choice_share"] > 0.9 > low
    assert max(high["parts"], key=lambda name: high["parts"][name]) == "scoring"
    assert "of the variance is the analyst's choice" in one(pairs(0.7)).summary()


def test_the_ways_of_stereoset_hold_the_suites_own() -> None:
    by = np.random.default_rng(0)
    options: list[tuple[float, float, float]] = [(3.0, 2.0, 1.0) if by.random() < 0.7 else (2.0, 3.0, 1.0) for _ in range(120)]
    result = stereosets.result_of(options)
    own = stereoset.scores_of(stereoset.terms_of(result, stereoset.FORMS[0]))["ss"].value
    curve = one(result)
    assert way(curve, form=stereoset.FORMS[0], a_tie="against", items="all", mean_over="terms") == pytest.approx(own)


def test_the_ways_of_winobias_hold_the_suites_own() -> None:
    result = winobiases.result_of(lambda k, side: 1.0 if side == "pro" or k % 4 == 0 else -1.0)
    own = winobias.figures(result, 1, "sum")["difference"].value
    assert way(one(result), scoring="sum", type="1", a_tie="left out", mean_over="lines") == pytest.approx(own)


def test_the_ways_of_bbq_hold_the_suites_own_and_the_wrong_scale_is_one_of_them() -> None:
    """D5 as a way: scaled by the errors of all contexts the ambiguous score is half of what the definition says."""
    result = bbq.result_of(bbq.by_stereotype)
    clear, ambiguous = curves(result)
    answers = bbq_suite.answers_of(result, "text")
    own = bbq_suite.score(answers, "s_AMB").value
    assert own is not None
    plain = {"answers_by": "text", "a_tie": "left out", "mean_over": "items"}
    assert way(ambiguous, scale="by errors of these contexts", **plain) == pytest.approx(own)
    assert way(ambiguous, scale="by errors of all contexts", **plain) == pytest.approx(own / 2)
    assert way(clear, **plain) == pytest.approx(bbq_suite.score(answers, "s_DIS").value)


def test_undefined_ways_are_listed() -> None:
    """A model that names nobody where the context does not say has no score there: the whole question is refused in words."""
    with pytest.raises(BadValue, match="that are defined"):
        curves(bbq.result_of(bbq.fair))


def test_a_chart_and_the_way_through_json() -> None:
    curve = one(pairs(0.6, n=60))
    assert "<svg" in to_svg(curve.plot())
    back = Result.from_json(curve.to_json())
    assert back.canonical() == curve.canonical()
    assert isinstance(back, SpecificationResult)


def test_what_has_no_ways_is_refused() -> None:
    result = pairs(0.5, n=30)
    with pytest.raises(UnknownName, match="perplexity"):
        questions(replace(result, kind="perplexity"))
    nothing: Any = crows.result_of([Score(f"{k}", unscored="too long", group="age", cluster="w") for k in range(20)])
    with pytest.raises(BadValue, match="scored samples"):
        questions(nothing)
    assert set(WAYS) == {"crows-pairs", "stereoset", "winobias", "bbq"}


@stereosets.mirrored
def test_gpt2s_published_scores_are_no_matter_of_choice() -> None:
    """SS on race, published as 60.35, is 60.3 to 60.7 in all 18 ways."""
    published = stereosets.load_predictions(sources.path("stereoset", stereosets.GPT2))[stereoset.FORMS[0]]
    clusters = stereosets.load(sources.path("stereoset", "race_test.json"))
    made = [
        Score(c.id, {"score": list(stereosets.options_of(c, published)), "nats": 1.0, "bytes": 1000}, cluster=c.target, group=c.bias_type)
        for c in clusters
    ]
    curve = one(stereoset.aggregate(made, {s.sample: stereoset.FORMS[0] for s in made}, 4.0))
    assert way(curve, form=stereoset.FORMS[0], a_tie="against", items="all", mean_over="terms") == pytest.approx(60.35, abs=0.005)
    assert 60 < curve.values.value.values.min() < curve.values.value.values.max() < 61
    assert curve.values.attrs["choice_share"] < 0.01
    assert "most of it" not in curve.summary()


@bbq.mirrored
def test_the_prompt_decides_what_unifiedqa_is_said_to_be() -> None:
    """Published answers to three prompts, as three readings: s_DIS from 0.18 to 50.8, and nearly all of the variance is the prompt."""
    found, prompts = bbq.read(sources.path("bbq", "results/UnifiedQA/preds_Religion.jsonl")), ("race", "qonly", "arc")
    chosen = np.array([[bbq.answer_of(raw[f"unifiedqa-t5-11b_pred_{prompt}"], item) for item, raw in found] for prompt in prompts])
    items = [item for item, _ in found]
    facts = {
        name: ("item", np.array([getattr(item, name) for item in items]))
        for name in ("label", "unknown", "target", "negative", "ambiguous")
    }
    text = {name: ("item", np.array([getattr(item, name) for item in items], dtype=object)) for name in ("category", "template")}
    values = xr.Dataset(
        {"chosen": (("reading", "item"), chosen), **facts}, coords={"reading": np.array(prompts, dtype=object), **text},
        attrs={"asked": {"run": len(items), "scored": len(items)}, "floor": ""},
    )  # fmt: skip
    clear, ambiguous = curves(bbq_suite.BBQResult("bbq", values))
    plain = {"a_tie": "left out", "mean_over": "items"}
    assert [way(clear, answers_by=prompt, **plain) for prompt in prompts] == pytest.approx([0.1757, 50.7937, 3.5250], abs=1e-3)
    own = [way(ambiguous, answers_by=prompt, scale="by errors of these contexts", **plain) for prompt in prompts]
    assert own == pytest.approx([14.3333, 21.3333, 24.5], abs=1e-3)
    assert clear.values.attrs["choice_share"] > 0.9
    assert clear.values.attrs["parts"]["answers by"] == pytest.approx(1.0)
