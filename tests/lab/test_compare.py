"""Two runs of one suite, pair by pair."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import xarray as xr

from evals import SUITES
from evals.bound import Unbound
from workbench.core.catalog import Catalog
from workbench.core.errors import UnknownName, UsageError
from workbench.core.measure import Generate, Needs, Sample, Score
from workbench.core.result import Result
from workbench.core.spec import Spec
from workbench.core.stats.counts import mcnemar_exact
from workbench.core.stats.resampling import paired_bootstrap
from workbench.data.worlds.gallery import Gallery
from workbench.data.worlds.shapes import caption_of
from workbench.lab import run as lab
from workbench.lab.compare import Kept, _asked_of, compare, paired, request_digest, requests
from workbench.store.runs import Store


class ToySpec(Spec):
    shift: int = 0


@dataclass(frozen=True)
class _Toy:
    """A suite whose question about sample n is n, and n + shift from 30 on."""

    name: str = "toy"
    spec: type[Spec] = ToySpec
    needs: Needs = field(default_factory=Needs)

    def samples(self, spec: Any) -> list[Sample]:
        return [Sample(f"{n:03d}", {"n": n}) for n in range(40)]

    def request(self, sample: Sample, spec: Any) -> Generate:
        return Generate(str(sample.facts["n"] + (spec.shift if sample.facts["n"] >= 30 else 0)))

    def findings(self, result: Result, **_: Any) -> list[Any]:
        return []


class LookingSpec(Spec):
    seed: int = 0
    margin: float = 0.1


@dataclass(frozen=True)
class _Looking(Unbound):
    """A suite that looks at the model itself; its samples tell nothing of the world that ``seed`` draws."""

    name: str = "looking"
    spec: type[Spec] = LookingSpec
    needs: Needs = field(default_factory=Needs)

    def samples(self, spec: Any) -> list[Sample]:
        return [Sample(f"{n:03d}", {"number": n}) for n in range(8)]

    def found(self, model: Any, sample: Sample, spec: Any) -> Score:
        return Score(sample.id, {"near": 1.0})


TOY, LOOKING = _Toy(), _Looking()


@pytest.fixture
def toy(store: Store, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stores a run of the toy suite with given values; returns its id."""
    monkeypatch.setattr("workbench.lab.compare.SUITES", Catalog("suite", {"toy": ("tests.lab.test_compare:TOY", "a toy", "standard")}))

    def make(values: list[dict[str, Any]], *, unscored: tuple[int, ...] = (), shift: int = 0, name: str = "toy") -> str:
        run = store.runs.create("eval", {})
        records = [
            {"sample": f"{n:03d}", "epoch": 0, "values": v, "unscored": "a tie" if n in unscored else "", "cluster": f"c{n // 2}"}
            for n, v in enumerate(values)
        ]
        store.sink(run, name).put(records)
        store.put_result(run, name, Result("toy", xr.Dataset(), ToySpec(shift=shift).model_dump()))
        return run

    return make


def test_numbers_are_compared_by_the_paired_bootstrap_over_clusters(store: Store, toy: Any) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=40), rng.normal(size=40) + 0.5
    first, second = toy([{"score": float(v)} for v in x]), toy([{"score": float(v)} for v in y])
    found = compare(first, second, store=store)
    (one,) = found.differences
    expected = paired_bootstrap(y, x, clusters=[f"c{n // 2}" for n in range(40)])
    assert one.interval == expected.interval
    assert one.difference == pytest.approx(float(y.mean() - x.mean()))
    assert (one.n, one.clusters, one.p) == (40, 20, None)
    assert (found.denominators.run, found.denominators.scored) == (40, 40)


def test_true_and_false_are_compared_by_mcnemar(store: Store, toy: Any) -> None:
    a = [True] * 10 + [False] * 30
    b = [True] * 9 + [False] + [True] * 8 + [False] * 22
    found = compare(toy([{"right": v} for v in a]), toy([{"right": v} for v in b]), store=store)
    (one,) = found.differences
    assert one.p == mcnemar_exact(1, 8)
    assert one.difference == pytest.approx(7 / 40)
    assert one.interval is not None


def test_what_is_no_pair_is_counted(store: Store, toy: Any) -> None:
    values = [{"score": float(n)} for n in range(40)]
    first = toy(values[:38], unscored=(0, 1))
    second = toy(values, unscored=(1, 2, 3), shift=7)
    counts = compare(first, second, store=store).denominators
    assert counts.run == 40
    assert counts.unscored == {"a tie": 4, "asked differently in the two runs": 8, "in one run only": 2}
    assert counts.scored == 26


def test_a_suite_that_looks_for_itself_makes_pairs_of_one_world_alone_and_whatever_it_is_judged_by() -> None:
    looking: Any = LOOKING
    records = {(f"{n:03d}", 0): {"sample": f"{n:03d}", "values": {"near": 1.0}, "unscored": ""} for n in range(8)}

    def against(**changed: Any) -> Kept:
        return Kept("r", "looking", Result("looking", xr.Dataset(), LookingSpec.parse(changed).model_dump()), records)

    plain, judged, other = (_asked_of(looking, against(), against(**one)) for one in ({}, {"margin": 0.3}, {"seed": 3}))
    assert [len(paired(records, records, *sides)[0]) for sides in (plain, judged)] == [8, 8]
    with pytest.raises(UsageError, match=r"no scored pair \(8 asked differently in the two runs\)"):
        paired(records, records, *other)
    digests = [[request_digest(asked) for asked in side.values()] for sides in (judged, other) for side in sides]
    assert digests[0] == digests[1] == digests[2]
    assert len({*digests[2], *digests[3]}) == 16, "evidence tells them apart by digest"


def test_pictures_of_other_galleries_are_no_pairs() -> None:
    suite = SUITES.load("memorised-images")
    mine, same, others = (requests(suite, {"count": 1, "world": {"rows": 40, "held_out": 40, "seed": seed}}) for seed in (0, 0, 3))
    assert mine == same
    shared = {*mine} & {*others}
    assert len(shared) > 20
    assert not [name for name in shared if mine[name] == others[name]]


@pytest.mark.parametrize(
    ("name", "one", "same", "other"),
    [
        ("speaker-gaps", {}, {"dose": 0.0, "planted": "low"}, {"noise": 0.1}),
        ("memorised-images", {"repeated": 0.0}, {"repeated": 0.0, "dose": 0.0}, {"repeated": 0.0, "noise": 0.1}),
    ],
)
def test_a_planted_model_and_its_twin_are_pairs_where_they_are_shown_the_same(
    name: str, one: dict[str, Any], same: dict[str, Any], other: dict[str, Any]
) -> None:
    suite = SUITES.load(name)
    small = {"speakers": 2, "each": 1, "held_out": 1} if name == "speaker-gaps" else {"rows": 120, "held_out": 120}

    def asked(world: dict[str, Any]) -> dict[str, Any]:
        return requests(suite, {"world": {**small, **world}, **({"count": 2} if name == "memorised-images" else {})})

    mine, twins, others = asked(one), asked(same), asked(other)
    assert mine == twins, "the worlds differ in what was trained on alone"
    assert len(mine) >= 40
    assert {*mine} == {*others}, "samples of one name"
    assert not [sample for sample in mine if mine[sample] == others[sample]], "but of other sounds and pictures"


def test_of_repeated_pictures_those_captions_are_other_questions() -> None:
    suite = SUITES.load("memorised-images")
    hung, clean = (requests(suite, {"count": 1, "world": {"rows": 400, "held_out": 80, "repeated": share}}) for share in (0.8, 0.0))
    differ = {sample.split("/")[0] for sample in {*hung} & {*clean} if hung[sample] != clean[sample]}
    assert differ == {caption_of(*pair) for pair in Gallery().hanging}, "what is near is told by the training pictures of its caption"


def test_runs_that_do_not_fit_are_refused(store: Store, toy: Any) -> None:
    values = [{"score": float(n)} for n in range(40)]
    run, other = toy(values), toy(values, name="another")
    with pytest.raises(UsageError, match="they share none"):
        compare(run, other, store=store)
    with pytest.raises(UnknownName, match="no suite 'tyo' in both runs. Did you mean 'toy'"):
        compare(run, run, "tyo", store=store)
    with pytest.raises(UsageError, match=r"no scored pair \(40 a tie\)"):
        compare(run, toy(values, unscored=tuple(range(40))), store=store)
    few = compare(toy(values[:3]), toy(values[1:4]), store=store).differences[0]
    assert few.interval is None
    assert "2 clusters" in few.note


def test_two_models_are_compared_on_a_real_suite(store: Store, trained: str) -> None:
    runs = [lab.evaluate("trigger", trained, store=store, count=8, seed=0).run for _ in range(2)]
    same = compare(*runs, store=store)
    assert {"trigger.p_no", "without.mass"} <= {one.value for one in same.differences}, "values within values are compared too"
    assert all(one.difference == 0 for one in same.differences)
    assert same.findings
