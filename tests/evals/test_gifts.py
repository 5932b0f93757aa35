"""Gifts as a task: prompts with twins of the same length, shares that tell a right model from a wrong one."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from evals.task import TaskData
from evals.tasks.gifts import TASK, GiftsTaskSpec, asked, make, score
from workbench.core.errors import BadValue
from workbench.data.text import BPETokenizer


@lru_cache
def drawn() -> TaskData:
    return make(GiftsTaskSpec.parse({"rows": 1500, "held_out": 40, "people": 20}), 1)


class Knows:
    """A model that answers ``ids`` at the last position of each prompt."""

    def __init__(self, ids: Any, lengths: Any, size: int) -> None:
        self.ids, self.lengths, self.size = ids, lengths, size

    def run(self, batch: Any, **_: Any) -> Any:
        logits = torch.zeros(*batch.shape, self.size)
        logits[torch.arange(len(batch)), self.lengths - 1, self.ids] = 1.0
        return SimpleNamespace(logits=logits)


def knows(ids: Any, lengths: Any, size: int) -> Any:
    return Knows(ids, lengths, size)


def test_a_twin_differs_in_the_giver_alone() -> None:
    held = drawn().held_out
    inputs = asked(held.documents, held.tokenizer)
    differs = inputs.batch != inputs.reference
    assert (differs.sum(1) == 1).all()
    assert inputs.foils is not None
    assert inputs.targets is not None
    rows = torch.arange(len(differs))
    where = differs.int().argmax(1)
    assert torch.equal(inputs.batch[rows, where], inputs.foils)
    assert torch.equal(inputs.reference[rows, where], inputs.targets)
    assert inputs.lengths is not None
    for row, document in enumerate(held.documents):
        assert held.tokenizer.decode(inputs.batch[row, : inputs.lengths[row]].tolist()) == document.prompt
        assert inputs.targets is not None
        assert held.tokenizer.decode([int(inputs.targets[row])]) == f" {document.other}"


def test_the_shares_are_of_the_recipient() -> None:
    data = drawn()
    held = data.held_out
    inputs = asked(held.documents, held.tokenizer)
    size = held.tokenizer.vocab_size
    right = score(knows(inputs.targets, inputs.lengths, size), data)
    wrong = score(knows(inputs.foils, inputs.lengths, size), data)
    assert [one.value for one in right] == [1.0, 1.0]
    assert [one.value for one in wrong] == [0.0, 0.0]
    assert {one.name for one in right} > set(TASK.must)
    assert right[0].count == 40


def test_a_name_of_several_tokens_cannot_be_asked_about() -> None:
    held = drawn().held_out
    letters = BPETokenizer.train(["a"], 259)
    with pytest.raises(BadValue, match=r"the tokens of the name '\w+' is \d+, but it must be one"):
        asked(held.documents[:3], letters)
    assert replace(held, tokenizer=letters).tokenizer is letters
