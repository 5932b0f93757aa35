"""Reading whole sequences: one marked token among many tells the label, and only a reader that finds it is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from probes import attention_probe
from probes.sequence_probe import INSTRUMENT, SequenceProbeSpec
from tests.probes.standin import StandIn
from workbench.core.errors import BadValue
from workbench.core.protocol import Inputs

WIDTH, OTHERS = 9, 30
SITE = "hook_embed"


def marked_model() -> StandIn:
    """A token is a mark or none, a class (-1 or 1) and a vector of its own; its id is 4 * own + 2 * mark + class."""
    model = StandIn(d_vocab=4 * OTHERS, d_model=8)
    ids = torch.arange(4 * OTHERS)
    model.embed[:, 0], model.embed[:, 1] = 3.0 * (ids // 2 % 2), 2.0 * (ids % 2) - 1
    model.embed[:, 2:] *= 0.5
    return model


def sequences(n: int, seed: int = 0) -> tuple[Tensor, np.ndarray]:
    """One marked token at a random place, its class the label; the classes of all others are random."""
    rng = np.random.default_rng(seed)
    classes, place = rng.integers(0, 2, (n, WIDTH)), rng.integers(0, WIDTH, n)
    marks = np.arange(WIDTH) == place[:, None]
    ids = 4 * rng.integers(0, OTHERS, (n, WIDTH)) + 2 * marks + classes
    return torch.from_numpy(ids), classes[marks]


def read(ids: Tensor, labels: Any, lengths: Tensor | None = None, **spec: Any) -> Any:
    fields = {"sites": [SITE], "resamples": 400, "epochs": 20, "draws": 1, **spec}
    result = INSTRUMENT(marked_model(), Inputs(ids, lengths, labels=labels), SequenceProbeSpec.parse(fields))
    return result, result.values.isel(labels=0, network=0, site=0)


@pytest.mark.slow
def test_a_mark_among_many_tokens_is_found_by_attention_alone() -> None:
    ids, labels = sequences(300)
    result, v = read(ids, labels)
    assert float(v.accuracy.sel(reader="attention")) > 0.95
    assert float(v.gain_low) > 0.15
    assert float(v.tokens_read) < 0.8 * WIDTH
    assert (v.accuracy.sel(reader=["mean", "last"]) < 0.75).all()
    assert abs(float(v.shuffled.sel(reader="attention")) - 0.5) < 0.1
    assert f"attending to {float(v.tokens_read):.1f} tokens" in result.summary()


def test_what_no_token_knows_is_at_chance_for_every_reader() -> None:
    ids, _ = sequences(200)
    _, v = read(ids, np.random.default_rng(5).integers(0, 2, 200))
    assert ((v.accuracy_low <= 0.5) & (v.accuracy_high >= 0.5)).all()


def test_padding_is_not_read() -> None:
    ids, labels = sequences(120)
    lengths = torch.full((120,), WIDTH - 2)
    other = ids.clone()
    other[:, WIDTH - 2 :] = torch.randint(0, 4 * OTHERS, (120, 2), generator=torch.Generator().manual_seed(3))
    one, two = (read(given, labels, lengths, epochs=3)[1] for given in (ids, other))
    assert one.equals(two)


def test_what_is_pooled_is_a_slow_twins() -> None:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 5, 6, generator=draw), torch.randint(0, 3, (40,), generator=draw)
    real = torch.arange(5) < torch.randint(1, 6, (40, 1), generator=draw)
    probe = attention_probe.fit(x, real, y, 3, queries=2, strength=1e-3, epochs=3, seed=0)
    given, attends = probe.scores(x, real), probe.attention(x, real)
    for item in range(40):
        z = torch.stack([(x[item, t] - probe.mean) / probe.spread for t in range(5) if real[item, t]])
        pooled = []
        for query in range(2):
            weight = torch.stack([(one @ probe.queries[:, query] / 6**0.5).exp() for one in z])
            weight = weight / weight.sum()
            assert torch.allclose(attends[item, real[item], query], weight, atol=1e-6)
            pooled.append(sum((w * one for w, one in zip(weight, z, strict=True)), torch.zeros(6)))
        assert torch.allclose(given[item], torch.cat(pooled) @ probe.weight + probe.bias, atol=1e-5)
    assert (attends[~real] == 0).all()


def test_what_cannot_be_meant_is_refused_and_what_is_rare_is_named() -> None:
    ids, labels = sequences(60)
    with pytest.raises(BadValue, match="one an item"):
        read(ids, ids % 2)
    with pytest.raises(BadValue, match="at least two that occur"):
        read(ids, np.zeros(60, dtype=int))
    with pytest.raises(BadValue, match="max_cells"):
        read(ids, labels, max_cells=100)
    three = labels.copy()
    three[:3] = 2
    result, v = read(ids, three, epochs=1)
    assert int(v.classes) == 2
    assert "left out are classes of fewer than 5 sequences: '2' (3)" in result.summary()
