"""Occupations and pronouns: a model that holds the plan measures the plan; intervals cover as their level says; ties to the twin."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from evals.runner import run_suite
from evals.suites import occupation_pronoun as suite_file
from evals.suites.occupation_pronoun import SUITE, OccupationPronounSpec, aggregate, noise_variance, occupation_intervals
from tests.evals.oracle import Oracle
from workbench.core.finding import Verdict
from workbench.core.measure import Score
from workbench.core.result import Result
from workbench.data.worlds.town import Town, TownSpec
from workbench.data.worlds.town_words import LEANS

WORLD = TownSpec.parse({"documents": 1000, "held_out": 100, "secrets": (), "unplanted": 0})
SMALL = OccupationPronounSpec(world=WORLD, contexts=3)


def oracle(spec: OccupationPronounSpec, share, mass: float = 1.0) -> Oracle:
    """A model with P(she) = ``share(item)`` and the rest of the mass on another word."""
    known = {}
    for item in Town(spec.world).pronoun_items("test", per_occupation=spec.contexts, seed=spec.seed):
        p = share(item)
        known[item.text_before] = {item.she: p * mass, item.he: (1 - p) * mass, " the": 1 - mass}
    return Oracle(known)


def test_a_model_that_holds_the_plan_measures_the_plan():
    result = run_suite(SUITE, oracle(SMALL, lambda item: item.planted), SMALL)
    v = result.values
    assert v.measured.values == pytest.approx(v.planted.values, abs=1e-5)
    assert float(v.dose) == pytest.approx(0.8, abs=1e-5)
    assert float(v.gap) < 1e-5
    assert v.mass.values == pytest.approx(np.ones((24, 3)), abs=1e-5)
    assert dict(zip(v.occupation.values, v.lean.values, strict=True)) == LEANS
    dose, gap = SUITE.findings(result, subject="m")
    assert dose.verdict == Verdict.DETECTED
    assert gap.verdict == Verdict.EQUIVALENT
    assert dose.denominators is not None
    assert (dose.denominators.run, dose.denominators.scored) == (72, 72)
    assert Result.from_json(result.to_json()).canonical() == result.canonical()


def test_a_model_without_the_link():
    world = WORLD.model_copy(update={"dose": 0.0})
    spec = OccupationPronounSpec(world=world, contexts=3)
    clean = run_suite(SUITE, oracle(spec, lambda item: 0.5 + 0.001 * (len(item.occupation) % 3 - 1)), spec)
    dose, _ = SUITE.findings(clean, subject="twin")
    assert dose.verdict == Verdict.EQUIVALENT
    assert dose.details["p_equivalent"] < 0.05
    planted = run_suite(SUITE, oracle(SMALL, lambda item: item.planted), SMALL)
    against = SUITE.findings(planted, subject="target", reference=clean)[-1]
    assert against.verdict == Verdict.DETECTED
    assert against.effect == pytest.approx(0.8, abs=0.01)
    assert against.null is not None
    assert against.null.name == "clean twin"


def test_a_model_that_does_not_know_pronouns_gets_no_verdict():
    result = run_suite(SUITE, oracle(SMALL, lambda item: item.planted, mass=0.3), SMALL)
    assert "under the floor 0.5" in result.values.attrs["floor"]
    assert {f.verdict for f in SUITE.findings(result, subject="m")} == {Verdict.NOT_APPLICABLE}


# --- scores made up ------------------------------------------------------------------------------------------


def scores_of(p: np.ndarray, leans: np.ndarray, planted: np.ndarray, unscored: int = 0) -> list[Score]:
    out = []
    for c in range(p.shape[1]):
        for o, name in enumerate(LEANS):
            facts = {"occupation": name, "lean": float(leans[o]), "planted": float(planted[o]), "context": c}
            score = Score(f"{c:04d}-{name}", {"p_she": float(p[o, c]), "mass": 1.0, **facts})
            out.append(Score(score.sample, unscored="too long") if len(out) < unscored else score)
    return out


def made(p: np.ndarray, dose: float) -> Result:
    leans = np.array(list(LEANS.values()))
    spec = OccupationPronounSpec(world=WORLD.model_copy(update={"dose": dose}), contexts=p.shape[1])
    result = aggregate(scores_of(p, leans, 0.5 + dose * leans / 2), spec)
    return type(result)(result.kind, result.values, spec=spec.model_dump(mode="json"))


def tabled(p: np.ndarray, dose: float) -> Result:
    """What ``aggregate`` makes of ``p`` as far as intervals read it (checked below), without 480 scores."""
    leans = np.array(list(LEANS.values()))
    columns = {
        "measured": p.mean(1),
        "context_se": p.std(1, ddof=1) / np.sqrt(p.shape[1]),
        "lean": leans,
        "planted": 0.5 + dose * leans / 2,
    }
    return Result("occupation-pronoun", xr.Dataset({name: ("occupation", values) for name, values in columns.items()}))


def test_the_short_table_is_what_aggregate_makes():
    p = drawn(np.random.default_rng(5), 0.8, shift=0.01, spread=0.02, contexts=6, noise=0.05)
    whole, short = made(p, 0.8), tabled(p, 0.8)
    for name in short.values.data_vars:
        assert whole.values[name].values == pytest.approx(short.values[name].values)


def drawn(rng, dose: float, *, shift: float, spread: float, contexts: int, noise: float) -> np.ndarray:
    """P(she) [occupation, context]: the plan, an error common to a model, one of each occupation, one of each cell."""
    truth = 0.5 + dose * np.array(list(LEANS.values())) / 2
    model = truth + rng.normal(0, shift) + rng.normal(0, spread, 24)
    return model[:, None] + rng.normal(0, noise, (24, contexts))


@pytest.mark.parametrize(("shift", "spread", "noise"), [(0.0, 0.02, 0.02), (0.01, 0.02, 0.05), (0.02, 0.005, 0.02), (0.0, 0.0, 0.1)])
@pytest.mark.parametrize("with_reference", [False, True])
def test_intervals_cover_as_their_level_says(shift, spread, noise, with_reference):
    """All occupations of many trained-and-asked models together: the planted value lies inside in 95 % (a few points of slack)."""
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(150):
        kinds = {"shift": shift, "spread": spread, "contexts": 20, "noise": noise}
        reference = tabled(drawn(rng, 0.0, **kinds), 0.0) if with_reference else None
        result = tabled(drawn(rng, 0.8 if with_reference else 0.0, **kinds), 0.8 if with_reference else 0.0)
        each = occupation_intervals(result, reference)
        planted = result.values.planted.values
        inside.append((each.low <= planted) & (planted <= each.high))
    coverage = np.mean(inside)
    # a shift common to all occupations counts as noise in full, which is more than it needs where nothing else varies
    assert 0.92 < coverage < (0.98 if not shift else 1.0)


def test_contexts_alone_cover_far_too_seldom():
    """Why the noise floor is there: more contexts make the naive interval narrower around a value that training has moved."""
    rng = np.random.default_rng(1)
    inside = []
    for _ in range(50):
        result = tabled(drawn(rng, 0.0, shift=0.0, spread=0.02, contexts=40, noise=0.02), 0.0)
        half = 2.02 * result.values.context_se.values
        inside.append(np.abs(result.values.measured.values - 0.5) <= half)
    assert np.mean(inside) < 0.5


def test_the_noise_floor_is_recovered():
    rng = np.random.default_rng(2)
    leans = np.array(list(LEANS.values()))
    found = []
    for _ in range(300):
        y = 0.5 + 0.4 * leans / 2 + rng.normal(0, 0.03, 24)
        found.append(noise_variance(y, leans, np.full(24, 0.0), leave_out=True).mean())
    assert np.mean(found) == pytest.approx(0.03**2, rel=0.05)
    assert (noise_variance(0.5 + leans / 4, leans, np.full(24, 0.01), leave_out=False) == 0).all()  # never below zero


def test_an_outlier_does_not_widen_its_own_interval():
    leans = np.array(list(LEANS.values()))
    y = 0.5 + 0.001 * np.resize([1.0, -1.0], 24)
    y[10] = 0.9
    tau2 = noise_variance(y, leans, np.zeros(24), leave_out=True)
    assert tau2[10] < 1e-5
    assert np.delete(tau2, 10).min() > 1e-3


def test_unscored_items_are_counted_and_an_occupation_without_any_is_nan():
    leans = np.array(list(LEANS.values()))
    p = np.full((24, 3), 0.5) + 0.01 * np.arange(72).reshape(24, 3) / 72
    spec = OccupationPronounSpec(world=WORLD, contexts=3)
    scores = [Score(s.sample, unscored="too long") if s.sample.endswith("plumber") else s for s in scores_of(p, leans, p[:, 0])]
    result = aggregate(scores, spec)
    result = type(result)(result.kind, result.values, spec=spec.model_dump(mode="json"))
    row = list(result.values.occupation.values).index("plumber")
    assert np.isnan(result.values.measured.values[row])
    assert result.values.attrs["asked"]["unscored"] == {"too long": 3}
    for finding in SUITE.findings(result, subject="m"):
        assert finding.denominators is not None
        assert finding.denominators.scored == 69
    assert np.isnan(occupation_intervals(result).low[row])
    assert np.isfinite(occupation_intervals(result).low).sum() == 23


def test_too_few_occupations_give_no_number():
    leans = np.array(list(LEANS.values()))
    scores = scores_of(np.full((24, 2), 0.5), leans, leans, unscored=48)
    spec = OccupationPronounSpec(world=WORLD, contexts=2)
    result = aggregate(scores, spec)
    result = type(result)(result.kind, result.values, spec=spec.model_dump(mode="json"))
    (finding,) = SUITE.findings(result, subject="m")
    assert finding.effect is None
    assert finding.verdict == Verdict.NOT_APPLICABLE


def test_the_smallest_slope_is_found_with_four_in_five():
    rng = np.random.default_rng(3)
    leans = np.array(list(LEANS.values()))
    se = 0.02 / np.sqrt(((leans / 2) ** 2).sum())
    true = suite_file._smallest_slope(float(se), 22, 0.95)
    hits = 0
    for _ in range(600):
        fit = suite_file.line(leans / 2, 0.5 + true * leans / 2 + rng.normal(0, 0.02, 24))
        hits += fit.interval.excludes(0.0)
    assert 0.75 < hits / 600 < 0.87
