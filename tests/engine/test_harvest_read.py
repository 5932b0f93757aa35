"""Reading a harvest back: each row once an epoch, whatever the sizes; the same for the same seed; mixed; from where a training stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.models import lettered
from workbench.core.errors import BadValue, EmptySelection, UnknownName
from workbench.engine import harvest_read
from workbench.engine.corpus import BatchCorpus, TokenCorpus
from workbench.engine.harvest import HarvestSpec, harvest
from workbench.engine.harvest_read import Harvest
from workbench.families import FAMILIES

SITE = "blocks.0.hook_resid_post"
PAIR = ("blocks.0.hook_mlp_in", "blocks.0.hook_mlp_out")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Harvest:
    """61 items of 1 to 16 tokens in shards of 7."""
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 17, (61,), generator=draw).tolist()
    corpus = [torch.randint(0, 23, (length,), generator=draw).tolist() for length in lengths]
    model = lettered()
    folder = tmp_path_factory.mktemp("harvest") / "h"
    spec = HarvestSpec(sites=(SITE, *PAIR, "blocks.0.attn.hook_z"), items_a_shard=7)
    return Harvest.open(harvest(model, TokenCorpus(model, corpus), folder, spec))


def settings_of(fields: dict[str, int]) -> dict[str, Any]:
    return {"size": 4, "seed": 0, **fields}


def places(batches: list[harvest_read.Rows]) -> list[tuple[int, int]]:
    return [(item, pos) for batch in batches for item, pos in zip(batch.item.tolist(), batch.pos.tolist(), strict=True)]


@settings(deadline=None, max_examples=15)  # time is measured elsewhere, and machines are shared
@given(st.integers(1, 300), st.integers(1, 1500), st.integers(0, 5), st.integers(0, 3), st.integers(5, 90), st.booleans())
def test_each_row_comes_once_an_epoch(rows: Harvest, size: int, buffer: int, seed: int, epoch: int, block: int, last: bool) -> None:
    whole, before = rows.read(SITE), harvest_read.BLOCK
    harvest_read.BLOCK = block
    try:
        batches = list(rows.batches(SITE, size, seed=seed, epoch=epoch, buffer=buffer, last=last))
    finally:
        harvest_read.BLOCK = before
    total = rows.rows(SITE)
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert sum(map(len, batches)) == (total if last else total // size * size)
    found = places(batches)
    assert len(set(found)) == len(found)
    order = {place: number for number, place in enumerate(places([whole]))}
    assert set(found) <= set(order)
    if batches:
        at = torch.tensor([order[place] for place in found])
        assert torch.equal(torch.cat([batch[SITE] for batch in batches]), whole[SITE][at])
        assert torch.equal(torch.cat([batch.id for batch in batches]), whole.id[at])


def test_the_order_is_the_seeds_and_the_epochs(rows: Harvest) -> None:
    draw = [places(list(rows.batches(SITE, 50, seed=seed, epoch=epoch))) for seed, epoch in ((0, 0), (0, 0), (1, 0), (0, 1))]
    assert draw[0] == draw[1]
    assert draw[0] != draw[2]
    assert draw[0] != draw[3]
    assert draw[2] != draw[3]


def test_rows_are_mixed(rows: Harvest) -> None:
    """In a whole buffer, the item of a batch's rows says nothing of the batch: means scatter as random draws do."""
    batches = list(rows.batches(SITE, 32, seed=3, last=False))
    items = torch.cat([batch.item for batch in batches]).double()
    means = torch.stack([batch.item.double().mean() for batch in batches])
    expected = items.std() / 32**0.5
    assert 0.6 < float(means.std() / expected) < 1.5
    unmixed = rows.read(SITE).item.double()[: 32 * len(batches)].view(-1, 32).mean(1).std()
    assert float(unmixed / expected) > 4, "in their own order they would not be"


@pytest.mark.parametrize("start", [0, 1, 5, 13, 500])
def test_a_later_start_gives_the_later_batches(rows: Harvest, start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harvest_read, "BLOCK", 16)
    whole = list(rows.batches(SITE, 30, seed=0, buffer=100))
    later = list(rows.batches(SITE, 30, seed=0, buffer=100, start=start))
    assert places(later) == places(whole[start:])
    for one, other in zip(later, whole[start:], strict=True):
        assert torch.equal(one[SITE], other[SITE])


def test_what_comes_before_a_later_start_is_not_read(rows: Harvest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harvest_read, "BLOCK", 16)
    read: list[int] = []
    block = Harvest._block
    monkeypatch.setattr(
        Harvest, "_block", lambda self, names, shard, low, high: (read.append(high - low), block(self, names, shard, low, high))[1]
    )
    list(rows.batches(SITE, 30, seed=0, buffer=100, start=13))
    assert sum(read) <= rows.rows(SITE) - 13 * 30 + 100


def test_sites_of_one_stack_come_together(rows: Harvest) -> None:
    """A transcoder reads one and predicts the other: the rows are the same tokens'."""
    whole = rows.read(PAIR)
    order = {place: number for number, place in enumerate(places([whole]))}
    for batch in rows.batches("blocks.0.hook_mlp_*", 64, seed=0):
        at = torch.tensor([order[place] for place in places([batch])])
        for name in PAIR:
            assert torch.equal(batch[name], whole[name][at])
    assert rows.read("blocks.0.attn.hook_z")["blocks.0.attn.hook_z"].shape[1:] == rows.sites["blocks.0.attn.hook_z"].shape == (4, 4)


def test_ranges_join_over_shards(rows: Harvest) -> None:
    whole = rows.read(SITE)
    total = rows.rows(SITE)
    for start, stop in ((0, 1), (5, 300), (total - 1, total), (100, total)):
        part = rows.read(SITE, start, stop)
        assert torch.equal(part[SITE], whole[SITE][start:stop])
        assert torch.equal(part.item, whole.item[start:stop])


def test_what_cannot_be_meant(rows: Harvest, tmp_path: Path) -> None:
    total = rows.rows(SITE)
    for start, stop in ((0, total + 1), (5, 5), (-1, 3)):
        with pytest.raises(BadValue, match=f"a range within 0 to {total}"):
            rows.read(SITE, start, stop)
    with pytest.raises(EmptySelection, match="matches no site"):
        rows.read("blocks.7.hook_resid_post")
    with pytest.raises(UnknownName, match="in the harvest"):
        rows.rows("hook_embed")
    with pytest.raises(UnknownName, match="in these rows"):
        rows.read(SITE, 0, 3)["hook_embed"]
    for words, fields in (
        ("size is 0", {"size": 0}),
        ("buffer is 0", {"buffer": 0}),
        ("start is -1", {"start": -1}),
        ("seed is -1", {"seed": -1}),
    ):
        with pytest.raises(BadValue, match=words):
            rows.batches(SITE, **settings_of(fields))
    model, batch = FAMILIES.load("seq2seq").tiny(seed=0)

    class Two:
        def __len__(self) -> int:
            return 2

        def batch(self, indices: Sequence[int]) -> Any:
            return batch.rows(list(indices))

        def digest(self) -> str:
            return "0" * 64

    both = HarvestSpec(sites=("*coder.blocks.0.hook_resid_post",))
    found = Harvest.open(harvest(model.eval(), BatchCorpus(model, Two()), tmp_path / "h", both))
    with pytest.raises(BadValue, match=r"of the same rows, and these are of \['decoder.pos', 'encoder.pos'\]"):
        found.read("*")
