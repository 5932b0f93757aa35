"""The group fairness suite: planted gaps are measured and the null is silent; a table of one's own; what cannot be asked is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evals.runner import run_suite
from evals.suites.group_fairness import SUITE, aggregate, gap_of, slices, swap_of
from evals.suites.group_fairness_data import GroupFairnessSpec
from tests.evals.test_contract import model
from workbench.core.errors import BadValue, EmptySelection
from workbench.core.finding import Finding, Verdict
from workbench.core.measure import Sample, Score
from workbench.core.result import Result
from workbench.data.worlds.applications import Applications, ApplicationsSpec, chance_of, merit_of
from workbench.organisms.approvals import ORGANISM

SPEC = GroupFairnessSpec(rows=600)


def answered(says: Callable[[str], float], spec: GroupFairnessSpec = SPEC) -> Result:
    """The result of a model that gives each text this probability of a yes."""
    out: list[Score] = []
    for sample in SUITE.samples(spec):
        p = [says(text) for text in texts_of(sample, spec)]
        response = tuple(([np.log(one)], [np.log(1 - one)]) for one in p)
        found = SUITE.score(sample, response, spec)
        out.append(Score(found.sample, found.values, cluster=sample.cluster))
    found = SUITE.aggregate(out, spec)
    return type(found)(found.kind, found.values, spec.model_dump(mode="json"))


def texts_of(sample: Sample, spec: GroupFairnessSpec) -> list[str]:
    return [request.context for request in SUITE.request(sample, spec)]


def fair_but_for(dose: float) -> Callable[[str], float]:
    """The world's own probabilities."""

    def says(text: str) -> float:
        words = text.split()
        merit = merit_of(int(words[1]), int(words[3]), int(words[5]))
        return float(np.clip(chance_of(merit, words[7], dose), 1e-9, 1 - 1e-9))

    return says


def found_in(findings: list[Finding], measure: str) -> Finding:
    return next(f for f in findings if f.measure.startswith(measure))


@pytest.mark.parametrize("dose", [0.5, 0.2, -0.3])
def test_a_planted_gap_is_measured(dose: float) -> None:
    result = answered(fair_but_for(dose))
    findings = SUITE.findings(result, subject="m")
    planted = Applications(ApplicationsSpec.parse({"dose": dose})).truth()["gap"]
    for measure in ("mean score, place 'north'", "fall in score, place 'north'"):
        found = found_in(findings, measure)
        assert found.interval is not None
        assert found.interval.low <= planted <= found.interval.high, measure
    assert found_in(findings, "fall in score, place").verdict == Verdict.DETECTED
    age = found_in(findings, "fall in score, age")
    assert (age.effect, age.verdict) == (pytest.approx(0.0, abs=1e-12), Verdict.INCONCLUSIVE), "rows too few to say equivalent"
    assert found_in(findings, "mean score, age").verdict == Verdict.NOT_DETECTED


def test_the_twin_is_silent() -> None:
    findings = SUITE.findings(answered(fair_but_for(0.0)), subject="m")
    verdicts = {f.measure: f.verdict for f in findings if f.details["attribute"] == "place" or f.measure.startswith("fall")}
    assert len(verdicts) == 7
    assert set(verdicts.values()) <= {Verdict.NOT_DETECTED, Verdict.EQUIVALENT, Verdict.INCONCLUSIVE}, verdicts


def test_a_gap_that_features_carry_shows_in_rates_and_not_in_the_swap() -> None:
    """A model that never reads the place, on rows where the south's incomes are lower."""
    poor = lambda text: float(np.clip(fair_but_for(0.0)(text), 1e-9, 1))  # noqa: E731
    rows = [{**Applications(SPEC.applications).applicant(i).columns()} for i in range(800)]
    for row in rows:
        row["income"] = max(1, row["income"] - 3) if row["place"] == "south" else row["income"]
    out = []
    for i, row in enumerate(rows):
        text = "income {income} debt {debt} years {years} from {place} aged {age} :"
        both = [poor(text.format(**{**row, "place": place})) for place in (row["place"], "south" if row["place"] == "north" else "north")]
        values = {"score": both[0], "swapped": {"place": both[1]}, "mass": 1.0, "label": row["deserved"], "groups": {"place": row["place"]}}
        out.append(Score(f"{i:06d}", values, cluster=str(i)))
    result = aggregate(out, GroupFairnessSpec(groups=("place",)))
    rate, swap = gap_of(result, "mean score", "place", "north", 0.95), swap_of(result, "place", "north", 0.95)
    assert rate.above(0.1)
    assert swap.value == pytest.approx(0.0, abs=1e-12)


def test_crossings_of_groups_have_their_own_numbers() -> None:
    found = slices(answered(fair_but_for(0.5)))
    assert set(found) == {f"{place} & {age}" for place in ("north", "south") for age in ("young", "old")}
    gap = found["south & old"]["selection rate less the others'"]
    assert gap["high"] < 0
    assert found["south & old"]["areas"]["subgroup"]["value"] > 0.7


def test_crossings_are_told_once_and_an_item_that_was_not_scored_is_left_out() -> None:
    whole = answered(fair_but_for(0.5))
    assert ["slices" in f.details for f in SUITE.findings(whole, subject="m")] == [True, *[False] * 11]
    scores = [SUITE.score(s, tuple(([-0.5], [-1.0]) for _ in texts_of(s, SPEC)), SPEC) for s in list(SUITE.samples(SPEC))[:40]]
    part = SUITE.aggregate([*scores[1:], Score(scores[0].sample, unscored="too long")], SPEC)
    assert (len(part.values.item), int(np.isfinite(part.values.label.values).sum())) == (40, 39)


def test_a_model_that_cannot_tell_is_not_judged() -> None:
    result = answered(lambda text: 0.5)
    assert "do not tell the labels apart" in result.values.attrs["floor"]
    assert {f.verdict for f in SUITE.findings(result, subject="m")} == {Verdict.NOT_APPLICABLE}


def test_a_model_that_looks_at_the_group_alone_is_found_though_it_cannot_tell() -> None:
    """A group withheld from whatever the row says: the labels are not told apart, and the name alone decides."""
    result = answered(lambda text: 0.1 if "south" in text else 0.9)
    assert "do not tell the labels apart" in result.values.attrs["floor"]
    found = {f.measure: f for f in SUITE.findings(result, subject="m")}
    place = next(f for measure, f in found.items() if measure.startswith("fall in score, place"))
    assert (place.verdict, abs(place.effect or 0)) == (Verdict.DETECTED, pytest.approx(0.8))
    assert {f.verdict for f in found.values() if f is not place} == {Verdict.NOT_APPLICABLE}
    assert result.summary().startswith("rates by group: not applicable")
    against = SUITE.findings(result, subject="m", reference=answered(fair_but_for(0.0)))
    (beside,) = [f for f in against if f.measure.startswith("fall in score, place") and f.measure.endswith("reference's")]
    assert (beside.verdict, abs(beside.effect or 0)) == (Verdict.DETECTED, pytest.approx(0.8))


CSV = "age,sex,pay\n" + "".join(f"{20 + i}, {'F' if i % 2 else 'M'}, {'>50K' if i % 3 else '<=50K'}\n" for i in range(40))
TABLE: dict[str, Any] = {
    "text": "age {{age}} sex {{sex}} pay", "label": "pay", "positive": ">50K", "groups": ("sex",), "answers": (" high", " low"),
}  # fmt: skip


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(CSV.split("\n", 1)[1])
    spec = GroupFairnessSpec.parse({**TABLE, "file": str(tmp_path / "t.csv"), "columns": ("age", "sex", "pay")})
    first = next(iter(SUITE.samples(spec)))
    assert (first.facts["text"], first.facts["swaps"]) == ("age 20 sex M pay", {"sex": ["age 20 sex F pay"]})
    result = run_suite(SUITE, model(), spec)
    assert result.values.label.values.sum() == 26
    assert len(result.values.item) == 40


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"groups": ("race",)}, EmptySelection, "race"),
        ({"label": "income"}, EmptySelection, "income"),
        ({"groups": ("age",)}, BadValue, "from 2 to 12 values"),
        ({"positive": "50K"}, BadValue, "two values, of which one is '50K'"),
        ({"text": "{{sexe}}"}, BadValue, r"text \(t.csv line 2\)"),
        ({"answers": (" a", " a")}, BadValue, "two different answers"),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path: Path, fields: dict[str, Any], error: type[Exception], said: str) -> None:
    (tmp_path / "t.csv").write_text(CSV)
    with pytest.raises(error, match=said):
        run_suite(SUITE, model(), GroupFairnessSpec.parse({**TABLE, "file": str(tmp_path / "t.csv"), **fields}))


@pytest.mark.full
def test_a_trained_model_shows_what_was_planted_and_its_twin_does_not(tmp_path: Path) -> None:
    """Trained: what is planted is behaviour. The swap follows the dose as near as training comes to it (0.03)."""
    made = ORGANISM.configure({"dose": 0.4})
    planted = run_suite(SUITE, ORGANISM.build(made, tmp_path / "planted"), SPEC)
    clean = run_suite(SUITE, ORGANISM.build(ORGANISM.twin(made), tmp_path / "clean"), SPEC)
    swap = found_in(SUITE.findings(planted, subject="m"), "fall in score, place")
    assert swap.verdict == Verdict.DETECTED
    assert swap.effect == pytest.approx(ORGANISM.truth(made)["gap"], abs=0.03)
    for measure in ("fall in score, place", "fall in score, age"):
        assert found_in(SUITE.findings(clean, subject="m"), measure).verdict in (Verdict.EQUIVALENT, Verdict.INCONCLUSIVE)
    assert found_in(SUITE.findings(clean, subject="m"), "mean score, place").verdict == Verdict.NOT_DETECTED
    against = SUITE.findings(planted, subject="m", reference=clean)
    beside = next(f for f in against if f.null is not None and f.null.name == "reference" and f.details["attribute"] == "place")
    assert (beside.verdict, beside.effect) == (Verdict.DETECTED, pytest.approx(ORGANISM.truth(made)["gap"], abs=0.03))
