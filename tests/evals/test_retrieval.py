"""Retrieval: hits by hand and by sorting, chance that a random ranking meets, and towers that know or know nothing."""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from evals.task import Measure, TaskData
from evals.tasks.retrieval import TASK, RetrievalSpec, chance_of_pictures, make, score, to_captions, to_pictures
from workbench.core.batch import PairBatch
from workbench.core.errors import BadValue
from workbench.data.worlds.placed_shapes import CAPTIONS, WORDS, placed_caption, placed_rows
from workbench.data.worlds.shapes import Picture, Shapes, ShapesSpec
from workbench.families import FAMILIES


def picture(centre: tuple[float, float], radius: float) -> Picture:
    return Picture("red", "circle", np.zeros((3, 20, 20), np.float32), np.zeros((20, 20), bool), centre, radius)


def test_captions_say_size_and_place() -> None:
    spec = ShapesSpec.parse({"size": 20, "least": 0.15, "most": 0.3})
    assert placed_caption(picture((3.0, 14.0), 3.0), spec) == "a small red circle top right"
    assert placed_caption(picture((10.0, 9.9), 4.5), spec) == "a large red circle bottom left"
    assert len(set(CAPTIONS)) == len(CAPTIONS) == 128
    world = Shapes(ShapesSpec.parse({"rows": 300, "held_out": 40, "least": 0.15, "most": 0.3}))
    rows = placed_rows(world)
    assert set(rows.captions) <= set(CAPTIONS)
    assert [WORDS.read(ids[1:-1].tolist()) for ids in rows.batch([0, 7]).tokens] == [rows.captions[i].split() for i in (0, 7)]
    for word in ("small", "top", "left"):
        assert 0.35 < sum(word in caption for caption in rows.captions) / 300 < 0.65
    pairs = {tuple(caption.split()[2:4]) for caption in rows.captions}
    assert pairs == set(world.seen)
    assert {tuple(caption.split()[2:4]) for caption in placed_rows(world, "unseen").captions} == set(world.unseen)


# --- hits -----------------------------------------------------------------------------------------------------


def test_hits_by_hand() -> None:
    scores = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, 5.0], [2.0, 0.0, 1.0]])
    owners = np.array([0, 1, 0])
    assert to_captions(scores, owners) == [True, False, True]
    assert to_pictures(scores, owners, [0, 1]) == [True, True]
    assert to_pictures(scores, np.array([1, 1, 0]), [0, 1]) == [False, True]
    assert chance_of_pictures(owners, [0, 1]) == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_a_tie_is_no_hit_unless_it_does_not_matter() -> None:
    scores = np.zeros((3, 2))
    assert to_captions(scores, np.array([0, 1, 1])) == [False] * 3
    assert to_pictures(scores, np.array([0, 1, 1]), [0, 1]) == [False, False]
    assert to_pictures(scores, np.array([1, 1, 1]), [1]) == [True]


@settings(deadline=None)
@given(arrays.arrays(np.float64, (5, 3), elements=st.integers(-2, 2)), arrays.arrays(np.int64, 5, elements=st.integers(0, 2)))
def test_hits_are_those_of_every_ranking(scores: np.ndarray, owners: np.ndarray) -> None:
    """A hit in each way of breaking ties: best first, ties in any order."""
    for query in range(3):
        top = [at for at in range(5) if scores[at, query] == max(scores[:, query])]
        assert to_pictures(scores, owners, [query]) == [all(owners[at] == query for at in top)]
    slow = [[c for c in range(3) if scores[at, c] == max(scores[at])] == [owners[at]] for at in range(5)]
    assert to_captions(scores, owners) == slow


@pytest.mark.parametrize(
    ("scores", "owners", "says"),
    [
        (np.zeros((2, 3)), np.array([0]), "a row for each of 1 pictures"),
        (np.array([[np.nan, 0.0]]), np.array([0]), "finite"),
        (np.zeros((1, 3)), np.array([3]), "within 0 to 2"),
        (np.zeros((1, 3)), np.array([-1]), "within 0 to 2"),
    ],
)
def test_scores_that_do_not_fit_are_refused(scores: np.ndarray, owners: np.ndarray, says: str) -> None:
    for hits in (lambda: to_captions(scores, owners), lambda: to_pictures(scores, owners, [0])):
        with pytest.raises(BadValue, match=says):
            hits()


# --- the task -------------------------------------------------------------------------------------------------


@lru_cache
def drawn() -> TaskData:
    return make(RetrievalSpec.parse({"rows": 30, "held_out": 300, "size": 12}), 1)


class Towers:
    """Scores by the caption of each picture where ``knows``, else at random."""

    def __init__(self, data: TaskData, *, knows: bool) -> None:
        self.knows = knows
        self.captions = {}
        for rows in (data.held_out.test, data.held_out.unseen):
            pixels = rows.batch(range(len(rows))).pixels
            self.captions |= {pixels[at].numpy().tobytes(): caption for at, caption in enumerate(rows.captions)}

    def run(self, batch: PairBatch) -> Any:
        if not self.knows:
            return SimpleNamespace(logits=torch.rand(len(batch.pixels), len(batch.tokens), generator=torch.Generator().manual_seed(0)))
        owners = [CAPTIONS.index(self.captions[one.numpy().tobytes()]) for one in batch.pixels]
        return SimpleNamespace(logits=torch.eye(len(CAPTIONS))[owners])


def by_name(measures: Any) -> dict[str, Measure]:
    return {one.name: one for one in measures}


def test_towers_that_know_find_all_and_towers_that_do_not_find_as_many_as_chance() -> None:
    data = drawn()
    knows: Any = Towers(data, knows=True)
    blind: Any = Towers(data, knows=False)
    found, guessed = by_name(score(knows, data)), by_name(score(blind, data))
    for name in ("", ", unseen pairs"):
        for way in ("caption to picture", "picture to caption"):
            assert found[way + name].value == 1.0
            chance = guessed[f"chance, {way}{name}"]
            assert guessed[way + name].low <= chance.value <= guessed[way + name].high
            assert 0 < chance.value < 0.1
    assert found["picture to caption"].count == 300
    assert set(found) >= set(TASK.must)
    plain = make(RetrievalSpec.parse({"rows": 8, "held_out": 8, "size": 12, "unseen": 0}), 1)
    towers: dict[str, Any] = {
        "patch": 6, "n_layers_text": 1, "d_model_text": 8, "n_heads_text": 2, "n_layers_image": 1, "d_model_image": 8, "n_heads_image": 2,
    }  # fmt: skip
    family = FAMILIES.load("clip")
    model = family(family.config_type.parse({**towers, **plain.shape}), None, seed=0).eval()
    assert set(by_name(score(model, plain))) == {way for way in found if "unseen" not in way}
