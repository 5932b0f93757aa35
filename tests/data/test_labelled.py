"""Labelled rows: a batch is its rows, for each of the three kinds of target, and what does not fit is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.batch import IGNORE
from workbench.core.errors import BadValue
from workbench.data.labelled import LabelledRows
from workbench.families.bert import BERT, BERTConfig

ROWS = [[1, 2, 3], [4, 5], [6]]
TARGETS: dict[str, list[Any]] = {"token": [[0, IGNORE, 1], [1, 1], [0]], "sequence": [2, 0, 1], "span": [(0, 2), (1, 1), (0, 0)]}


@settings(deadline=None)
@given(st.sampled_from(sorted(TARGETS)), st.lists(st.integers(0, 2), min_size=1, max_size=4), st.booleans())
def test_a_batch_is_its_rows(kind: Any, numbers: list[int], typed: bool) -> None:
    types = [[0, 1, 1], [0, 1], [1]] if typed else None
    batch = LabelledRows(kind, ROWS, TARGETS[kind], pad=9, types=types).batch(numbers)
    assert batch.targets is not None
    width = max(len(ROWS[i]) for i in numbers)
    for at, i in enumerate(numbers):
        fill = width - len(ROWS[i])
        assert batch.tokens[at].tolist() == [*ROWS[i], *[9] * fill]
        wanted = TARGETS[kind][i]
        assert batch.targets[at].tolist() == (
            [*wanted, *[IGNORE] * fill] if kind == "token" else list(wanted) if kind == "span" else wanted
        )
        assert (batch.types is None) != typed
        if batch.types is not None and types is not None:
            assert batch.types[at].tolist() == [*types[i], *[0] * fill]
        real = width if batch.mask is None else int(batch.mask[at].sum())
        assert real == len(ROWS[i])


@pytest.mark.parametrize("kind", sorted(TARGETS))
def test_the_head_of_that_name_takes_them(kind: Any) -> None:
    rows = LabelledRows(kind, ROWS, TARGETS[kind], pad=9)
    classes = {"token": ["a", "b"], "sequence": ["a", "b", "c"], "span": []}[kind]
    model = BERT(
        BERTConfig.parse(
            {"n_layers": 1, "d_model": 8, "n_heads": 2, "d_vocab": 10, "n_ctx": rows.longest, "head": kind, "classes": classes}
        )
    )
    loss, count = model.loss(rows.batch([0, 1, 2]))
    assert torch.isfinite(loss)
    assert count == (5 if kind == "token" else 3)


@pytest.mark.parametrize(
    ("kind", "rows", "targets", "types", "says"),
    [
        ("token", [], [], None, "the rows is 0, but it must be at least one"),
        ("token", [[]], [[]], None, "each of at least one token"),
        ("token", [[1, 2]], [[1]], None, "those of the head 'token'"),
        ("token", [[1, 2]], [], None, "for each of 1 rows"),
        ("sequence", [[1, 2]], [[1, 2]], None, "those of the head 'sequence'"),
        ("span", [[1, 2]], [1], None, "those of the head 'span'"),
        ("span", [[1, 2]], [(0, 2)], None, "within the row"),
        ("span", [[1, 2]], [(-1, 0)], None, "within the row"),
        ("span", [[1, 2]], [(1, 0)], None, "the end not before the begin"),
        ("sequence", [[1, 2]], [1], [[0]], "one a token"),
        ("sequence", [[1, 2]], [1], [], "one a token"),
    ],
)
def test_what_does_not_fit_is_refused(kind: Any, rows: Any, targets: Any, types: Any, says: str) -> None:
    with pytest.raises(BadValue, match=says):
        LabelledRows(kind, rows, targets, pad=0, types=types)


def test_indices_and_digests() -> None:
    rows = LabelledRows("sequence", ROWS, TARGETS["sequence"], pad=9)
    for bad in ([], [3], [-1]):
        with pytest.raises(BadValue, match="within 0 to 2"):
            rows.batch(bad)
    assert rows.digest() == LabelledRows("sequence", ROWS, TARGETS["sequence"], pad=9).digest()
    others = [
        LabelledRows("sequence", ROWS, [2, 0, 0], pad=9),
        LabelledRows("sequence", [[1, 2], [3, 4, 5], [6]], TARGETS["sequence"], pad=9),
        LabelledRows("sequence", ROWS, TARGETS["sequence"], pad=8),
        LabelledRows("sequence", ROWS, TARGETS["sequence"], pad=9, types=[[0, 0, 0], [0, 0], [0]]),
        LabelledRows("span", ROWS, TARGETS["span"], pad=9),
    ]
    assert len({rows.digest(), *(one.digest() for one in others)}) == 6
