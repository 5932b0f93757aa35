"""The harvest: what is stored equals a run of each item alone, in every family; resumed it is the same to the byte; bad input is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tests.engine.models import lettered, words, wordy
from workbench.core.errors import BadValue, Changed, CorruptFile, EmptySelection, MissingFile
from workbench.core.tolerance import agree
from workbench.engine.corpus import BatchCorpus, TextCorpus, TokenCorpus, positions_of
from workbench.engine.harvest import HarvestSpec, harvest
from workbench.engine.harvest_files import rows_of
from workbench.engine.harvest_read import Harvest
from workbench.engine.harvest_rows import Pile
from workbench.families import FAMILIES

RESID = "blocks.*.hook_resid_post"


def ids(n: int = 23, seed: int = 0) -> list[list[int]]:
    """Rows of 1 to 16 tokens."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 17, (n,), generator=draw).tolist()
    return [torch.randint(0, 23, (length,), generator=draw).tolist() for length in lengths]


def spec(**fields: Any) -> HarvestSpec:
    return HarvestSpec.parse({"items_a_shard": 5, "tokens_a_pass": 40, **fields})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# --- what is stored ---------------------------------------------------------------------------------------------


def test_rows_are_those_of_each_item_run_alone(tmp_path: Path) -> None:
    """The slow twin: one pass an item, no padding, in order."""
    model, rows = lettered().double(), ids()
    sites = (RESID, "blocks.1.attn.hook_z", "blocks.0.mlp.hook_post", "hook_embed")
    found = Harvest.open(harvest(model, TokenCorpus(model, rows), tmp_path / "h", spec(sites=sites)))
    names = [site.name for site in model.sites().select(sites)]
    assert list(found.sites) == names
    kept = found.read(names)
    traces = [model.run(torch.tensor([row]), capture=sites, logits=None) for row in rows]
    for name in names:
        alone = torch.cat([trace[name][0] for trace in traces])
        assert kept[name].dtype == alone.dtype == torch.float64
        torch.testing.assert_close(kept[name], alone, rtol=1e-12, atol=1e-12)
    assert kept.item.tolist() == [number for number, row in enumerate(rows) for _ in row]
    assert kept.pos.tolist() == [pos for row in rows for pos in range(len(row))]
    assert kept.id.tolist() == [token for row in rows for token in row]
    assert found.rows("hook_embed") == sum(map(len, rows))


@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_family(family: str, tmp_path: Path) -> None:
    """Every site that has rows, in any shard size, equals one pass over the whole batch at its real positions."""
    model, batch = FAMILIES.load(family).tiny(seed=0)
    model.eval()
    sites = [site for site in model.sites().values() if _has_rows(site)]
    count = len(next(value for value in vars(batch).values() if value is not None))
    corpus = BatchCorpus(model, _Rows(batch, count))
    found = Harvest.open(harvest(model, corpus, tmp_path / "h", spec(sites=[site.name for site in sites], items_a_shard=2)))
    trace, (real, tokens) = model.run(batch, capture=sites, logits=None), positions_of(model, batch)
    for site in sites:
        whole, rows = trace[site], rows_of(site)
        mask = real.get(site.stack, torch.ones(whole.shape[:2], dtype=torch.bool)) if rows != "item" else None
        expected = whole if mask is None else whole[mask]
        got = found.read(site.name)
        assert agree(got[site.name], expected, "activation"), site.name
        assert found.sites[site.name].axes == site.axes[1 if mask is None else 2 :]
        if mask is not None and site.stack in tokens and tokens[site.stack].shape == mask.shape:
            assert torch.equal(got.id, tokens[site.stack][mask])


def test_memory_is_taken_for_the_rows_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image's class is one row, its patches are many; of three shards the third lies where the first was."""
    made: list[Any] = []

    class Told(Pile):
        def __init__(self, expected: int = 0) -> None:
            super().__init__(expected)
            self.told = [expected]
            made.append(self)

        def clear(self, expected: int) -> None:
            super().clear(expected)
            self.told.append(expected)

    class Known(BatchCorpus):
        def lengths(self, items: Any) -> list[int]:
            return [7] * len(items)

    monkeypatch.setattr("workbench.engine.harvest.Pile", Told)
    model, batch = FAMILIES.load("vit").tiny(seed=0)
    corpus = Known(model.eval(), _Rows(batch.rows([0, 1, 0]), 3))
    harvest(model, corpus, tmp_path / "h", spec(sites=["unembed.hook_in", "blocks.0.hook_resid_post"], items_a_shard=1))
    filled = [pile for pile in made if len(pile.rows())]
    assert sorted(len(pile.told) for pile in filled) == [1] * 8 + [2] * 8
    assert all(set(pile.told) == {len(pile.rows())} for pile in filled)
    assert {len(pile.rows()) for pile in filled} == {1, 7}


def test_padding_masks_are_not_kept_where_a_family_has_them(tmp_path: Path) -> None:
    """Else the test above could not fail: some family's batch really has padding."""
    padded = [
        name for name in FAMILIES if any(not bool(mask.all()) for mask in positions_of(*FAMILIES.load(name).tiny(seed=0))[0].values())
    ]
    assert padded


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_stored_dtype(dtype: str, tmp_path: Path) -> None:
    model, rows = lettered(), ids(7)
    whole, small = (
        Harvest.open(harvest(model, TokenCorpus(model, rows), tmp_path / word, spec(dtype=word))) for word in ("", dtype)
    )  # fmt: skip
    assert whole.sites["blocks.0.hook_resid_post"].dtype == "float32"
    assert small.sites["blocks.0.hook_resid_post"].dtype == dtype
    for name in whole.sites:
        assert torch.equal(small.read(name)[name], whole.read(name)[name].to(getattr(torch, dtype)))


def test_shards_are_plain_safetensors(tmp_path: Path) -> None:
    model = lettered()
    folder = harvest(model, TokenCorpus(model, ids(7)), tmp_path / "h", spec())
    found = Harvest.open(folder)
    theirs = [safetensors.torch.load_file(folder / f"shard-{shard:05d}.safetensors") for shard in range(2)]
    name = "blocks.1.hook_resid_post"
    assert torch.equal(torch.cat([one[name] for one in theirs]), found.read(name)[name])
    assert torch.equal(torch.cat([one["pos/item"] for one in theirs]), found.read(name).item)
    head = json.loads((folder / "harvest.json").read_text())
    assert head["model"] == found.model == model.digest()
    assert head["items"] == 7


def test_text_is_encoded_framed_cut_and_counted(tmp_path: Path) -> None:
    model, texts = wordy(n_ctx=12), ["the cat sat", "unbelievable cat sat on the mat here the cat sat on the mat here", "mat"]
    with pytest.raises(BadValue, match=r"the length of item 1 of the corpus is \d+, but it must be at most 12 tokens\. Cut it"):
        harvest(model, TextCorpus(model, texts), tmp_path / "no", spec())
    found = Harvest.open(harvest(model, TextCorpus(model, texts, cut=True), tmp_path / "h", spec()))
    rows = found.read("blocks.0.hook_resid_post")
    whole = [[words().bos_id, *words().encode(text)][:12] for text in texts]
    assert rows.id.tolist() == [token for one in whole for token in one]
    assert found.cut == 1
    without = Harvest.open(harvest(model, TextCorpus(model, texts, cut=True, control=False), tmp_path / "w", spec()))
    few = without.read("blocks.0.hook_resid_post")
    assert torch.equal(few["blocks.0.hook_resid_post"], rows.take(rows.id != words().bos_id)["blocks.0.hook_resid_post"])
    assert few.pos.min() == 1, "positions are those of the run"


# --- going on -------------------------------------------------------------------------------------------------


def test_a_harvest_by_parts_or_in_pieces_is_the_same_to_the_byte(tmp_path: Path) -> None:
    model, rows = lettered(), ids()
    corpus = TokenCorpus(model, rows)
    whole = contents(harvest(model, corpus, tmp_path / "whole", spec()))
    assert len(whole) == 11
    for k in (1, 0):
        harvest(model, corpus, tmp_path / "parts", spec(), part=(k, 2))
    assert contents(tmp_path / "parts") == whole
    stopped: Any = _Stopping(model, 3)
    with pytest.raises(KeyboardInterrupt):
        harvest(stopped, TokenCorpus(stopped, rows), tmp_path / "broken", spec())
    with pytest.raises(MissingFile, match=r"No shard \d \(\d of 5 are missing\) at .*Harvest into the folder again to finish it"):
        Harvest.open(tmp_path / "broken")
    some = Harvest.open(tmp_path / "broken", partial=True).rows("blocks.0.hook_resid_post")
    assert 0 < some < sum(map(len, rows))
    (tmp_path / "broken" / ".writing-1-shard-00004.json").write_text("half")
    harvest(model, corpus, tmp_path / "broken", spec())
    (tmp_path / "broken" / ".writing-1-shard-00004.json").unlink()
    assert contents(tmp_path / "broken") == whole
    (tmp_path / "broken" / "shard-00002.safetensors").unlink()
    harvest(model, corpus, tmp_path / "broken", spec())
    assert contents(tmp_path / "broken") == whole


def test_going_on_with_something_else_is_refused(tmp_path: Path) -> None:
    model, rows = lettered(), ids(7)
    folder = harvest(model, TokenCorpus(model, rows), tmp_path / "h", spec())
    other = lettered(seed=1)
    with pytest.raises(Changed, match="started with another model"):
        harvest(other, TokenCorpus(other, rows), folder, spec())
    with pytest.raises(Changed, match="started with another data"):
        harvest(model, TokenCorpus(model, ids(7, seed=1)), folder, spec())
    with pytest.raises(Changed, match="started with another sites"):
        harvest(model, TokenCorpus(model, rows), folder, spec(sites=("hook_embed",)))
    with pytest.raises(Changed, match="started with another spec"):
        harvest(model, TokenCorpus(model, rows), folder, spec(items_a_shard=6, dtype="float16"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(BadValue, match="a new or empty folder"):
        harvest(model, TokenCorpus(model, rows), tmp_path / "mine", spec())


@pytest.mark.parametrize("name", ["shard-00001.safetensors", "shard-00001.json", "harvest.json"])
def test_a_flipped_byte_is_found_and_the_file_named(name: str, tmp_path: Path) -> None:
    model = lettered()
    folder = harvest(model, TokenCorpus(model, ids()), tmp_path / "h", spec())
    content = bytearray((folder / name).read_bytes())
    content[-30 if name.startswith("shard") else 5] ^= 0x11
    (folder / name).write_bytes(content)
    with pytest.raises(CorruptFile, match=name):
        list(Harvest.open(folder).batches("blocks.0.hook_resid_post", 8, seed=0))
    with pytest.raises(CorruptFile, match=name):
        harvest(model, TokenCorpus(model, ids()), folder, spec())


def test_files_that_are_missing_or_cut_short_are_named(tmp_path: Path) -> None:
    model = lettered()
    folder = harvest(model, TokenCorpus(model, ids()), tmp_path / "h", spec())
    place = folder / "shard-00003.safetensors"
    whole = place.read_bytes()
    place.write_bytes(whole[:-7])
    with pytest.raises(CorruptFile, match="shard-00003"):
        Harvest.open(folder).verify()
    with pytest.raises(CorruptFile, match="shard-00003.*it ends before them"):
        Harvest.open(folder, check=False).read("blocks.1.hook_resid_post")
    place.write_bytes(b"")
    with pytest.raises(CorruptFile, match="its head cannot be read"):
        Harvest.open(folder, check=False).read("blocks.1.hook_resid_post")
    place.unlink()
    with pytest.raises(MissingFile, match="shard-00003"):
        Harvest.open(folder).read("blocks.1.hook_resid_post")
    with pytest.raises(MissingFile, match="workbench harvest"):
        Harvest.open(tmp_path / "nowhere")


def test_a_shard_of_another_harvest_is_refused(tmp_path: Path) -> None:
    model = lettered()
    one, other = (harvest(model, TokenCorpus(model, ids(seed=seed)), tmp_path / str(seed), spec()) for seed in (0, 1))
    for end in ("safetensors", "json"):
        (one / f"shard-00001.{end}").write_bytes((other / f"shard-00001.{end}").read_bytes())
    with pytest.raises(CorruptFile, match="the receipt of shard 1 of this harvest, but it is another's"):
        Harvest.open(one)


# --- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_activation_that_is_not_finite_is_refused_by_site_and_item(value: float, tmp_path: Path) -> None:
    model, rows = lettered(), [[1, 2, 3], [4, 5], [6, 7, 22, 8], [9]]
    with torch.no_grad():
        model.embed.token.weight[22] = value
    with pytest.raises(BadValue, match=r"the activation at 'hook_embed' of item 2, position 2 is 'NaN or infinity'.*weights are broken"):
        harvest(model, TokenCorpus(model, rows), tmp_path / "h", spec(sites=("hook_embed",), items_a_shard=4))
    assert [path.name for path in (tmp_path / "h").iterdir()] == ["harvest.json"]


def test_what_does_not_fit_the_stored_dtype_is_refused(tmp_path: Path) -> None:
    model = lettered()
    with torch.no_grad():
        model.embed.token.weight[4] = 1e6
    with pytest.raises(BadValue, match=r"'hook_embed' of item 0, position 1.*does not fit float16: store it as float32"):
        harvest(model, TokenCorpus(model, [[1, 4]]), tmp_path / "h", spec(sites=("hook_embed",), dtype="float16"))


def test_shards_with_nan_are_refused_when_read(tmp_path: Path) -> None:
    model = lettered()
    folder = harvest(model, TokenCorpus(model, ids(4)), tmp_path / "h", spec())
    place = folder / "shard-00000.safetensors"
    tensors = safetensors.torch.load_file(place)
    tensors["blocks.0.hook_resid_post"][3, 2] = float("nan")
    safetensors.torch.save_file(tensors, place)
    with pytest.raises(CorruptFile, match=r"shard-00000.*'blocks.0.hook_resid_post' has NaN or infinity"):
        Harvest.open(folder, check=False).read("blocks.0.hook_resid_post")


def test_bad_corpora_sites_and_parts(tmp_path: Path) -> None:
    model = lettered()
    corpus = TokenCorpus(model, ids(3))
    for rows, words_ in ([[1], []], "item 1 of the corpus"), ([[1, 23]], "a token id of the corpus is 23"), ([[-1]], "is -1"):
        with pytest.raises(BadValue, match=words_):
            harvest(model, TokenCorpus(model, rows), tmp_path / words_[:6], spec())
    with pytest.raises(BadValue, match="the corpus is 'empty'"):
        TokenCorpus(model, [])
    with pytest.raises(BadValue, match="length is 17, but it must be from 1 to 16"):
        TokenCorpus(model, ids(3), length=17)
    with pytest.raises(EmptySelection, match="matches no site"):
        harvest(model, corpus, tmp_path / "h", spec(sites=("blocks.9.*",)))
    with pytest.raises(BadValue, match="rows that mean the same in every batch"):
        harvest(model, corpus, tmp_path / "h", spec(sites=("blocks.0.attn.hook_pattern",)))
    with pytest.raises(BadValue, match=r"part is \(2, 2\)"):
        harvest(model, corpus, tmp_path / "h", spec(), part=(2, 2))
    assert not (tmp_path / "h").exists()


# --- stand-ins ------------------------------------------------------------------------------------------------


class _Rows:
    """A batch as rows drawn by number."""

    def __init__(self, batch: Any, count: int) -> None:
        self.whole, self.count = batch, count

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Any) -> Any:
        return self.whole.rows(list(indices))

    def digest(self) -> str:
        return "0" * 64


class _Stopping:
    """A model whose run is interrupted after some passes."""

    def __init__(self, model: Any, passes: int) -> None:
        self.model, self.left = model, passes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def run(self, *given: Any, **more: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.model.run(*given, **more)


def _has_rows(site: Any) -> bool:
    try:
        return bool(rows_of(site))
    except BadValue:
        return False
