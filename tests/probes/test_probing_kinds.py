"""Kinds of probes: what bends learns words by heart and what does not cannot; heads; the words alone; classes that are left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from probes import mlp_probe
from probes.probe_labels import LabelSet, held_out, read_labels, sentence_groups
from probes.probing import INSTRUMENT, ProbingSpec
from probes.token_items import read_items
from tests.probes.standin import StandIn
from workbench.core.errors import BadValue
from workbench.core.protocol import Inputs
from workbench.families import FAMILIES

VOCABULARY, WIDTH = 150, 6


def sentences(n: int = 300, vocabulary: int = VOCABULARY, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, vocabulary, (n, WIDTH)))


def model_of(**changes: Any) -> StandIn:
    return StandIn(**{"d_vocab": VOCABULARY, "d_model": 24, "seed": 0, **changes})


def run(ids: torch.Tensor, labels: Any, model: Any = None, **spec: Any) -> Any:
    inputs = Inputs(batch=ids, labels=labels)
    return INSTRUMENT(model or model_of(), inputs, ProbingSpec.parse({"resamples": 400, "sites": ["hook_embed"], **spec}))


def test_at_equal_accuracy_a_linear_probe_is_selective_and_an_mlp_is_not() -> None:
    """Planted: a label that is linear in the embedding of 150 words in 24 dimensions. Random labels of words are not linear in it, but
    words enough to be learnt by heart (Hewitt and Liang 2019, tables 1 and 2)."""
    ids, model = sentences(), model_of()
    labels = (model.embed @ torch.randn(24, generator=torch.Generator().manual_seed(1), dtype=torch.float64) > 0).long()[ids]
    found = {
        kind: run(ids, labels, model, probe=kind, hidden=128, epochs=60, draws=2).values.isel(split=0, labels=0, network=0, site=0)
        for kind in ("ridge", "logistic", "mlp")
    }
    accuracy = {kind: float(v.accuracy.sel(task="labels")) for kind, v in found.items()}
    assert min(accuracy.values()) > 0.93
    assert abs(accuracy["logistic"] - accuracy["mlp"]) < 0.03
    for kind in ("ridge", "logistic"):
        assert float(found[kind].selectivity_low) > 0.2
    assert float(found["mlp"].selectivity_high) < 0.1
    for v in found.values():  # nothing to learn by heart in labels that were shuffled over tokens
        assert float(v.accuracy.sel(task="shuffled-labels")) < 0.6


def test_logistic_accuracy_is_scikit_learns() -> None:
    ids, model = sentences(200), model_of(squash=torch.tanh)
    labels = torch.from_numpy(np.random.default_rng(3).integers(0, 4, VOCABULARY))[ids]
    site = "blocks.1.hook_resid_post"
    v = run(ids, labels, model, probe="logistic", sites=[site], draws=1).values.isel(split=0, labels=0, network=0, site=0)
    groups = sentence_groups(read_items(model, Inputs(batch=ids)), None)
    test = np.isin(groups, list(held_out(groups, 0.3, 0, "")))
    x, y = model.run(ids, capture=site)[site].numpy(), labels.numpy()
    flat = x[~test].reshape(-1, 24)
    penalty = 1e-3 * flat.var(0).mean()
    other = LogisticRegression(C=1 / (len(flat) * penalty), tol=1e-8, max_iter=5000).fit(flat, y[~test].ravel())
    assert float(v.accuracy.sel(task="labels")) == pytest.approx(
        other.score(x[test].reshape(-1, 24), y[test].ravel()), abs=0.0029
    )  # 1 of 360


@pytest.mark.parametrize("kind", ["logistic", "mlp"])
def test_labels_that_are_nowhere_stay_at_the_majority_rate(kind: str) -> None:
    ids = sentences(400)
    labels = torch.from_numpy((np.random.default_rng(9).random((400, WIDTH)) < 0.3).astype(np.int64))
    v = run(ids, labels, probe=kind, epochs=3, draws=1, strength=1e-1).values.isel(split=0, labels=0, network=0)
    for task in ("labels", "shuffled-labels"):
        assert float(abs(v.accuracy.sel(task=task) - float(v.majority)).max()) < 0.06


def test_a_label_in_one_head_is_found_in_that_head() -> None:
    """Planted: the sign of a direction in head 2 of the last layer."""
    model = FAMILIES.load("bert").tiny(seed=0)[0].double().eval()
    ids = torch.randint(0, 23, (250, 8), generator=torch.Generator().manual_seed(0))
    z = model.run(ids, capture="blocks.1.attn.hook_z")["blocks.1.attn.hook_z"]
    value = z[:, :, 2] @ torch.randn(4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    labels = (value > value.median()).long()
    v = run(ids, labels, model, probe="logistic", heads=True, sites=["blocks.*.attn.hook_z"], draws=1, strength=1e-5).values
    accuracy = v.accuracy.sel(task="labels").isel(split=0, labels=0, network=0)
    assert list(v.site.values) == [f"blocks.{layer}.attn.hook_z[{head}]" for layer in range(2) for head in range(4)]
    assert str(v.site.values[int(accuracy.values.argmax())]) == "blocks.1.attn.hook_z[2]"
    assert float(accuracy.max()) > 0.97
    assert float(np.sort(accuracy.values)[-2]) < 0.93
    whole = run(ids, labels, model, sites=["blocks.*.attn.hook_z"], draws=1).values
    assert list(whole.site.values) == [f"blocks.{layer}.attn.hook_z" for layer in range(2)]


def test_mlp_gradients_are_autograds() -> None:
    draw = torch.Generator().manual_seed(0)
    z, y = torch.randn(9, 5, generator=draw), torch.randint(0, 3, (9, 2), generator=draw)
    shapes = ((2, 5, 4), (2, 1, 4), (2, 4, 3), (2, 1, 3))
    weights = [torch.randn(shape, generator=draw).requires_grad_() for shape in shapes]
    scores = torch.relu(z @ weights[0] + weights[1]) @ weights[2] + weights[3]
    loss = sum(torch.nn.functional.cross_entropy(scores[number], y[:, number]) for number in range(2))
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    with torch.no_grad():
        for ours, weight in zip(mlp_probe._slopes(z, y, weights), weights, strict=True):
            torch.testing.assert_close(ours, weight.grad, rtol=1e-5, atol=1e-6)


# --- the words alone --------------------------------------------------------------------------------------------


def test_words_alone_give_labels_of_words_and_nothing_of_context() -> None:
    ids = sentences(200, vocabulary=30)
    of_word = torch.from_numpy(np.random.default_rng(5).integers(0, 3, VOCABULARY))[ids]
    before = (torch.roll(ids, 1, 1) > 14).long()
    v = run(ids, {"word": of_word, "before": before}, draws=1).values.isel(split=0)
    assert float(v.words.sel(labels="word")) == 1.0
    assert float(v.words_low.sel(labels="before")) < 0.5 < float(v.words_high.sel(labels="before")) + 0.05
    assert float(v.words.sel(labels="before")) < 0.6


def test_a_bag_of_words_gives_what_is_in_an_item_and_not_its_order() -> None:
    ids = sentences(400, vocabulary=12)
    holds, order = (ids == 3).any(1).long(), (ids[:, 0] > ids[:, 1]).long()
    types = torch.arange(400)
    v = run(ids, {"holds": LabelSet(holds, types), "order": LabelSet(order, types)}, draws=1).values.isel(split=0)
    assert float(v.words.sel(labels="holds")) > 0.95
    assert float(v.words.sel(labels="order")) < 0.65


# --- bad labels -------------------------------------------------------------------------------------------------


def test_a_class_of_three_examples_is_left_out_and_named() -> None:
    ids = sentences(60)
    labels = np.where(ids.numpy() % 2, "odd", "even").astype(object)
    labels[0, :3] = "rare"
    result = run(ids, labels, draws=1)
    assert result.notes[1] == "'labels': left out are classes of fewer than 5 tokens: 'rare' (3)."
    assert int(result.values.classes[0]) == 2
    assert int(result.values.n_train.sum() + result.values.n_test.sum()) == 60 * WIDTH - 3
    assert int(run(ids, labels, draws=1, least=3).values.classes[0]) == 3
    only = np.full((60, WIDTH), "one", dtype=object)
    only[0, :3] = "rare"
    with pytest.raises(BadValue, match=r"classes of 'labels'.*at least two that occur with at least 5 tokens each"):
        run(ids, only)
    with pytest.raises(BadValue, match=r"at least two that occur\."):
        run(ids, np.full((60, WIDTH), "one"))


def test_labels_of_words_that_were_cut_into_tokens_do_not_align() -> None:
    ids = sentences(60)
    with pytest.raises(BadValue, match=r"\(60, 5\), but it must be \(60, 6\).*cut into several tokens is labelled at its last"):
        run(ids, ids[:, :5] % 2)


def test_features_that_never_vary_are_named_and_give_what_is_frequent() -> None:
    ids, model = sentences(100), model_of()
    model.embed[:] = 1.0
    labels = (ids % 3 == 0).long()
    for kind in ("ridge", "logistic", "mlp"):
        result = run(ids, labels, model, probe=kind, draws=1, epochs=1)
        assert any(note.startswith("At 'hook_embed' of the audited network no feature varies") for note in result.notes)
        v = result.values.isel(split=0, labels=0, network=0, site=0)
        assert float(v.accuracy.sel(task="labels")) == pytest.approx(float(v.majority))
    assert not any("no feature varies" in note for note in run(ids, labels).notes)


def test_rare_classes_keep_the_others_codes() -> None:
    ids = sentences(20)
    labels = np.where(ids.numpy() % 2, "b", "d").astype(object)
    labels[0, 0], labels[0, 1] = "a", "c"
    task = read_labels(read_items(model_of(), Inputs(batch=ids)), labels, None, least=2)[0]
    assert task.classes == ("b", "d")
    assert task.rare == (("a", 1), ("c", 1))
    assert [task.classes[code] for code in task.codes] == [labels.ravel()[place] for place in task.where]
