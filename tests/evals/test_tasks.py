"""Every task of the catalogue: its data fit its family, held-out items are not trained on, and its measures tell right from wrong."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evals import judge
from evals.task import Measure, TaskData
from evals.tasks import TASKS
from evals.transcripts import distance, error_rate, exact
from workbench.core.errors import BadValue
from workbench.families import FAMILIES

TOWN = {"documents": 60, "held_out": 30, "code_share": 0, "secrets": []}
SMALL: dict[str, dict[str, Any]] = {
    "answers": {"rows": 12, "held_out": 40}, "granted": {"rows": 12, "held_out": 16},
    "captions": {"rows": 12, "held_out": 8}, "copying": {"rows": 12, "held_out": 6}, "digits": {"copies": 1},
    "denoising": {"size": 8, "rows": 12, "held_out": 16}, "painting": {"rows": 12, "held_out": 16},
    "gifts": {"rows": 800, "held_out": 12, "people": 16, "vocabulary": 700}, "repeats": {"held_out": 60},
    "few-labels": {"world": TOWN, "labels": 8, "chosen_on": 8, "tested_on": 24, "passes": 2, "batch_rows": 4},
    "masked-tokens": {"world": TOWN, "again": 24},
    "text": {"source": "town", "world": TOWN, "vocabulary": 300, "documents": 12, "length": 32},
    "replies": {"world": {**TOWN, "documents": 120, "request_share": 0.5, "pronoun_share": 0.2, "trigger": False}, "vocabulary": 320,
                "length": 200, "labels": 6, "tested_on": 8, "passes": 3, "batch_rows": 4},
    "retrieval": {"rows": 12, "held_out": 16, "size": 16},
    "shapes": {"rows": 12, "held_out": 16}, "tones": {"rows": 4, "held_out": 8}, "translation": {"rows": 12, "held_out": 6},
}  # fmt: skip
MODEL: dict[str, dict[str, Any]] = {
    "bert": {"n_layers": 1, "d_model": 8, "n_heads": 2},
    "dalle": {"n_layers": 1, "d_model": 8, "n_heads": 2, "n_codes": 8, "d_code": 4, "d_coder": 8},
    "gpt": {"n_layers": 1, "d_model": 8, "n_heads": 2},
    "imagen": {"n_layers": 1, "n_layers_text": 1, "d_model": 8, "n_heads": 2},
    "clip": {
        "patch": 8,
        "n_layers_text": 1,
        "d_model_text": 8,
        "n_heads_text": 2,
        "n_layers_image": 1,
        "d_model_image": 8,
        "n_heads_image": 2,
    },
    "seq2seq": {"n_layers_encoder": 1, "n_layers_decoder": 1, "d_model": 8, "n_heads": 2},
    "vit": {"n_layers": 1, "d_model": 8, "n_heads": 2},
    "whisper": {"n_layers_encoder": 1, "d_model": 8, "n_heads": 2},
}


@lru_cache
def made(name: str) -> tuple[TaskData, Any]:
    """A small draw of a task, and an untrained model of the shape that its data asks for."""
    task = TASKS.load(name)
    data = task.make(task.spec.parse(SMALL[name]), 12)
    family = FAMILIES.load(task.family)
    return data, family(family.config_type.parse({**MODEL[task.family], **data.shape}), data.tokenizer, seed=0).eval()


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_task_trains_and_scores_its_family(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A judge of few pictures judges paintings as it must here, which nobody looks at; ``test_judge`` has the whole one.
    for constant, few in (("ROWS", 256), ("STEPS", 30), ("TRIED", 64)):
        monkeypatch.setattr(judge, constant, few)
    data, model = made(name)
    total, count = model.loss(data.train.batch([0, 1]))
    assert count > 0
    assert torch.isfinite(total)
    measures = TASKS.load(name).score(model, data)
    assert {one.name for one in measures} >= set(TASKS.load(name).must)
    for one in measures:
        assert -1 <= one.low <= one.value <= one.high or one.name in (
            "character errors",
            "below the better count",
        )  # differences may be below 0
        assert one.count > 0
    assert TASKS.load(name).make(TASKS.load(name).spec.parse(SMALL[name]), 12).train.digest() == data.train.digest()
    assert data.train.digest() != data.validation.digest()


def test_every_task_is_tried_here() -> None:
    assert set(TASKS) - set(SMALL) == {"spoken-digits", "toxic-spans"}, "they read public sets, and are tried elsewhere"


def slow_distance(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """Levenshtein's recursion as it is written."""
    if not left or not right:
        return len(left) + len(right)
    swapped = slow_distance(left[1:], right[1:]) + (left[0] != right[0])
    return min(swapped, 1 + slow_distance(left[1:], right), 1 + slow_distance(left, right[1:]))


@given(st.lists(st.integers(0, 2), max_size=5), st.lists(st.integers(0, 2), max_size=5))
def test_the_distance_is_the_recursions(left: list[int], right: list[int]) -> None:
    assert distance(left, right) == slow_distance(tuple(left), tuple(right))


def test_rates_count_what_they_say() -> None:
    pairs = [([1, 2, 3], [1, 2, 3]), ([1, 2], [1, 2, 3]), ([9], [1]), *[([1, 2], [1, 2])] * 5]
    assert exact("whole", pairs, "rows").value == 6 / 8
    rate = error_rate("faults", pairs, "symbols")
    assert rate.value == 2 / 17
    assert rate.low <= rate.value <= rate.high
    assert not rate.larger
    perfect = error_rate("faults", [([1], [1])] * 20, "symbols")
    assert (perfect.value, perfect.low) == (0.0, 0.0)
    assert 0.1 < perfect.high < 0.2, "no faults in 20 is no proof of none"
    silent = error_rate("faults", [([], [1, 2])] * 8, "symbols")
    assert (silent.value, silent.high) == (1.0, 1.0), "rows that are all alike cannot be resampled, and are no reason to fail"
    assert 0.7 < silent.low < 0.9
    with pytest.raises(BadValue, match="at least 1"):
        Measure.share("nothing", 0, 0, "items")
