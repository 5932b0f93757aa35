"""Probing: the ridge against scikit-learn, the controls, the splits, and planted labels that must and must not be found."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier

from probes import probe_labels as labels_module
from probes.probe_labels import (
    LabelSet,
    Split,
    check_split,
    control_codes,
    held_out,
    make_splits,
    read_labels,
    sentence_groups,
    shuffled_codes,
)
from probes.probing import INSTRUMENT, ProbingSpec
from probes.ridge import Moments, one_hot, predicted
from probes.token_items import read_items
from tests.probes.standin import StandIn
from workbench.core.batch import IGNORE
from workbench.core.errors import BadValue, EmptySelection, Incompatible
from workbench.core.protocol import Inputs

VOCABULARY = 40


def sentences(n=120, width=6, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, VOCABULARY, (n, width)))


def model_of(seed=0, **changes):
    return StandIn(d_vocab=VOCABULARY, d_model=16, seed=seed, **changes)


def run(ids, labels, *, spec=None, model=None, **more):
    settings: dict[str, Any] = {"resamples": 400, **(spec or {})}
    return INSTRUMENT(model or model_of(), Inputs(batch=ids, labels=labels, **more), ProbingSpec(**settings))


def task_of(ids, labels, position=None, **more):
    return read_labels(read_items(model_of(), Inputs(batch=ids, **more)), labels, position)[0]


# --- ridge ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [1e-6, 1e-3, 1.0])
def test_ridge_equals_scikit_learn(strength):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 12)) * rng.uniform(0.1, 9, 12) + 50  # scales differ and means are large
    codes = np.stack([rng.integers(0, 4, 300), rng.integers(0, 4, 300)], axis=1)
    y = one_hot(torch.from_numpy(codes), 4)
    sums = Moments()
    for part in np.array_split(np.arange(300), [7, 100, 100, 250]):
        sums.add(torch.from_numpy(x[part]), y[part])
    probe = sums.solve(strength)
    centred = x - x.mean(0)
    assert probe.penalty == pytest.approx(strength * np.trace(centred.T @ centred) / 12, rel=1e-12)
    theirs = Ridge(alpha=probe.penalty).fit(x, y.numpy())
    np.testing.assert_allclose(probe.weight.numpy(), theirs.coef_.T, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(probe.bias.numpy(), theirs.intercept_, rtol=1e-8)
    for label_set in range(2):
        classifier = RidgeClassifier(alpha=probe.penalty).fit(x, codes[:, label_set])
        ours = predicted(probe.scores(torch.from_numpy(x)), 2)[:, label_set]
        np.testing.assert_array_equal(ours.numpy(), classifier.predict(x))


def test_features_that_never_vary_give_the_most_frequent_label():
    sums = Moments()
    sums.add(torch.full((5, 3), 2.0), one_hot(torch.tensor([[0], [1], [1], [1], [2]]), 3))
    probe = sums.solve(1e-3)
    assert (probe.weight == 0).all()
    assert predicted(probe.scores(torch.full((2, 3), 7.0)), 1).tolist() == [[1], [1]]


def test_accuracy_is_what_a_hand_made_probe_gets():
    """The whole path once more with scikit-learn on the same split."""
    ids = sentences()
    model, labels = model_of(squash=torch.tanh), ids % 3
    v = run(ids, labels, model=model).values
    task = task_of(ids, labels)
    groups = sentence_groups(read_items(model, Inputs(batch=ids)), None)
    test = np.isin(groups, list(held_out(groups, 0.3, 0, "")))[task.where // 6]
    for site in ("hook_embed", "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"):
        x = model.run(ids, capture=site).at[site].reshape(-1, 16).numpy()
        centred = x[~test] - x[~test].mean(0)
        classifier = RidgeClassifier(alpha=1e-3 * (centred**2).sum() / 16).fit(x[~test], task.codes[~test])
        ours = v.accuracy.sel(labels="labels", task="labels", site=site, network="model", split="sentence")
        assert float(ours) == np.mean(classifier.predict(x[test]) == task.codes[test])
        logistic = LogisticRegression(max_iter=2000).fit(x[~test], task.codes[~test]).score(x[test], task.codes[test])
        assert abs(float(ours) - logistic) < 0.15


# --- what must be found and what must not ------------------------------------------------------------------------


def test_a_planted_direction_is_found_at_its_site_and_nowhere_before_it():
    """Label: the sign of the last state along a fixed direction, which single embeddings do not hold."""
    ids, model = sentences(600), model_of()
    direction = torch.randn(16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    state = model.run(ids, capture="blocks.1.hook_resid_post").at["blocks.1.hook_resid_post"][:, -1] @ direction
    v = run(ids, (state > state.median()).long(), model=model).values
    accuracy = v.accuracy.sel(task="labels", network="model").isel(split=0, labels=0)
    assert float(accuracy.sel(site="blocks.1.hook_resid_post")) > 0.9
    assert float(accuracy.sel(site="hook_embed")) < 0.75
    assert float(v.selectivity_low.sel(site="blocks.1.hook_resid_post", network="model").isel(split=0, labels=0)) > 0.2


def test_labels_of_the_word_type_have_no_selectivity():
    """A label that is itself a random function of the type is a control task: accuracy and control accuracy agree."""
    ids = sentences(300)
    of_type = torch.from_numpy(np.random.default_rng(5).integers(0, 2, VOCABULARY))
    v = run(ids, of_type[ids], spec={"draws": 20}).values.isel(split=0, labels=0, network=0)
    embed = v.sel(site="hook_embed")
    assert abs(float(embed.selectivity)) < 0.12
    assert float(embed.accuracy.sel(task="labels")) > 0.75


def test_labels_that_are_nowhere_stay_at_the_majority_rate():
    ids = sentences(400)
    labels = torch.from_numpy((np.random.default_rng(9).random((400, 6)) < 0.3).astype(np.int64))
    v = run(ids, labels).values.isel(split=0, labels=0, network=0)
    majority = float(v.majority)
    for task in ("labels", "shuffled-labels"):
        assert float(abs(v.accuracy.sel(task=task) - majority).max()) < 0.05


def test_the_untrained_network_gives_the_gain():
    ids, model, fresh = sentences(200), model_of(), model_of(seed=1)
    state = model.run(ids, capture="blocks.1.hook_resid_post").at["blocks.1.hook_resid_post"][:, -1, 0]
    result = run(ids, (state > 0).long(), model=model, reference=fresh)
    v = result.values.isel(split=0, labels=0)
    np.testing.assert_allclose(
        v.gain, v.accuracy.sel(task="labels", network="model") - v.accuracy.sel(task="labels", network="untrained"), atol=1e-12
    )
    assert (v.gain_low <= v.gain + 1e-9).all()
    assert float(v.gain.sel(site="blocks.1.hook_resid_post")) > 0
    assert not any("No untrained" in note for note in result.notes)
    alone = run(ids, (state > 0).long(), model=model)
    assert alone.provenance.data_digest != result.provenance.data_digest  # what it was compared with is part of its origin
    assert np.isnan(alone.values.gain.values).all()
    assert any("No untrained" in note for note in alone.notes)


def test_several_label_sets_at_once_equal_each_alone():
    ids = sentences(80)
    strings = np.array([["odd" if i % 2 else "even" for i in row] for row in ids.tolist()])
    some = torch.where(ids < 10, IGNORE, ids % 4)
    both = run(ids, {"parity": strings, "rest": some}).values
    for name, labels in (("parity", strings), ("rest", some)):
        alone = run(ids, {name: labels}).values
        for variable in alone.data_vars:
            np.testing.assert_array_equal(both[variable].sel(labels=[name]).values, alone[variable].values, err_msg=str(variable))
    assert both.classes.values.tolist() == [2, 4]


def test_one_pass_or_many_give_the_same():
    ids = sentences(60)
    whole, small = (run(ids, ids % 3, spec={"tokens_a_pass": budget}).values.accuracy for budget in (16384, 12))
    np.testing.assert_array_equal(whole.values, small.values)


# --- controls ---------------------------------------------------------------------------------------------------


@settings(deadline=None)  # time is measured elsewhere, and machines are shared
@given(st.integers(0, 200), st.integers(1, 4))
def test_control_labels_are_constant_per_type_and_shuffles_permute(seed, draws):
    ids = sentences(20, seed=seed)
    task = task_of(ids, ids % 3)
    control, shuffled = control_codes(task, draws, seed), shuffled_codes(task, draws, seed)
    for kind in np.unique(task.types):
        assert len(np.unique(control[task.types == kind], axis=0)) == 1
    for draw in range(draws):
        np.testing.assert_array_equal(np.bincount(shuffled[:, draw], minlength=3), np.bincount(task.codes, minlength=3))
    assert set(np.unique(control)) <= set(np.unique(task.codes))


def test_control_labels_follow_the_labels_distribution():
    ids = torch.arange(2000).reshape(400, 5) % VOCABULARY
    types = torch.arange(2000).reshape(400, 5)
    labels = torch.from_numpy((np.random.default_rng(0).random((400, 5)) < 0.2).astype(np.int64))
    task = task_of(ids, LabelSet(labels, types))
    assert control_codes(task, 20, 0).mean() == pytest.approx(task.codes.mean(), abs=0.01)


def test_one_word_type_has_no_control_and_the_result_says_so():
    ids = sentences(100)
    ids[:, -1] = 7
    labels = (ids[:, 0] > 19).long()
    result = run(ids, labels)
    assert np.isnan(result.values.selectivity.values).all()
    assert np.isnan(result.values.accuracy.sel(task="control").values).all()
    assert any("one word type only" in note for note in result.notes)
    named = run(ids, LabelSet(labels, ids[:, 0]))
    assert np.isfinite(named.values.selectivity.values).all()


# --- splits -----------------------------------------------------------------------------------------------------


def test_no_sentence_stands_on_both_sides_even_when_groups_would_let_it():
    ids = torch.cat([sentences(30), sentences(30)])
    items = read_items(model_of(), Inputs(batch=ids))
    for groups in (None, list(range(60))):
        found = sentence_groups(items, groups)
        np.testing.assert_array_equal(found[:30], found[30:])
    joined = sentence_groups(items, ["a", "b"] * 30)
    assert len(np.unique(joined)) == 2
    chained = sentence_groups(items, [*range(30), *range(1, 31)])  # sentence i and i + 1 share a group, so all are one
    assert len(np.unique(chained)) == 1


def test_a_split_that_leaks_is_caught():
    groups, types = np.array([0, 0, 1, 1, 2, 2]), np.array([5, 6, 5, 7, 8, 9])
    side = np.array([True, True, True, True, False, False])
    check_split(Split("sentence", side, ~side), groups, types)
    leaky = np.array([True, False, True, True, False, False])
    with pytest.raises(BadValue, match="1 sentence groups on both sides"):
        check_split(Split("sentence", leaky, ~leaky), groups, None)
    with pytest.raises(BadValue, match="word types on both sides"):
        check_split(Split("sentence+type", groups == 0, groups == 1), groups, types)
    with pytest.raises(BadValue, match="tokens on both sides"):
        check_split(Split("sentence", side, side), groups, None)
    with pytest.raises(BadValue, match="0 test tokens"):
        check_split(Split("sentence", np.ones(6, bool), np.zeros(6, bool)), groups, None)


def test_a_broken_split_cannot_reach_a_result(monkeypatch):
    """Planted: half of a group's tokens on each side. The check that every split passes through must stop it."""
    monkeypatch.setattr(labels_module.np, "isin", lambda a, b: np.arange(len(np.asarray(a))) % 2 == 0)
    with pytest.raises(BadValue, match="this split leaks"):
        make_splits(task_of(sentences(10), sentences(10) % 2), np.repeat(np.arange(10), 6), {0}, new_types=False, fraction=0.3, seed=0)


def test_new_types_are_held_out_and_reported_apart():
    ids = sentences(200)
    result = run(ids, ids % 3, spec={"new_types": True})
    v = result.values.isel(labels=0)
    assert v["split"].values.tolist() == ["sentence", "sentence+type"]
    assert v.seen_types.values.tolist() == [1.0, 0.0]
    assert v.excluded.values.tolist()[0] == 0
    assert v.excluded.values.tolist()[1] > 0
    assert (v.n_train + v.n_test + v.excluded).values.tolist() == [1200, 1200]
    assert any("chance by construction" in note for note in result.notes)


def test_counts_and_intervals():
    result = run(sentences(100), sentences(100) % 2)
    v = result.values.isel(split=0, labels=0, network=0)
    assert int(v.groups_train) == 70
    assert int(v.groups_test) == 30
    assert int(v.n_test) == 180
    for name in ("accuracy", "selectivity"):
        low, value, high = v[f"{name}_low"].values, v[name].values, v[f"{name}_high"].values
        assert (low <= value + 1e-9).all()
        assert (value <= high + 1e-9).all()
    few = run(sentences(8), sentences(8) % 2)
    assert np.isnan(few.values.accuracy_low.values).all()
    assert any("too few for an interval" in note for note in few.notes)


# --- bad inputs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "more", "words"),
    [
        (torch.zeros(10, 6).long(), {}, "at least two that occur"),
        (torch.full((10, 6), IGNORE), {}, "at least two that occur"),
        (torch.zeros(10, 5).long(), {}, "one a token"),
        (torch.rand(10, 6), {}, "integers, booleans or strings"),
        (torch.full((10,), -1), {}, "0 or more"),
        ({}, {}, "at least one label set"),
        (LabelSet(torch.arange(10) % 2, torch.zeros(9).long()), {}, "the shape of the types"),
        (sentences(10) % 2, {"lengths": torch.full((10,), 5)}, "labels on padding"),
        (sentences(10) % 2, {"groups": ["a"] * 10}, "at least 2, so that some can be held out"),
        (sentences(10) % 2, {"groups": ["a"]}, "the length of inputs.groups"),
        (sentences(10) % 2, {"reference": "fresh"}, "an untrained model"),
        (sentences(10) % 2, {"reference": model_of()}, "the audited model itself"),
    ],
)
def test_inputs_that_cannot_be_meant_are_named(labels, more, words):
    with pytest.raises(BadValue, match=words):
        run(sentences(10), labels, **more)


def test_other_refusals():
    ids = sentences(10)
    with pytest.raises(EmptySelection, match="nonsense"):
        run(ids, ids % 2, spec={"sites": ("blocks.*.nonsense",)})
    with pytest.raises(BadValue, match="batch and pos first"):
        run(ids, ids % 2, spec={"sites": ("blocks.0.attn.hook_pattern",)})
    with pytest.raises(BadValue, match="max_cells = 5"):
        run(ids, ids % 2, spec={"max_cells": 5})
    with pytest.raises(BadValue, match="position is 6"):
        run(ids, ids[:, 0] % 2, spec={"position": 6})
    with pytest.raises(Incompatible, match="its sites are not the model's"):
        run(ids, ids % 2, reference=model_of(seed=1, layers=3))
    with pytest.raises(BadValue, match="NaN or infinity"):
        run(ids, ids % 2, model=model_of(squash=lambda s: s * float("nan")))
    with pytest.raises(BadValue, match=r"inputs\.labels is None"):
        INSTRUMENT(model_of(), Inputs(batch=ids))
