"""Directions of a concept on a model in which one is planted: found at its layer, by each method as it should be, and not before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression

from probes.concept_direction import INSTRUMENT, ConceptDirectionResult
from probes.concept_fit import METHODS, directions, logistic_weight
from probes.concept_significance import significance
from workbench.core.errors import BadValue
from workbench.core.protocol import Inputs
from workbench.core.result import Result
from workbench.organisms.planted_direction import NO, YES, Planted, planted_direction

AT = "blocks.1.hook_resid_post"
BEFORE = ("hook_embed", "blocks.0.hook_resid_post", "blocks.1.hook_resid_mid")
SITES = (*BEFORE, AT, "blocks.2.hook_resid_post")


def asked(planted: Planted, n: int = 600, *, absent: bool = False, targets: bool = False, **spec: Any) -> ConceptDirectionResult:
    ids, same = planted.sentences(n)
    labels: dict[str, Any] = {"differ": np.where(same.numpy() == 1, "yes", "no")}
    if absent:
        labels["absent"] = np.random.default_rng(3).integers(0, 2, n)
    given: dict[str, Any] = {"targets": torch.full((n,), YES), "foils": torch.full((n,), NO)} if targets else {}
    words = {"quantity": "logit-difference"} if targets else {}
    found = INSTRUMENT(planted.model, Inputs(ids, labels=labels, **given), INSTRUMENT.spec.parse({"sites": SITES} | words | spec))
    assert isinstance(found, ConceptDirectionResult)
    return found


@pytest.fixture(scope="module")
def planted() -> Planted:
    return planted_direction()


@pytest.fixture(scope="module")
def found(planted: Planted) -> ConceptDirectionResult:
    return asked(planted, absent=True, targets=True)


def cosine(found: ConceptDirectionResult, planted: Planted, method: str, site: str = AT) -> float:
    return float(found.direction(site, "differ", method) @ planted.direction.double())


def test_what_is_planted_is_not_in_the_embeddings_and_is_computed_by_one_mlp(planted: Planted) -> None:
    ids, differ = planted.sentences(200)
    trace = planted.model.run(ids, capture="blocks.*.hook_mlp_out")
    written = trace["blocks.1.hook_mlp_out"][:, -1]
    assert torch.allclose(written, (2.0 * differ.float() - 1)[:, None] * 2.0 * planted.direction, atol=1e-5)
    assert not trace["blocks.0.hook_mlp_out"].any()
    assert not trace["blocks.2.hook_mlp_out"].any()


def test_the_planted_direction_is_found_by_means_and_patterns_and_the_raw_weight_is_another(
    found: ConceptDirectionResult, planted: Planted
) -> None:
    cosines = {method: cosine(found, planted, method) for method in METHODS}
    print(cosines)
    for method in ("difference", "ridge-pattern", "logistic-pattern"):
        assert cosines[method] >= 0.95, cosines
    assert cosines["ridge"] < 0.9, "a weight also turns away from what disturbs it"
    here = found.values.sel(site=AT, labels="differ", to_labels="differ")
    assert float(here["accuracy"].min()) >= 0.95
    assert float(here["accuracy_low"].min()) > 0.9
    later = found.values.sel(site="blocks.2.hook_resid_post", labels="differ", to_labels="differ")
    assert np.array_equal(later["accuracy"].values, here["accuracy"].values)


@pytest.mark.parametrize("site", BEFORE)
def test_before_its_layer_there_is_nothing(found: ConceptDirectionResult, planted: Planted, site: str) -> None:
    here = found.values.sel(site=site, labels="differ", to_labels="differ")
    assert (here["accuracy_low"] < 0.5).all()
    assert (here["accuracy"] < 0.6).all()
    assert (here["accuracy_high"] < 0.68).all(), "the interval says so"


def test_a_label_that_is_not_in_the_network_is_at_chance(found: ConceptDirectionResult) -> None:
    absent = found.values.sel(labels="absent", to_labels="absent")
    assert ((absent["accuracy_low"] < 0.5) & (absent["accuracy_high"] > 0.5)).mean() >= 0.9
    assert float(absent["accuracy"].max()) < 0.65
    across = found.values.sel(site=AT, labels="differ", to_labels="absent")
    assert (across["accuracy_high"] < 0.68).all()
    own = found.values["shuffled"].sel(site=AT)
    assert float(abs(own - 0.5).max()) < 0.2


def test_the_answer_moves_along_what_it_reads_and_not_along_an_absent_label(found: ConceptDirectionResult, planted: Planted) -> None:
    here = found.values.sel(site=AT, labels="differ")
    assert float(here["tcav"]) == 1.0
    assert float(here["slope"]) == pytest.approx(2 * cosine(found, planted, "logistic"), abs=1e-6), "two answers, each along the direction"
    assert float(here["slope_p_t"]) < 1e-6
    assert float(here["slope_p_rank"]) <= 2 / 41 + 1e-12, "of 40 random concepts none or one is as far out"
    assert float(here["tcav_p"]) > 0.1, "gradients are alike in all items, so half of the random concepts score 1 too"
    none = found.values.sel(site=AT, labels="absent")
    assert float(none["slope_p_rank"]) > 0.05
    assert "rises along it in 1.00 of held-out tokens" in found.summary()


def test_directions_are_of_length_one_symmetric_and_survive_storage(found: ConceptDirectionResult) -> None:
    table = found.values["cosine"].values
    assert np.allclose(table, np.transpose(table, (0, 3, 4, 1, 2)))
    again = Result.from_json(found.to_json())
    assert isinstance(again, ConceptDirectionResult)
    assert torch.equal(again.direction(AT, "differ", "logistic"), found.direction(AT, "differ", "logistic"))
    assert abs(float(found.direction(AT).norm()) - 1) < 1e-12
    with pytest.raises(BadValue, match=r"way is 'lda'.*difference, ridge"):
        found.direction(AT, way="lda")


def test_transfer_is_between_label_sets_on_other_sentences(planted: Planted) -> None:
    """Two data sets in one batch: what is fitted on one tells the other's sides apart, at the planted layer alone."""
    n = 400
    ids, differ = planted.sentences(n)
    first = np.where(np.arange(n) < n // 2, np.where(differ.numpy() == 1, "yes", "no"), "")
    second = np.where(np.arange(n) < n // 2, "", np.where(differ.numpy() == 1, "yes", "no"))
    spec = INSTRUMENT.spec.parse({"sites": SITES, "resamples": 400, "draws": 1})
    found = INSTRUMENT(planted.model, Inputs(ids, labels={"first": first, "second": second}), spec)
    across = found.values.sel(labels="first", to_labels="second", way="difference")["accuracy"]
    assert float(across.sel(site=AT)) > 0.95
    assert float(across.sel(site=list(BEFORE)).max()) < 0.65
    assert float(found.values["cosine"].sel(site=AT, labels="first", to_labels="second", way="difference", to_way="difference")) > 0.95


# --- the fits, against slow twins -----------------------------------------------------------------------------


def noisy(n: int = 300, d: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=draw, dtype=torch.float64)
    way = torch.nn.functional.normalize(torch.randn(d, generator=draw, dtype=torch.float64), dim=0)
    y = torch.arange(n) % 2 == 0
    return torch.randn(n, d, generator=draw, dtype=torch.float64) @ mix + torch.where(y, 1.0, -1.0)[:, None] * 2 * way, y, way


def test_the_logistic_weight_is_sklearns() -> None:
    x, y, _ = noisy()
    penalty = 1e-2 * float((x - x.mean(0)).square().sum(0).mean())
    theirs = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000).fit(x.numpy(), y.numpy()).coef_[0]
    assert np.abs(logistic_weight(x, y, 1e-2).numpy() - theirs).max() < 1e-5


def test_separable_sides_and_constant_features_have_a_direction_and_nothing_has_none() -> None:
    x, y, way = noisy()
    x = torch.cat([x + torch.where(y, 40.0, -40.0)[:, None] * way, torch.ones(len(x), 1)], 1)
    ways = directions(x, y, 1e-3)
    assert ways.isfinite().all()
    assert (ways[:, -1].abs() < 1e-12).all(), "a feature that never varies is in no direction"
    assert not directions(torch.ones(10, 3), torch.arange(10) < 5, 1e-3).any()
    with pytest.raises(BadValue, match="of one side alone"):
        directions(x, torch.ones(len(x), dtype=torch.bool), 1e-3)


def test_labels_that_mean_nothing_are_significant_as_often_as_the_level_says() -> None:
    """By simulation: 60 meaningless concepts, each against 9 random ones, at the level 0.1 (99.9 % of runs lie within these bounds)."""
    rank, t = [], []
    for seed in range(60):
        draw = torch.Generator().manual_seed(seed)
        x, slopes = torch.randn(40, 3, generator=draw), torch.randn(31, 3, generator=draw) + 0.7
        found = significance(x, torch.randperm(40, generator=draw) < 20, slopes, strength=1e-2, concepts=9, seed=seed)
        rank.append(found.p_rank)
        t.append(found.p_t)
    assert binom.ppf(0.0005, 60, 0.1) <= sum(p <= 0.1 + 1e-9 for p in rank) <= binom.ppf(0.9995, 60, 0.1)
    assert sum(p <= 0.1 for p in t) <= binom.ppf(0.9995, 60, 0.1)


def test_a_concept_that_the_answer_follows_is_significant() -> None:
    x, y, _ = noisy()
    slopes = logistic_weight(x, y, 1e-2).repeat(20, 1)
    found = significance(x, y, slopes, strength=1e-2, concepts=39, seed=0)
    assert (found.score, found.p_rank) == (1.0, 1 / 40)
    assert found.p_t < 0.1, "six features: a random direction is seldom far from any"
    assert found.slope == pytest.approx(float(slopes[0].norm()))


def test_what_cannot_be_meant_is_refused(planted: Planted) -> None:
    ids, differ = planted.sentences(40)
    ask = lambda labels, **spec: INSTRUMENT(planted.model, Inputs(ids, labels=labels), INSTRUMENT.spec.parse(spec))  # noqa: E731
    with pytest.raises(BadValue, match=r"classes of 'labels' is '4 of them'.*Set concept to one of 0, 1, 2, 3"):
        ask(np.arange(40) % 4)
    with pytest.raises(BadValue, match=r"concept is 'maybe'.*a class of 'labels': 0, 1"):
        ask(differ, concept="maybe")
    with pytest.raises(BadValue, match="of one side alone"):
        ask(np.where(np.arange(40) == 0, "yes", "no"))
    with pytest.raises(BadValue, match="batch and pos first"):
        ask(differ, sites=["blocks.0.attn.hook_pattern"])
    with pytest.raises(BadValue, match=r"at most max_cells = 10"):
        ask(differ, max_cells=10)
