"""Directions from contrast pairs: a planted exclusive or is found without labels where it differs most, and missed where a class does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from probes.contrast_direction import INSTRUMENT, ContrastDirectionResult
from probes.contrast_fit import axes, consistent
from workbench.core.errors import BadValue
from workbench.core.protocol import Inputs
from workbench.organisms.planted_direction import BOS, WORDS, Planted, planted_direction

BEFORE, AFTER = ("hook_embed", "blocks.0.hook_resid_post"), ("blocks.1.hook_resid_post", "blocks.2.hook_resid_post")


def pairs(planted: Planted, n: int, seed: int = 0) -> tuple[Tensor, Tensor, np.ndarray]:
    """Sentences of two words and the same with another second word of the other class; no sentence is in two pairs. And whether the first
    one's classes differ."""
    rng = np.random.default_rng(seed)
    up, down = (np.flatnonzero(planted.classes.numpy() == value) for value in (-1, 1))
    other = dict(zip([*up, *down], [*down, *up], strict=True))
    all_pairs = [(w, v) for w in range(len(planted.classes)) for v in up]
    chosen = [all_pairs[i] for i in rng.permutation(len(all_pairs))[:n]]
    sides = np.array([[[BOS, w + WORDS, x + WORDS] for x in (v, other[v])] for w, v in chosen])
    turned = rng.integers(0, 2, n)
    first, second = sides[np.arange(n), turned], sides[np.arange(n), 1 - turned]
    classes = planted.classes.numpy()
    return torch.from_numpy(first), torch.from_numpy(second), classes[first[:, 1] - WORDS] != classes[first[:, 2] - WORDS]


def asked(planted: Planted, labels: Any = None, n: int = 300, **spec: Any) -> ContrastDirectionResult:
    one, two, differ = pairs(planted, n)
    given = np.where(differ, "yes", "no") if labels is None else labels
    fields = {"sites": [*BEFORE, *AFTER], "resamples": 400, "steps": 100, "starts": 2, **spec}
    found = INSTRUMENT(planted.model, Inputs(one, reference=two, labels=given), INSTRUMENT.spec.parse(fields))
    assert isinstance(found, ContrastDirectionResult)
    return found


@pytest.fixture(scope="module")
def planted() -> Planted:
    return planted_direction()


@pytest.fixture(scope="module")
def found(planted: Planted) -> ContrastDirectionResult:
    return asked(planted)


def test_it_is_found_without_labels_where_it_is_written_and_not_before(planted: Planted, found: ContrastDirectionResult) -> None:
    for site in AFTER:
        at = found.values.sel(site=site)
        assert (at.accuracy.sel(way=["top", "labelled"]) > 0.95).all()
        for way in ("top", "labelled"):
            assert float(found.direction(site, way) @ planted.direction.double()) > 0.95
        assert float(at.random) < 0.8
    before = found.values.sel(site=list(BEFORE))
    assert ((before.accuracy_low <= 0.5) & (before.accuracy_high >= 0.5)).all()
    assert "the best of 4 sites by the top axis, right on held-out pairs: top 0.9" in found.summary() or "top 1.0" in found.summary()


def test_written_weakly_the_class_differs_most_and_truth_is_missed() -> None:
    planted = planted_direction(dose=0.5)
    found = asked(planted)
    at = found.values.sel(site=AFTER[0])
    axis = torch.zeros(24, dtype=torch.float64)
    axis[-2:] = torch.tensor([1.0, 1.0]) / 2**0.5  # a word's class and the sum of classes differ together
    assert abs(float(found.direction(AFTER[0]) @ axis)) > 0.9
    assert float(at.accuracy_low.sel(way="top")) <= 0.5 <= float(at.accuracy_high.sel(way="top"))
    assert float(at.accuracy_low.sel(way="labelled")) > 0.6


def test_labels_turn_an_unlabelled_axis_and_do_no_more(planted: Planted, found: ContrastDirectionResult) -> None:
    differ = pairs(planted, 300)[2]
    other = asked(planted, labels=np.where(differ, "no", "yes"))
    for way in ("top", "consistent"):
        assert torch.allclose(other.direction(AFTER[0], way), -found.direction(AFTER[0], way))


def test_both_unlabelled_ways_find_what_alone_is_opposite() -> None:
    draw = torch.Generator().manual_seed(0)
    way = torch.nn.functional.normalize(torch.randn(8, generator=draw, dtype=torch.float64), dim=0)
    true = torch.rand(400, generator=draw) < 0.5
    size = torch.where(true, 1.0, -1.0).double()[:, None] * 2
    a, b = (sign * size * way + 0.3 * torch.randn(400, 8, generator=draw, dtype=torch.float64) for sign in (1, -1))
    a, b = a - a.mean(0), b - b.mean(0)
    ways, share = axes(a, b, true, starts=3, steps=200, seed=0)
    assert (ways @ way > torch.tensor([0.99, 0.85, 0.99])).all()
    values = np.linalg.svd((a - b).numpy(), compute_uv=False) ** 2
    assert share == pytest.approx(values[0] / values.sum())
    top = np.linalg.svd((a - b).numpy())[2][0]
    assert abs(float(ways[0] @ torch.from_numpy(top))) == pytest.approx(1)
    assert torch.equal(consistent(a, b, starts=3, steps=5, seed=1), consistent(a, b, starts=3, steps=5, seed=1))


def test_pairs_that_do_not_differ_have_no_direction(planted: Planted) -> None:
    one, _, differ = pairs(planted, 60)
    spec = INSTRUMENT.spec.parse({"sites": [AFTER[0]], "resamples": 400, "steps": 2})
    found = INSTRUMENT(planted.model, Inputs(one, reference=one, labels=differ.astype(int)), spec).values
    assert (found.accuracy == 0.5).all()
    assert (found.direction == 0).all()


def test_what_cannot_be_meant_is_refused(planted: Planted) -> None:
    one, two, differ = pairs(planted, 40)
    spec = INSTRUMENT.spec.parse({"resamples": 400, "steps": 2})
    labels = differ.astype(int)

    def refused(match: str, fields: Any = spec, **changes: Any) -> None:
        with pytest.raises(BadValue, match=match):
            INSTRUMENT(planted.model, Inputs(**{"batch": one, "reference": two, "labels": labels, **changes}), fields)

    refused("40, one contrast for each item", reference=two[:39])
    refused("two: which side of the pair is true", labels=np.arange(40) % 3)
    refused("one label a pair", labels=torch.arange(120).reshape(40, 3) % 2)
    refused("a class of 'labels': 0, 1", INSTRUMENT.spec.parse({"resamples": 400, "concept": "yes"}))
    refused("different pairs or groups of pairs", groups=[0] * 40)
    refused("of one class alone", labels=np.array([1] * 39 + [0]))
    refused("max_cells = 100", INSTRUMENT.spec.parse({"resamples": 400, "max_cells": 100}))
