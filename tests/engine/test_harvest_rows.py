"""The rows of a shard in memory: what is filled pass by pass comes out in any order, to the byte, and memory is used again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from workbench.engine import harvest_rows
from workbench.engine.harvest_files import put_tensors
from workbench.engine.harvest_rows import Ordered, Pile

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64)


def content(rows: Tensor) -> bytes:
    return rows.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def filled(pile: Pile, parts: list[Tensor]) -> Tensor:
    """The slow twin of what lies on the pile."""
    for part in parts:
        pile.room(len(part), tuple(part.shape[1:]), part.dtype).copy_(part)
    return torch.cat(parts)


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=6), shape=st.sampled_from([(), (1,), (3,), (2, 5)]),
    dtype=st.sampled_from(DTYPES), expected=st.integers(0, 40), seed=st.integers(0, 99), piece=st.sampled_from([1, 64, 1 << 19]),
)  # fmt: skip
def test_rows_come_out_in_any_order_to_the_byte(
    counts: list[int], shape: tuple[int, ...], dtype: torch.dtype, expected: int, seed: int, piece: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    pile = Pile(expected)
    for _ in range(2):  # the second shard lies where the first was
        pile.clear(expected)
        whole = filled(pile, [torch.randint(-99, 99, (count, *shape), generator=draw).to(dtype) for count in counts])
        assert torch.equal(pile.rows(), whole)
        order = torch.randperm(len(whole), generator=draw)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(harvest_rows, "PIECE", piece)
            assert b"".join(bytes(one) for one in Ordered(pile.rows(), order).pieces()) == content(whole[order])
            assert b"".join(bytes(one) for one in Ordered(pile.rows(), None).pieces()) == content(whole)


def test_memory_is_taken_once_where_the_number_of_rows_is_known() -> None:
    pile = Pile(100)
    filled(pile, [torch.ones(60, 4), torch.ones(40, 4)])
    first = pile.rows().data_ptr()
    pile.clear(90)
    whole = filled(pile, [torch.rand(30, 4), torch.rand(60, 4)])
    assert pile.rows().data_ptr() == first
    assert torch.equal(pile.rows(), whole)
    pile.clear(200)
    whole = filled(pile, [torch.rand(30, 4), torch.rand(130, 4)])
    assert torch.equal(pile.rows(), whole), "what was there before it grew is still there"


def test_what_is_hashed_is_what_is_written(tmp_path: Path) -> None:
    rows = torch.rand(700, 300)
    order = torch.randperm(700, generator=torch.Generator().manual_seed(0))
    size, digest = put_tensors(tmp_path / "a", {"x": Ordered(rows, order), "none": Ordered(rows[:0], None), "n": Ordered(order, order)})
    written = (tmp_path / "a").read_bytes()
    assert (len(written), hashlib.sha256(written).hexdigest()) == (size, digest)
    assert written.endswith(content(rows[order]) + content(order[order]))


def test_a_disk_that_is_full_leaves_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("workbench.core.whole_file.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        put_tensors(tmp_path / "a", {"x": Ordered(torch.rand(9, 3), None)})
    assert list(tmp_path.iterdir()) == []
