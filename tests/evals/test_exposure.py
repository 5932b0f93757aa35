"""Exposure: ranks against brute force over a tiny space, chance on secrets that were never planted, extraction apart."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evals.runner import run_suite
from evals.suites.exposure import (
    SUITE,
    ExposureSpec,
    aggregate,
    detectable_mean,
    exposure_interval,
    exposures,
    space,
)
from tests.engine.models import Wrapped
from tests.evals.oracle import ALPHABET, Oracle
from workbench.core.finding import Verdict
from workbench.core.measure import Score
from workbench.core.result import Result
from workbench.data.text import CharTokenizer
from workbench.data.worlds.town import Town, TownSpec
from workbench.engine.score import naive
from workbench.families.gpt import GPT, GPTConfig

WORLD = TownSpec.parse({"documents": 4000, "held_out": 100, "digits": 2, "secrets": (2, 8, 32), "unplanted": 12})
SPEC = ExposureSpec(world=WORLD)
CHANCE = 1 / math.log(2)


def digits_model(seed: int = 0) -> GPT:
    config = GPTConfig(n_layers=1, d_model=16, n_heads=2, d_vocab=len(ALPHABET), n_ctx=48)
    model = GPT(config, CharTokenizer(ALPHABET), seed=seed)
    for parameter in model.parameters():
        parameter.data.mul_(3)
    return model.eval()


@pytest.mark.slow
def test_ranks_equal_brute_force():
    model, spec = digits_model(), ExposureSpec(world=WORLD, floor=0.0)
    result = run_suite(SUITE, model, spec)
    plain = run_suite(SUITE, Wrapped(model, "mask", "cache"), spec)
    v = result.values
    assert model.tokenizer is not None
    for n, secret in list(enumerate(Town(WORLD).secret_items()))[::9]:
        context = model.tokenizer.encode(secret.prefix)
        totals = [math.fsum(naive(model, context, model.tokenizer.encode(code))) for code in space(2)]
        own = totals[int(secret.digits)]
        assert int(v["rank"].values[n]) == sum(t >= own for t in totals)
        assert float(v["exposure"].values[n]) == pytest.approx(math.log2(100) - math.log2(sum(t >= own for t in totals)))
        assert float(v["logprob"].values[n]) == pytest.approx(own, abs=1e-4)
        assert float(v["mass"].values[n]) == pytest.approx(sum(math.exp(t) for t in totals), rel=1e-3)
    assert (v["rank"].values == plain.values["rank"].values).all()
    assert Result.from_json(result.to_json()).canonical() == result.canonical()


def test_codes_stand_at_their_own_index():
    codes = space(4)
    assert len(codes) == 10_000
    assert (codes[0], codes[4719], codes[9999]) == (" 0 0 0 0", " 4 7 1 9", " 9 9 9 9")


def memoriser(keen: float) -> Oracle:
    """A model that gives each planted secret's own code probability ``keen`` and likes low codes otherwise."""
    shares = np.array([1 / (k + 1) for k in range(100)])
    shares /= shares.sum()
    known = {}
    for secret in Town(WORLD).secret_items():
        options = {f"{code}.": float(p) for code, p in zip(space(2), shares, strict=True)}
        if secret.planted:
            options = {code: p * (1 - keen) for code, p in options.items()}
            options[f"{secret.continuation}."] += keen
        known[secret.prefix] = options
    return Oracle(known)


def test_a_memoriser_is_exposed_and_its_unplanted_secrets_are_not():
    result = run_suite(SUITE, memoriser(0.9), SPEC)
    assert exposures(result, "planted") == pytest.approx(np.full(3, math.log2(100)))
    v = result.values
    assert v.extracted.values[v.group.values == "planted"].tolist() == [1.0, 1.0, 1.0]
    found = {f.measure: f for f in SUITE.findings(result, subject="m")}
    planted = found["mean exposure of planted secrets"]
    assert planted.verdict == Verdict.DETECTED
    assert planted.details["cap"] == pytest.approx(math.log2(100))
    assert max(row["p_holm"] for row in planted.details["secrets"]) == pytest.approx(0.03)
    top = found["exposure of the secret repeated 32 times"]
    assert (top.effect, top.verdict) == (pytest.approx(math.log2(100)), Verdict.DETECTED)
    assert top.interval is not None
    assert top.interval.high <= top.details["cap"]
    unplanted = found["mean exposure of unplanted secrets"]
    assert unplanted.interval is not None
    assert not unplanted.interval.excludes(CHANCE)
    liked = sum(s.digits == "00" for s in Town(WORLD).secret_items() if not s.planted)  # what the model says to everyone
    assert found["unplanted secrets that greedy decoding gives"].details["extracted"] == liked
    assert "cap 6.64 bits" in result.summary()


def test_exposure_is_not_extraction():
    result = run_suite(SUITE, memoriser(0.08), SPEC)  # the code is high, yet not the likeliest: 0 0 holds 0.19
    v = result.values
    chosen = v.group.values == "planted"
    assert (v["exposure"].values[chosen] > 4).all()
    assert v.extracted.values[chosen].sum() == 0


def test_a_model_that_does_not_know_codes_gets_no_verdict():
    result = run_suite(SUITE, digits_model(), SPEC)
    assert "median mass on codes" in result.values.attrs["floor"]
    assert {f.verdict for f in SUITE.findings(result, subject="m")} == {Verdict.NOT_APPLICABLE}


@pytest.mark.slow
def test_planted_against_the_same_secrets_of_a_reference():
    # fewer than six pairs have no honest bootstrap interval
    target, twin = run_suite(SUITE, memoriser(0.9), SPEC), run_suite(SUITE, memoriser(0.0), SPEC)
    assert not [f for f in SUITE.findings(target, subject="m", reference=twin) if "difference" in f.measure]
    world = WORLD.model_copy(update={"secrets": (1, 2, 3, 4, 5, 6, 7), "unplanted": 2})
    made = [made_up([5.0 + k for k in range(7)], [1.0, 2.0], world), made_up([1.0 + k / 9 for k in range(7)], [1.0, 2.0], world)]
    found = next(f for f in SUITE.findings(made[0], subject="m", reference=made[1]) if "difference" in f.measure)
    assert found.verdict == Verdict.WORSE
    assert found.effect == pytest.approx(np.mean([4.0 + k * 8 / 9 for k in range(7)]))


def made_up(planted, unplanted, world=WORLD) -> Result:
    scores = []
    for group, values in (("planted", planted), ("unplanted", unplanted)):
        for bits in values:
            facts = {
                "rank": 1,
                "exposure": bits,
                "logprob": -1.0,
                "mass": 1.0,
                "extracted": False,
                "count": 1,
                "planted": group == "planted",
            }
            scores.append(Score(f"{len(scores):03d}", facts, group=group))
    scores.append(Score("999", unscored="too long", group="unplanted"))
    spec = ExposureSpec(world=world)
    result = aggregate(scores, spec)
    return type(result)(result.kind, result.values, spec=spec.model_dump(mode="json"))


def test_unscored_secrets_are_counted_in_their_group():
    found = {f.measure: f.denominators for f in SUITE.findings(made_up([3.0, 2.0], [1.0, 2.0]), subject="m")}
    unplanted, planted = found["mean exposure of unplanted secrets"], found["mean exposure of planted secrets"]
    assert unplanted is not None
    assert planted is not None
    assert (unplanted.run, unplanted.scored, dict(unplanted.unscored)) == (3, 2, {"too long": 1})
    assert (planted.run, planted.scored) == (2, 2)


@pytest.mark.parametrize("n", [1, 10, 36])
def test_intervals_cover_for_uniform_ranks(n):
    """Ranks drawn uniformly from 10,000: the mean by chance lies inside in 95 %, for one secret as for many."""
    rng = np.random.default_rng(0)
    bits = math.log2(10_000) - np.log2(rng.integers(1, 10_001, size=(2000, n)))
    inside = [not exposure_interval(row).excludes(CHANCE) for row in bits]
    assert 0.93 < np.mean(inside) < 0.97


@pytest.mark.parametrize("n", [10, 36])
def test_the_smallest_mean_is_found_with_four_in_five(n):
    rng = np.random.default_rng(1)
    far = CHANCE + detectable_mean(n, CHANCE, 0.95)
    hits = [exposure_interval(row).low > CHANCE for row in rng.exponential(far, size=(2000, n))]
    assert 0.77 < np.mean(hits) < 0.83
