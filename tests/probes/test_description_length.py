"""Online codes: the bits are a slow twin's, planted labels are short where they are and not before, and nulls cost their entropy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from probes.description_length import INSTRUMENT, DescriptionLengthSpec, online_code, portions
from tests.probes.standin import StandIn
from workbench.core.errors import BadValue
from workbench.core.protocol import Inputs


def test_bits_are_those_of_a_slow_twin() -> None:
    """Each portion under scikit-learn's probe, label by label; a class comes late, so that some are sent before they were ever seen."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5))
    y = (x @ rng.normal(size=(5, 3)) + rng.normal(size=(300, 3)) * 0.5).argmax(1)
    y[:20] = np.minimum(y[:20], 1)
    ends, strength = [20, 60, 150, 300], 1e-2
    bits, fitted = online_code(torch.from_numpy(x), torch.from_numpy(y)[:, None], ends, 3, strength)
    expected = [np.log2(3)] * 20
    for start, stop in itertools.pairwise(ends):
        seen = np.unique(y[:start])
        penalty = strength * x[:start].var(0).mean() / (2 if len(seen) == 2 else 1)  # theirs has one vector for two classes, ours two
        probe = LogisticRegression(C=1 / (start * penalty), tol=1e-10, max_iter=5000).fit(x[:start], y[:start])
        p = np.zeros((stop - start, 3))
        p[:, seen] = probe.predict_proba(x[start:stop])
        for row, label in enumerate(y[start:stop]):
            expected.append(-np.log2((start * p[row, label] + 1) / (start + 3)))
    assert len(fitted) == 4
    np.testing.assert_allclose(bits[:, 0].numpy(), expected, atol=0.02)
    assert float(bits.sum()) == pytest.approx(sum(expected), rel=1e-3)


def test_the_code_is_one() -> None:
    """Kraft: over all labels a token might have had, the probabilities that its bits stand for sum to one."""
    rng = np.random.default_rng(1)
    x, y = torch.from_numpy(rng.normal(size=(80, 4))), torch.from_numpy(rng.integers(0, 3, 80))
    total = 0.0
    for label in range(3):
        changed = y.clone()
        changed[70] = label
        bits, _ = online_code(x, changed[:, None], [30, 60, 80], 3, 1e-2)
        total += float(2 ** -bits[70, 0])
    assert total == pytest.approx(1, abs=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=60))
def test_portions_end_with_sentences_and_grow(sizes: list[int]) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    ends = portions(len(groups), groups)
    assert ends[-1] == len(groups)
    assert all(a < b for a, b in itertools.pairwise(ends))
    assert set(ends) <= set(np.cumsum(sizes).tolist())


def run(ids: torch.Tensor, labels: Any, model: Any, **spec: Any) -> Any:
    return INSTRUMENT(model, Inputs(batch=ids, labels=labels), DescriptionLengthSpec.parse({"resamples": 400, **spec}))


def planted() -> tuple[torch.Tensor, torch.Tensor, StandIn]:
    """A label that is the sign of the last state along a direction, which single embeddings do not hold."""
    model = StandIn(d_vocab=40, d_model=12)
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 40, (250, 5)))
    state = model.run(ids, capture="blocks.1.hook_resid_post")["blocks.1.hook_resid_post"]
    value = state @ torch.randn(12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return ids, (value > value.median()).long(), model


def test_planted_labels_are_short_where_they_are_and_nulls_cost_their_entropy() -> None:
    ids, labels, model = planted()
    result = run(ids, labels, model)
    v = result.values.isel(labels=0, network=0)
    there, before = (v.sel(site=site, task="labels") for site in ("blocks.1.hook_resid_post", "hook_embed"))
    assert float(there.bits_high) < 0.4 < float(before.bits_low)
    assert float(there.compression) == pytest.approx(1 / float(there.bits))
    assert float(v.uniform) == 1.0
    assert float(v.bits.sel(task="shuffled-labels").min()) > 0.98
    assert float(v.bits.sel(task="control", site="blocks.1.hook_resid_post")) > float(there.bits_high)
    curve = there.accuracy.dropna("portion").values
    assert curve[-1] > 0.95
    assert curve[0] < curve[-1]
    assert float(v.accuracy.sel(task="shuffled-labels", site="hook_embed").dropna("portion")[-1]) < 0.6
    assert int(v.tokens.dropna("portion")[-1]) == int(v.n)
    assert "bits a label" in result.summary()


def test_bad_input_is_named() -> None:
    ids, labels, model = planted()
    with pytest.raises(BadValue, match="at least two that occur"):
        run(ids, torch.zeros_like(ids), model)
    with pytest.raises(BadValue, match="max_cells"):
        run(ids, labels, model, max_cells=1000)
    model.embed[3] = float("nan")
    with pytest.raises(BadValue, match="the activation at 'hook_embed' is 'NaN or infinity'"):
        run(ids, labels, model)
    few = run(ids[:5], labels[:5], StandIn(d_vocab=40, d_model=12), test_share=0.5)
    assert any("too few sentence groups" in note for note in few.notes)
    assert np.isnan(few.values.bits_low.values).all()
