"""Counterfactual decisions: a planted effect found across questions and persons, and intervals that know what both have in common."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evals.runner import run_suite
from evals.suites.counterfactual_decisions import SUITE, CounterfactualDecisionsSpec, aggregate, contrasts, effect
from tests.engine.models import wordy
from workbench.core.errors import BadValue, EmptySelection
from workbench.core.finding import Verdict
from workbench.core.measure import Score
from workbench.core.result import Result
from workbench.core.stats.crossed import crossed_mean
from workbench.core.stats.intervals import mean_interval

AGES, GENDERS, RACES = ("20", "30", "40"), ("female", "male"), ("a", "b", "c")
PEOPLE = list(itertools.product(AGES, GENDERS, RACES))


def write(path: Path, questions: int = 3) -> Path:
    rows = [
        {"filled_template": f"the {g} cat {q} sat here {a} {r}", "decision_question_id": q, "age": int(a), "gender": g, "race": r}
        for q in range(questions)
        for a, g, r in PEOPLE
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def result(shift: float, questions: int = 20, seed: int = 0, slope: float = 0.3) -> Result:
    """Women get ``shift`` nats less; how much less differs by question and by the rest of a person."""
    by, out = np.random.default_rng(seed), []
    base, by_question = by.normal(0, 1, questions), by.normal(0, slope, questions)
    by_rest = {(a, r): by.normal(0, slope) for a in AGES for r in RACES}
    for q in range(questions):
        for a, g, r in PEOPLE:
            score = base[q] + by.normal(0, 0.1) - (shift + by_question[q] + by_rest[(a, r)]) * (g == "female")
            out.append(Score(f"{len(out):05d}", {"score": score, "mass": 0.4, "person": [a, g, r]}, cluster=str(q)))
    return aggregate(out, CounterfactualDecisionsSpec())


def test_a_planted_effect_is_found_and_none_is_not() -> None:
    found = {f.measure.rpartition(", ")[2]: f for f in SUITE.findings(result(1.0), subject="m")}
    assert found["gender: female"].verdict == Verdict.DETECTED
    assert found["gender: female"].effect == pytest.approx(-1.0, abs=0.4)
    assert found["gender: male"].effect == pytest.approx(-(found["gender: female"].effect or 0))
    assert found["race: a"].verdict != Verdict.DETECTED
    nulls = [f for seed in range(3) for f in SUITE.findings(result(0.0, seed=seed), subject="m") if f.measure.endswith("gender: female")]
    assert [f.verdict for f in nulls].count(Verdict.DETECTED) <= 1
    against = [
        f for f in SUITE.findings(result(1.0), subject="m", reference=result(1.0, slope=0.3)) if f.measure.startswith("difference in")
    ]
    assert {f.verdict for f in against} == {Verdict.NOT_DETECTED, Verdict.INCONCLUSIVE}  # six rests of an age are too few


@pytest.mark.full
def test_items_taken_as_independent_would_give_a_narrow_interval() -> None:
    """Of 180 differences, 20 questions and 9 rests: over items the interval holds the truth in half of the draws, crossed in nine of
    ten."""
    crossed = alone = 0
    for seed in range(40):
        gap, question, rest = contrasts(result(0.5, seed=seed), "gender", "female")
        assert len(gap) == 180
        crossed += not crossed_mean(gap, question, rest).interval.excludes(-0.5)
        alone += not mean_interval(gap).excludes(-0.5)
    assert crossed >= 36
    assert alone <= 27


def test_a_text_is_compared_with_those_that_differ_in_nothing_else() -> None:
    whole = result(1.0, questions=6)
    v = whole.values
    part = type(whole)(whole.kind, v.isel(item=np.flatnonzero(~((v.value.sel(attribute="gender") == "male") & (v.question == "0")).values)))
    gap, question, _ = contrasts(part, "gender", "female")
    assert "0" not in set(question.tolist())
    assert len(gap) == 5 * 9
    v = whole.values
    one = v.score.values[(v.question.values == "3") & (v.value.values[0] == "20") & (v.value.values[2] == "b")]
    expected = one[0] - one[1]
    gap, question, rest = contrasts(whole, "gender", "female")
    assert gap[(question == "3") & (rest == "20 & b")][0] == pytest.approx(expected)


def test_few_questions_have_no_interval() -> None:
    assert effect(result(1.0, questions=3), "gender", "female") is None


def test_crossed_means_by_hand() -> None:
    by = np.random.default_rng(0)
    a, b = np.repeat(np.arange(8), 7), np.tile(np.arange(7), 8)
    x = by.normal(0, 1, 56)
    found = crossed_mean(x, a, b)
    rest = x - x.mean()
    v1 = sum(rest[a == k].sum() ** 2 for k in range(8)) / 56**2 * 8 / 7
    v2 = sum(rest[b == k].sum() ** 2 for k in range(7)) / 56**2 * 7 / 6
    v12 = (rest**2).sum() / 56**2 * 56 / 55
    assert found.se**2 == pytest.approx(max(v1 + v2 - v12, v1, v2))
    with pytest.raises(BadValue, match="at least 6 of each"):
        crossed_mean(x, a, np.zeros(56))
    with pytest.raises(BadValue, match="bounds"):
        crossed_mean(np.ones(56), a, b)
    assert crossed_mean(np.ones(56), a, b, bounds=(0.0, 2.0)).interval.low < 1


def test_files_are_read_or_refused_and_no_text_is_stored(tmp_path: Path) -> None:
    spec = CounterfactualDecisionsSpec.parse({"files": (str(write(tmp_path / "d.jsonl")),), "most": 2})
    samples = list(SUITE.samples(spec))
    assert len(samples) == 2 * len(PEOPLE)
    assert SUITE.request(samples[0], spec).context == "the female cat 0 sat here 20 a\n\nAnswer:"
    assert "cat" not in run_suite(SUITE, wordy(), spec).to_json()
    with pytest.raises(BadValue, match="tables of filled decisions"):
        list(SUITE.samples(CounterfactualDecisionsSpec()))
    bad: Any = spec.override({"attributes": ("height",)})
    with pytest.raises(EmptySelection, match="'height' matches no column"):
        list(SUITE.samples(bad))
    with pytest.raises(BadValue, match="two different answers"):
        CounterfactualDecisionsSpec.parse({"answers": (" a", " a")})
