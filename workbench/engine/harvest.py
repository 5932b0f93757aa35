"""Harvest: run a corpus through a model and keep what stands at chosen sites, row by row, in shards on disk.

One shard holds a fixed range of items, and nothing outside that range decides its bytes: an interrupted harvest goes on where it
stopped and ends in the same files, and several processes may make different shards of one folder. Within a shard items of like
length share a pass; rows are kept in the order of items and positions, and padding is not kept. A shard is put in order, hashed and
written while the next one is made, so two of them are in memory: always the same two blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from workbench.core.errors import AssayError, BadValue, Changed
from workbench.core.protocol import HookedModel, Progress, silent
from workbench.core.sites import Site
from workbench.core.spec import Spec, canonical_json
from workbench.engine.corpus import Corpus, Given
from workbench.engine.harvest_files import (
    COLUMNS,
    FORMAT,
    HEAD,
    ITEM,
    Kept,
    Receipt,
    checked,
    file_of,
    mark_of,
    put,
    put_receipt,
    put_tensors,
    read_head,
    receipts,
    rows_of,
)
from workbench.engine.harvest_rows import Ordered, Pile
from workbench.engine.memory import keep_freed


class HarvestSpec(Spec):
    """Which sites are kept, and how."""

    sites: tuple[str, ...] = Field(default=("blocks.*.hook_resid_post",), min_length=1, description="names or globs of sites")
    items_a_shard: int = Field(default=256, ge=1, description="items in one shard")
    tokens_a_pass: int = Field(default=4096, ge=1, description="positions in one forward pass at most, padding included")
    dtype: Literal["", "float32", "float16", "bfloat16"] = Field(default="", description="what is stored; '' as it was computed")


def harvest(
    model: HookedModel, corpus: Corpus, out: Path | str, spec: HarvestSpec | None = None, *, part: tuple[int, int] = (0, 1),
    progress: Progress = silent,
) -> Path:  # fmt: skip
    """Keep ``spec.sites`` of every item of ``corpus`` in the folder ``out``, or go on with what an interrupted harvest left there.

    ``part`` (k, n) makes the shards k, k + n, k + 2n … alone, so that n processes share the work. Raises Changed where the folder was
    begun with another model, data, sites or spec; BadValue for a site without rows and for an activation that is not finite, naming site
    and item; CorruptFile for a shard that is not what its receipt says.
    """
    spec, folder = spec or HarvestSpec(), Path(out)
    if not 0 <= part[0] < part[1]:
        raise BadValue("part", part, "(k, n) with k from 0 to n - 1")
    sites = model.sites().select(spec.sites)
    head = _head(model, corpus, sites, spec)
    done = _begun(folder, head)
    keep_freed()
    writing: tuple[Future[None], int] | None = None
    piles: list[Piles] = [{}, {}]  # one is filled while the other is written
    with ThreadPoolExecutor(1) as pool:  # whatever ends the loop, a shard that is made is written
        for shard in range(head["shards"]):
            start = shard * spec.items_a_shard
            stop = min(len(corpus), start + spec.items_a_shard)
            there = shard in done and file_of(folder, shard).exists()
            if not there and shard % part[1] != part[0]:
                continue
            made = None if there else _shard(model, corpus, range(start, stop), sites, spec, piles[0])
            _finished(writing, len(corpus), progress)
            writing = None
            if made is None:
                checked(file_of(folder, shard), done[shard])
                progress(stop, len(corpus), "items")
            else:
                writing = pool.submit(_write, folder, (shard, start, stop), made, mark_of(head)), stop
                piles.reverse()
        _finished(writing, len(corpus), progress)
    return folder


def begin(model: HookedModel, corpus: Corpus, out: Path | str, spec: HarvestSpec) -> int:
    """Begin the folder ``out`` without making a shard, so that several processes may then make its parts; the number of its shards. Raises
    as ``harvest`` does before its first shard."""
    head = _head(model, corpus, model.sites().select(spec.sites), spec)
    _begun(Path(out), head)
    return int(head["shards"])


def _write(folder: Path, which: tuple[int, int, int], made: Made, mark: str) -> None:
    """A shard and then its receipt."""
    (shard, start, stop), (rows, kept, tensors, cut) = which, made
    size, digest = put_tensors(file_of(folder, shard), tensors)
    put_receipt(folder, Receipt(shard, start, stop, rows, kept, cut, size, digest, mark))


def _finished(writing: tuple[Future[None], int] | None, count: int, progress: Progress) -> None:
    """Wait until the shard before is on disk; raises what kept it from that."""
    if writing is not None:
        writing[0].result()
        progress(writing[1], count, "items")


# --- beginning ------------------------------------------------------------------------------------------------


def _head(model: HookedModel, corpus: Corpus, sites: Sequence[Site], spec: HarvestSpec) -> dict[str, Any]:
    for site in sites:
        rows_of(site)
    weight = next(iter(getattr(model, "parameters", tuple)()), None)
    made_with = {"torch": torch.__version__, "device": "cpu" if weight is None else weight.device.type,
                 "dtype": "" if weight is None else str(weight.dtype).removeprefix("torch.")}  # fmt: skip
    return {
        "format": FORMAT, "name": getattr(model, "name", "") or "", "family": model.family, "model": model.digest(),
        "data": corpus.digest(), "items": len(corpus), "shards": -(-len(corpus) // spec.items_a_shard),
        "sites": [[site.name, list(site.axes)] for site in sites], "spec": spec.model_dump(mode="json"),
        "made_with": {**made_with, "assay": version("assay-workbench")},
    }  # fmt: skip


def _begun(folder: Path, head: dict[str, Any]) -> dict[int, Receipt]:
    """What the folder holds already of this harvest. Raises Changed, and BadValue for a folder of something else."""
    if folder.exists() and not folder.is_dir():
        raise BadValue("out", str(folder), "a folder")
    found = read_head(folder)
    if found is None:
        if folder.is_dir() and any(not one.name.startswith(".writing-") for one in folder.iterdir()):
            raise BadValue("out", str(folder), "a new or empty folder, or one that a harvest was begun in")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            put(folder / HEAD, canonical_json(head).encode())
        except OSError as error:
            raise AssayError(f"The harvest could not be written to '{folder}': {error.strerror or error}.") from error
        return {}
    words = {"model": "model", "data": "data", "items": "data", "sites": "sites", "spec": "spec", "made_with": "version or machine"}
    for name in (*words, *(name for name in head if name not in (*words, "name"))):
        if found.get(name) != head[name]:
            before, now = ((str(one)[:12] + "…" if name in ("model", "data") else str(one)) for one in (found.get(name), head[name]))
            raise Changed(folder, words.get(name, name), before, now, last="what is there")
    return receipts(folder, head)


# --- one shard ------------------------------------------------------------------------------------------------

Piles = dict[str, Pile]
"""By site, and by the columns of each kind of rows."""
Made = tuple[dict[str, int], dict[str, Kept], dict[str, Ordered], int]
"""The number of rows by kind, how each site is kept, the tensors, and how many items were cut."""


def _passes(lengths: Sequence[int], items: range, tokens: int) -> Iterator[list[int]]:
    """Items of like length together, as many as ``tokens`` allow; ties in order, so that the cut is always the same."""
    order = sorted(range(len(items)), key=lambda i: (lengths[i], i))
    batch: list[int] = []
    for number in order:
        if batch and (len(batch) + 1) * lengths[number] > tokens:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _expected(sites: Sequence[Site], items: int, positions: int) -> dict[str, int]:
    """About how many rows each pile will hold."""
    out: dict[str, int] = {}
    for site in sites:
        rows = rows_of(site)
        out |= dict.fromkeys((site.name, *(f"{rows}/{name}" for name in COLUMNS)), items if rows == ITEM else positions)
    return out


def _shard(model: HookedModel, corpus: Corpus, items: range, sites: Sequence[Site], spec: HarvestSpec, piles: Piles) -> Made:
    """Run the items; what is made lies in ``piles``."""
    device = next((weight.device for weight in getattr(model, "parameters", tuple)()), torch.device("cpu"))
    cut, lengths = 0, corpus.lengths(items)
    expected = _expected(sites, len(items), sum(lengths))
    for name, pile in piles.items():
        pile.clear(expected[name])
    for numbers in _passes(lengths, items, spec.tokens_a_pass):
        chosen = [items[number] for number in numbers]
        given = corpus.given(chosen)
        cut += given.cut
        batch = given.batch.to(device) if hasattr(given.batch, "to") else given.batch
        trace = model.run(batch, capture=sites, logits="all" if any(site.tensor == "hook_logits" for site in sites) else None)
        places: dict[str, Places] = {}
        for site in sites:
            value, rows = trace[site].detach(), rows_of(site)
            if rows not in places:
                places[rows] = _places(rows, site, given, chosen, value)
                for name, column in places[rows].columns.items():
                    pile = piles.setdefault(f"{rows}/{name}", Pile(expected[f"{rows}/{name}"]))
                    pile.room(len(column), (), column.dtype).copy_(column)
            whole = value if rows == ITEM else value.flatten(0, 1)
            _keep(whole, places[rows], site, spec.dtype, piles.setdefault(site.name, Pile(expected[site.name])))
        del trace
    return *_in_order(piles, sites), cut


@dataclass(frozen=True)
class Places:
    """Which rows of a pass are kept (None: all), and the item, position and id of each."""

    kept: Int[Tensor, " row"] | None
    columns: Mapping[str, Int[Tensor, " row"]]


def _places(rows: str, site: Site, given: Given, chosen: Sequence[int], value: Tensor) -> Places:
    """Of the first axes of ``value``."""
    numbers = torch.tensor(chosen)
    if rows == ITEM:
        nowhere = torch.full_like(numbers, -1)
        return Places(None, {"item": numbers, "pos": nowhere, "id": nowhere})
    shape = tuple(value.shape[:2])
    real = given.real.get(site.stack, torch.ones(shape, dtype=torch.bool)).cpu()
    if tuple(real.shape) != shape:
        raise BadValue(f"the positions of '{site.name}'", shape, f"{tuple(real.shape)}, as the corpus says which are real")
    ids = given.ids.get(site.stack)
    row, pos = real.nonzero(as_tuple=True)
    same = ids is not None and tuple(ids.shape) == shape
    columns = {"item": numbers[row], "pos": pos, "id": ids.cpu()[real].long() if ids is not None and same else torch.full_like(pos, -1)}
    return Places(None if len(row) == real.numel() else row * shape[1] + pos, columns)


def _keep(whole: Float[Tensor, "place ..."], places: Places, site: Site, dtype: str, pile: Pile) -> None:
    """Put the kept rows on the pile, as they are stored. Raises BadValue where one is not finite."""
    room = pile.room(len(places.columns["item"]), tuple(whole.shape[1:]), getattr(torch, dtype) if dtype else whole.dtype)
    if places.kept is None:
        room.copy_(whole)
    elif whole.device.type == "cpu" and room.dtype == whole.dtype:
        torch.index_select(whole, 0, places.kept, out=room)
    else:
        room.copy_(whole.index_select(0, places.kept.to(whole.device)))
    # NaN passes through the least and the largest, so only where one of them is not finite is looked into.
    if room.numel() and not all(bool(torch.isfinite(end)) for end in room.aminmax()):
        wrong = int((~torch.isfinite(room).view(len(room), -1).all(1)).nonzero()[0])
        item, pos = int(places.columns["item"][wrong]), int(places.columns["pos"][wrong])
        why = "The weights are broken." if not bool(torch.isfinite(whole).all()) else f"It does not fit {dtype}: store it as float32."
        where = f"item {item}" + ("" if pos < 0 else f", position {pos}")
        raise BadValue(f"the activation at '{site.name}' of {where}", "NaN or infinity", "finite numbers", do=why)


def _in_order(piles: Piles, sites: Sequence[Site]) -> tuple[dict[str, int], dict[str, Kept], dict[str, Ordered]]:
    """One tensor a site and column, with the order of its rows: by item and position."""
    rows, kept, tensors, orders = {}, {}, {}, {}
    for name in dict.fromkeys(rows_of(site) for site in sites):
        item = piles[f"{name}/item"].rows()
        rows[name] = len(item)
        orders[name] = None if bool((item[1:] >= item[:-1]).all()) else torch.argsort(item, stable=True)
        for column in COLUMNS:
            tensors[f"{name}/{column}"] = Ordered(piles[f"{name}/{column}"].rows(), orders[name])
    for site in sites:
        name, value = rows_of(site), piles[site.name].rows()
        tensors[site.name] = Ordered(value, orders[name])
        axes = site.axes[1 if name == ITEM else 2 :]
        kept[site.name] = Kept(name, axes, tuple(value.shape[1:]), str(value.dtype).removeprefix("torch."))
    return rows, kept, tensors
