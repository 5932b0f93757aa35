"""Repeats: a row is its string over and over, and a shuffled one is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.errors import BadValue
from workbench.data.worlds.repeats import RepeatRows, RepeatsSpec


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 99), st.integers(0, 3), st.booleans())
def test_a_row_is_its_string_over_and_over(index: int, seed: int, shuffled: bool) -> None:
    rows = RepeatRows(RepeatsSpec.parse({"seed": seed, "shuffled": shuffled, "symbols": 30, "longest": 12, "length": 30}), "train", 100)
    row, period = rows.row(index), rows.period(index)
    assert len(row) == 31
    assert 6 <= period <= 12
    strings = [row[at : at + period] for at in range(0, 31 - period + 1, period)]
    assert all(len(set(string)) == period for string in strings)
    assert (row == (row[:period] * 31)[:31]) != shuffled


def test_batches_are_next_symbols_and_splits_differ() -> None:
    spec = RepeatsSpec.parse({})
    train, test = RepeatRows(spec, "train", 50), RepeatRows(spec, "test", 50)
    batch = train.batch([3, 3, 7])
    assert torch.equal(batch.tokens[0], batch.tokens[1])
    assert torch.equal(batch.tokens[:, 1:], batch.targets[:, :-1])
    assert not any(train.row(i) == test.row(i) for i in range(50))
    assert train.digest() != test.digest()
    with pytest.raises(BadValue, match="row index is 50, but it must be within 0 to 49"):
        train.row(50)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"shortest": 9, "longest": 8}, r"shortest \(9\) at most longest \(8\)"),
        ({"symbols": 20}, r"longest \(25\), and that at most symbols \(20\)"),
        ({"length": 49}, "length at least twice longest, 50"),
    ],
)
def test_what_cannot_repeat_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(BadValue, match=words):
        RepeatsSpec.parse(fields)
