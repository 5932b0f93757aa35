"""Expectations: where one more seed should lie, kept as a file, and refused where the recipe is another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from evals.task import Measure
from workbench.core.errors import BadValue, UsageError
from workbench.lab import expect
from workbench.lab.expect import Expectation, Expected, digest_without_seed, known, measure, page, verify
from workbench.lab.recipe import TaskRecipe, read


def shares(*values: float, count: int = 200) -> list[Measure]:
    return [Measure("accuracy", value, value - 0.01, value + 0.01, count, "items") for value in values]


def test_the_prediction_interval_is_students_for_a_new_draw() -> None:
    values = (0.5, 0.7, 0.4, 0.6, 0.3)
    found = Expected.of(shares(*values, count=100_000))
    half = stats.t.ppf(0.975, 4) * np.std(values, ddof=1) * np.sqrt(1 + 1 / 5)
    assert np.isclose(found.low, max(0.0, 0.5 - half))
    assert np.isclose(found.high, min(1.0, 0.5 + half))


def test_seeds_that_agree_still_leave_room_for_the_next_item() -> None:
    found = Expected.of(shares(1.0, 1.0, 1.0, 1.0, 1.0))
    assert found.high == 1.0
    assert 0.97 < found.low < 0.99


def test_a_new_seed_lies_inside_as_often_as_said() -> None:
    draw, inside, rounds = np.random.default_rng(0), 0, 2000
    for _ in range(rounds):
        values = draw.normal(5.0, 1.0, 6)  # beyond 0 to 1: no share, so Student's interval alone
        found = Expected.of(shares(*values[:5]))
        inside += found.low <= values[5] <= found.high
    assert 0.935 < inside / rounds < 0.965


def test_an_expectation_comes_back_from_its_file() -> None:
    whole = Expectation("whisper-tones", "d", (1, 2), (3.0, 4.5), (Expected.of(shares(0.9, 0.8)),), {"packages": {"torch": "2"}})
    assert Expectation.from_json(whole.to_json()) == whole
    assert Expectation.from_json(whole.to_json()).to_json() == whole.to_json()


def test_every_shipped_expectation_is_of_its_recipe_as_it_is_now() -> None:
    assert known()
    for name in known():
        recipe, found = read(name), expect.expected(name)
        assert isinstance(recipe, TaskRecipe)
        assert found is not None
        assert found.digest == digest_without_seed(recipe), f"measure {name} again"
        assert len(found.seeds) >= expect.LEAST_SEEDS
        assert f"# {name}" in page(found)
        must = recipe.whole().must
        for one in found.measures:
            if one.name in must and one.name != "character errors":
                assert one.mean >= must[one.name]


def test_the_seed_alone_makes_no_other_recipe() -> None:
    plain, other = read("whisper-tones"), read("whisper-tones", {"train": {"seed": 9}})
    longer = read("whisper-tones", {"train": {"steps": 7}})
    assert isinstance(plain, TaskRecipe)
    assert isinstance(other, TaskRecipe)
    assert isinstance(longer, TaskRecipe)
    assert digest_without_seed(plain) == digest_without_seed(other) != digest_without_seed(longer)


def test_what_cannot_be_verified_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="trains for no task"):
        verify("tinyshakespeare-strong")
    with monkeypatch.context() as none_yet:
        none_yet.setattr(expect, "known", list)
        with pytest.raises(UsageError, match="has no expectation"):
            verify("seq2seq-copying")
    with pytest.raises(BadValue, match="at least 5"):
        measure("whisper-tones", [1, 2])
    changed: Any = read("whisper-tones", {"train": {"steps": 7}})
    monkeypatch.setattr(expect, "read", lambda name: changed)
    with pytest.raises(UsageError, match="was changed since its expectation"):
        verify("whisper-tones")
