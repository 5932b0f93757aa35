"""Harvest: run a corpus through a model and keep what stands at chosen sites, row by row, in shards on disk.

One shard holds a fixed range of items, and nothing outside that range decides its bytes: an interrupted harvest goes on where it
stopped and ends in the same files, and several processes may make different shards of one folder. Within a shard items of like
length share a pass; rows are kept in the order of items and positions, and padding is not kept. A shard is hashed and written while the
next one is made, so two of them are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
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
    writing: tuple[Future[None], int] | None = None
    with ThreadPoolExecutor(1) as pool:  # whatever ends the loop, a shard that is made is written
        for shard in range(head["shards"]):
            start = shard * spec.items_a_shard
            stop = min(len(corpus), start + spec.items_a_shard)
            there = shard in done and file_of(folder, shard).exists()
            if not there and shard % part[1] != part[0]:
                continue
            made = None if there else _shard(model, corpus, range(start, stop), sites, spec)
            _finished(writing, len(corpus), progress)
            writing = None
            if made is None:
                checked(file_of(folder, shard), done[shard])
                progress(stop, len(corpus), "items")
            else:
                writing = pool.submit(_write, folder, (shard, start, stop), made, mark_of(head)), stop
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

Made = tuple[dict[str, int], dict[str, Kept], dict[str, Tensor], int]
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


def _shard(model: HookedModel, corpus: Corpus, items: range, sites: Sequence[Site], spec: HarvestSpec) -> Made:
    pieces: dict[str, list[Tensor]] = {}
    device = next((weight.device for weight in getattr(model, "parameters", tuple)()), torch.device("cpu"))
    cut = 0
    for numbers in _passes(corpus.lengths(items), items, spec.tokens_a_pass):
        chosen = [items[number] for number in numbers]
        given = corpus.given(chosen)
        cut += given.cut
        batch = given.batch.to(device) if hasattr(given.batch, "to") else given.batch
        trace = model.run(batch, capture=sites, logits="all" if any(site.tensor == "hook_logits" for site in sites) else None)
        places: dict[str, tuple[Tensor, dict[str, Tensor]]] = {}
        for site in sites:
            value, rows = trace[site].detach(), rows_of(site)
            if rows not in places:
                places[rows] = _places(rows, site, given, chosen, value)
                for name, column in places[rows][1].items():
                    pieces.setdefault(f"{rows}/{name}", []).append(column)
            pieces.setdefault(site.name, []).append(_rows(value, rows, places[rows], site, spec.dtype))
        del trace
    return *_in_order(pieces, sites), cut


def _places(rows: str, site: Site, given: Given, chosen: Sequence[int], value: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Which of ``value``'s first axes are kept, and the item, position and id of each row."""
    numbers = torch.tensor(chosen)
    if rows == ITEM:
        return torch.ones(len(numbers), dtype=torch.bool), {
            "item": numbers,
            "pos": torch.full_like(numbers, -1),
            "id": torch.full_like(numbers, -1),
        }
    shape = tuple(value.shape[:2])
    real = given.real.get(site.stack, torch.ones(shape, dtype=torch.bool)).cpu()
    if tuple(real.shape) != shape:
        raise BadValue(f"the positions of '{site.name}'", shape, f"{tuple(real.shape)}, as the corpus says which are real")
    ids = given.ids.get(site.stack)
    row, pos = real.nonzero(as_tuple=True)
    same = ids is not None and tuple(ids.shape) == shape
    return real, {"item": numbers[row], "pos": pos, "id": ids.cpu()[real].long() if ids is not None and same else torch.full_like(pos, -1)}


def _rows(value: Tensor, rows: str, places: tuple[Tensor, dict[str, Tensor]], site: Site, dtype: str) -> Tensor:
    """The kept rows, as they are stored. Raises BadValue where one is not finite."""
    real, columns = places
    whole = value if rows == ITEM else value.flatten(0, 1)
    taken = whole if len(columns["item"]) == len(whole) else whole.index_select(0, real.flatten().nonzero()[:, 0].to(value.device))
    if dtype:
        taken = taken.to(getattr(torch, dtype))
    # One pass without a copy says that all is well; only a sum that is not finite is looked into.
    if not bool(torch.isfinite(taken.sum(dtype=torch.float64))) and not bool(torch.isfinite(taken).all()):
        wrong = int((~torch.isfinite(taken).flatten(1).all(1)).nonzero()[0])
        item, pos = int(columns["item"][wrong]), int(columns["pos"][wrong])
        why = "The weights are broken." if not bool(torch.isfinite(value).all()) else f"It does not fit {dtype}: store it as float32."
        where = f"item {item}" + ("" if pos < 0 else f", position {pos}")
        raise BadValue(f"the activation at '{site.name}' of {where}", "NaN or infinity", "finite numbers", do=why)
    return taken.cpu()


def _in_order(pieces: dict[str, list[Tensor]], sites: Sequence[Site]) -> tuple[dict[str, int], dict[str, Kept], dict[str, Tensor]]:
    """One tensor a site and column, rows by item and position."""
    rows, kept, tensors, orders = {}, {}, {}, {}
    for name in dict.fromkeys(rows_of(site) for site in sites):
        item = torch.cat(pieces[f"{name}/item"])
        rows[name] = len(item)
        sorted_already = bool((item[1:] >= item[:-1]).all())
        orders[name] = None if sorted_already else torch.argsort(item, stable=True)
        for column in COLUMNS:
            tensors[f"{name}/{column}"] = _placed(pieces.pop(f"{name}/{column}"), orders[name])
    for site in sites:
        name = rows_of(site)
        tensors[site.name] = _placed(pieces.pop(site.name), orders[name])
        value, axes = tensors[site.name], site.axes[1 if name == ITEM else 2 :]
        kept[site.name] = Kept(name, axes, tuple(value.shape[1:]), str(value.dtype).removeprefix("torch."))
    return rows, kept, tensors


def _placed(parts: list[Tensor], order: Tensor | None) -> Tensor:
    """The parts one after another, or each row of them straight to its place."""
    if order is None:
        return parts[0] if len(parts) == 1 else torch.cat(parts)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    whole, at = parts[0].new_empty((len(order), *parts[0].shape[1:])), 0
    for part in parts:
        whole.index_copy_(0, place[at : at + len(part)], part)
        at += len(part)
    return whole
