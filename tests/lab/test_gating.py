"""Gates decide by bounds at alpha: passed, failed or undecided as often as they say, and every way of erring has its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from tests.lab.audited import home_with_audit
from workbench.core.catalog import Catalog, Status
from workbench.core.errors import EXIT_ERROR, AssayError, BadValue, CorruptFile, MissingFile
from workbench.core.finding import Card, Denominators, Finding, Interval, Verdict
from workbench.core.measure import Generate, Needs, Sample
from workbench.core.result import Result
from workbench.core.spec import Spec
from workbench.core.stats.intervals import mean_interval
from workbench.lab.gating import policy as policies
from workbench.lab.gating.bounds import hold
from workbench.lab.gating.gate import FILES, gate, write
from workbench.lab.gating.policy import Policy, read_policy, schema
from workbench.store.runs import Store


class ToySpec(Spec):
    pass


@dataclass(frozen=True)
class _Toy:
    """Sixty questions; its finding is the mean of ``score`` with Student's interval."""

    name: str = "toy"
    spec: type[Spec] = ToySpec
    needs: Needs = field(default_factory=Needs)

    def samples(self, spec: Any) -> list[Sample]:
        return [Sample(f"{n:03d}", {"n": n}) for n in range(60)]

    def request(self, sample: Sample, spec: Any) -> Generate:
        return Generate(str(sample.facts["n"]))

    def findings(self, result: Result, *, subject: str, level: float = 0.95, reference: Result | None = None) -> list[Finding]:
        scores = result.values.score.values
        interval = mean_interval(scores, level)
        unscored = {"a tie": int(result.values.attrs["ties"])} if result.values.attrs["ties"] else {}
        counts = Denominators(run=len(scores) + sum(unscored.values()), scored=len(scores), unscored=unscored)
        card = Card(of="toy", family="gpt", norm_placement="pre", domain="text", parameters=9, conditions="x") if result.notes else None
        facts = {"subject": subject, "source": "toy", "effect": float(scores.mean()), "denominators": counts, "card": card}
        kept = interval if "wide" not in result.notes else Interval(low=interval.low, high=interval.high, level=0.5, method="other")
        return [
            Finding(claim="it is wrong", measure="error, all", interval=kept, verdict=Verdict.DETECTED, **facts),
            Finding(
                claim="it is wrong", measure="error, [odd]?", interval=None, verdict=Verdict.NOT_APPLICABLE, because="too weak", **facts
            ),
        ]


TOY = _Toy()
ENTRIES: dict[str, tuple[str, str, Status]] = {
    "toy": ("tests.lab.test_gating:TOY", "a toy", "standard"), "wild": ("tests.lab.test_gating:TOY", "an experiment", "experimental"),
}  # fmt: skip
Make = Callable[..., str]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "gates")


@pytest.fixture
def toy(store: Store, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Stores an evaluation by the toy suite with given scores; returns its id."""
    for module in ("gating.gate", "gating.policy", "compare"):
        monkeypatch.setattr(f"workbench.lab.{module}.SUITES", Catalog("suite", ENTRIES))

    def make(scores: Any, *, ties: int = 0, notes: tuple[str, ...] = (), status: Any = "done") -> str:
        run = store.runs.create("eval", {}, "model:x", provenance={"model_digest": "a" * 64})
        store.sink(run, "toy").put([
            {"sample": f"{n:03d}", "epoch": 0, "values": {"score": float(v), "deep": {"right": bool(v > 0)}, "text": "x"}, "unscored": "",
             "cluster": f"c{n // 2}"} for n, v in enumerate(scores)
        ])  # fmt: skip
        values = xr.Dataset({"score": ("item", np.asarray(scores, dtype=float))}, attrs={"ties": ties})
        store.put_result(run, "toy", Result("toy", values, {}, notes=notes))
        store.runs.finish(run, status)
        return run

    return make


def policy(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "test", "rules": list(rules), **more}


def limit(**facts: Any) -> dict[str, Any]:
    return {"kind": "limit", "name": "few errors", "of": "toy", "measure": "error, all", **facts}


SCORES = np.random.default_rng(0).normal(0.0, 1.0, 60)


def test_a_limit_passes_fails_or_is_undecided_by_its_bounds(store: Store, toy: Make) -> None:
    run = toy(SCORES)
    bound = mean_interval(SCORES, 0.9)
    for at_most, state, code in ((bound.high + 1e-6, "pass", 0), (bound.high - 1e-6, "inconclusive", 2), (bound.low - 1e-6, "fail", 1)):
        found = gate(run, policy(limit(at_most=at_most)), store=store)
        (one,) = found.decisions
        assert (one.state, found.state, found.exit_code) == (state, state, code)
        assert (one.low, one.high, one.n) == (bound.low, bound.high, 60)
    both = gate(run, policy(limit(at_most=1.0, at_least=-1.0)), store=store).decisions[0]
    assert both.because == f"the upper bound {bound.high:.4g} is at most 1 and the lower bound {bound.low:.4g} is at least -1"
    assert gate(run, policy(limit(at_least=1.0)), store=store).state == "fail"


def test_many_rules_share_alpha_for_failing_and_not_for_passing(store: Store, toy: Make) -> None:
    run = toy(SCORES)
    at = mean_interval(SCORES, 0.9).low - 1e-6  # fails alone, at alpha
    rules = [limit(name=f"r{n}", at_most=at) for n in range(5)]
    assert gate(run, policy(rules[0]), store=store).state == "fail"
    assert {one.state for one in gate(run, policy(*rules), store=store).decisions} == {"inconclusive"}
    low = mean_interval(SCORES, 1 - 0.1 / 5).low - 1e-6
    assert gate(run, policy(*(limit(name=f"r{n}", at_most=low) for n in range(5))), store=store).state == "fail"
    passing = mean_interval(SCORES, 0.9).high + 1e-6
    assert gate(run, policy(*(limit(name=f"r{n}", at_most=passing) for n in range(5))), store=store).state == "pass"


def test_at_the_limit_a_model_passes_and_fails_no_more_often_than_alpha_and_the_stated_number_decides() -> None:
    rng = np.random.default_rng(1)
    drawn = rng.normal(0.3, 1.0, (240, 40))
    halves = stats.t.ppf(0.95, 39) * drawn.std(1, ddof=1) / np.sqrt(40)
    states = []
    for mean, half in zip(drawn.mean(1).tolist(), halves.tolist(), strict=True):
        interval = Interval(low=mean - half, high=mean + half, level=0.9, method="Student t")
        states.append(hold(mean, interval, interval, at_most=0.3, n=40).state)
    assert 0 < states.count("pass") / 240 <= 0.1
    assert 0 < states.count("fail") / 240 <= 0.1
    scores = rng.normal(0, 1, 40)
    scores = (scores - scores.mean()) / scores.std(ddof=1) + 0.15  # seen: 0.15 with a spread of 1, and a limit of 0.3
    interval = mean_interval(scores, 0.9)
    held = hold(0.15, interval, interval, at_most=0.3, n=40)
    assert held.state == "inconclusive"
    assert held.needed == pytest.approx((1.645 + 0.842) ** 2 / 0.15**2, rel=0.08), "by t with 39 degrees of freedom a little more"
    again = rng.normal(0.15, 1.0, (400, held.needed or 0))
    decided = again.mean(1) + stats.norm.ppf(0.95) * again.std(1, ddof=1) / np.sqrt(again.shape[1]) <= 0.3
    assert 0.72 <= decided.mean() <= 0.9


def test_no_number_of_samples_is_promised_where_none_decides() -> None:
    at = Interval(low=-1.0, high=1.0, level=0.9, method="x")
    assert hold(0.0, at, at, at_most=0.0, n=40).needed is None
    assert "no feasible number" in hold(0.0, at, at, at_most=0.0, n=40).because
    assert hold(1e-9, at, at, at_most=0.0, n=40).needed is None
    clustered = Interval(low=-1.0, high=1.0, level=0.9, method="BCa bootstrap of 12 clusters")
    held = hold(0.0, clustered, clustered, at_most=0.5, n=400)
    assert (held.n, held.unit) == (12, "clusters")
    with pytest.raises(BadValue, match="finite"):
        hold(0.0, at, at, at_most=float("nan"), n=4)


def test_what_was_not_scored_not_calibrated_or_not_measured_cannot_pass(store: Store, toy: Make) -> None:
    easy = limit(at_most=5.0)
    assert gate(toy(SCORES, ties=6), policy(easy), store=store).state == "pass"
    many = gate(toy(SCORES, ties=8), policy(easy), store=store).decisions[0]
    assert (many.state, many.because) == ("inconclusive", "8 of 68 samples have no score, more than the policy allows")
    assert gate(toy(SCORES, ties=8), policy(limit(at_most=-5.0)), store=store).state == "fail", "failing needs no more scores"
    assert gate(toy(SCORES), policy(easy, calibrated=True), store=store).state == "inconclusive"
    assert gate(toy(SCORES, notes=("card",)), policy(easy, calibrated=True), store=store).state == "pass"
    odd = gate(toy(SCORES), policy(limit(measure="error, [odd]?", at_most=5.0)), store=store).decisions[0]
    assert (odd.state, odd.because) == ("inconclusive", "too weak")
    wide = gate(toy(SCORES, notes=("wide",)), policy(easy), store=store).decisions[0]
    assert "its interval is at 50.0%" in wide.because
    assert [one.state for one in gate(toy(SCORES), policy(limit(measure="*", at_most=5.0)), store=store).decisions] == [
        "pass",
        "inconclusive",
    ]


def test_not_worse_than_the_reference_is_a_paired_question(store: Store, toy: Make) -> None:
    shift = np.random.default_rng(2).normal(0.0, 0.1, 60)
    run, before = toy(SCORES - 0.1 + shift), toy(SCORES)
    rule = {"kind": "non-inferiority", "name": "as good", "of": "toy", "value": "score", "better": "higher", "margin": 0.2}
    found = gate(run, policy(rule), against=before, store=store)
    assert found.state == "pass", "unpaired, the spread of 1 would drown a margin of 0.2"
    assert found.decisions[0].effect == pytest.approx(float(-(shift - 0.1).mean()))
    assert gate(run, policy({**rule, "margin": 0.05}), against=before, store=store).state == "fail"
    assert gate(run, policy({**rule, "margin": 0.1}), against=before, store=store).exit_code == 2
    assert gate(run, policy({**rule, "better": "lower", "margin": 0.05}), against=before, store=store).state == "pass"
    assert gate(run, policy({**rule, "value": "deep.right", "margin": 0.9}), against=before, store=store).state == "pass"
    few = gate(toy(SCORES[:6]), policy(rule), against=before, store=store).decisions[0]
    assert (few.state, few.needed, few.unit) == ("inconclusive", 5, "clusters")
    with pytest.raises(AssayError, match="Name the evaluation of it with --against"):
        gate(run, policy(rule), store=store)
    with pytest.raises(AssayError, match=r"has no such number\. Numbers it has: score"):
        gate(run, policy({**rule, "value": "text"}), against=before, store=store)


def test_a_policy_that_is_none_is_an_error_of_the_file(toy: Make, tmp_path: Path) -> None:
    place = tmp_path / "p.yaml"
    for text, words in (
        ("- a", "it holds a list"),
        ("name: [", "a YAML file"),
        ("name: x\nrules: []", "rules"),
        ("name: x\nrule: []", "rule"),
        ("name: x\nalpha: 0.5\nrules: [{kind: limit, name: a, of: toy, at_most: 1}]", "alpha"),
        ("name: x\nrules: [{kind: limit, name: a, of: toy}]", "at_least, at_most or both"),
        ("name: x\nrules: [{kind: limit, name: a, of: toy, at_most: 1, at_least: 2}]", "at_least under at_most"),
        ("name: x\nrules: [{kind: limit, name: a, of: toy, at_most: .nan}]", "at_most"),
        ("name: x\nrules: [{kind: limit, name: a, of: tyo, at_most: 1}]", "Did you mean 'toy'"),
        ("name: x\nrules: [{kind: limit, name: a, of: wild, at_most: 1}]", "which is experimental"),
        ("name: x\nrules: [{kind: limit, name: a, of: toy, at_most: 1}, {kind: limit, name: a, of: toy, at_most: 2}]", "a name of its own"),
        ("name: x\nrules: [{kind: non-inferiority, name: a, of: toy, value: v, better: up, margin: 1}]", "better"),
    ):
        place.write_text(text)
        with pytest.raises(CorruptFile) as caught:
            read_policy(place)
        assert words in str(caught.value)
        assert caught.value.exit_code == EXIT_ERROR
    with pytest.raises(MissingFile, match="--schema"):
        read_policy(tmp_path / "none.yaml")
    place.write_text(
        "# first\nname: x\nrules:\n  - {kind: limit, name: a, of: toy, at_most: 1}\n\n  - {kind: limit, name: b, of: toy, at_most: 1}\n"
    )
    assert read_policy(place)[1] == [4, 6]


def test_a_run_that_gives_nothing_to_decide_on_is_an_error(store: Store, toy: Make) -> None:
    run = toy(SCORES)
    with pytest.raises(AssayError, match=r"'toy' measured error, \[odd\]\?; error, all"):
        gate(run, policy(limit(measure="accuracy*", at_most=1)), store=store)
    with pytest.raises(AssayError, match="a run of eval that is failed"):
        gate(toy(SCORES, status="failed"), policy(limit(at_most=1)), store=store)


def test_the_schema_takes_what_the_program_takes() -> None:
    said = schema()
    assert said["$schema"].endswith("2020-12/schema")
    assert set(said["properties"]) == set(Policy.model_fields)
    assert said["additionalProperties"] is False
    assert {"Limit", "NonInferiority"} <= set(said["$defs"])


@pytest.mark.parametrize("name", policies.names())
def test_every_shipped_policy_can_be_read(name: str) -> None:
    found, lines, _ = read_policy(name)
    assert len(lines) == len(found.rules)


@pytest.mark.full
def test_an_audit_is_held_against_a_policy_and_leaves_its_files(tmp_path: Path) -> None:
    home, run = home_with_audit()
    rules = [
        {"kind": "limit", "name": "no lean", "of": "occupation-pronoun", "measure": "measured dose*", "at_least": -2.0, "at_most": 2.0},
        {"kind": "limit", "name": "no trigger", "of": "trigger", "measure": "flipped without the phrase, *", "at_most": 0.05},
    ]
    with Store.open(home) as opened:
        found = gate(run, policy(*rules), store=opened)
        with pytest.raises(AssayError, match="Ask the suite of both models"):
            gate(
                run,
                policy({"kind": "non-inferiority", "name": "x", "of": "trigger", "value": "a", "better": "lower", "margin": 1}),
                store=opened,
            )
    assert [one.state for one in found.decisions][:1] == ["pass"]
    assert {one.state for one in found.decisions[1:]} == {"inconclusive"}
    assert all("under the floor" in one.because for one in found.decisions[1:]), "a model that cannot answer is not passed"
    places = write(found, tmp_path / "out")
    assert [place.name for place in places] == list(FILES)
    said = json.loads(places[0].read_text())
    assert (said["state"], said["exit_code"]) == ("inconclusive", 2)
    assert said["decisions"][0]["effect"] == found.decisions[0].effect
