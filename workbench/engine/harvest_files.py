"""The folder of a harvest, written whole or not at all, and believed only as far as its hashes.

    harvest.json               what was asked: model, data, sites and their axes, spec, and the number of shards
    shard-00000.safetensors    the rows of a range of items: one tensor [row, ...] a site, and for each row its item, position and token id
    shard-00000.json           the receipt: which items, how many rows, shapes and dtypes, sha256 of the file above

Sites of one stack that have an activation at every position share their rows (``pos``, or ``decoder.pos`` …); sites with one an item have
the rows ``item``. A receipt is written after its shard, both under a temporary name first: a harvest that dies leaves whole shards.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from workbench.core.errors import AssayError, BadValue, CorruptFile, MissingFile
from workbench.core.sites import Site
from workbench.core.spec import canonical_json, digest_of
from workbench.core.whole_file import write_whole
from workbench.engine.harvest_rows import Ordered

FORMAT, HEAD, ITEM = 1, "harvest.json", "item"
FEATURES = frozenset({"d_model", "d_head", "d_mlp", "d_vocab", "head", "kv_head", "one", "class", "d_joint"})
COLUMNS = ("item", "pos", "id")
"""Of each row: the item's number in the corpus, the position in it, and the token id (-1 where there is none)."""
_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
DTYPES = {name: dtype for dtype, name in _NAMES.items()}


@dataclass(frozen=True)
class Kept:
    """How a site is kept: the name of its ``rows``, its ``axes`` after those, their ``shape``, and the ``dtype`` as torch calls it."""

    rows: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Receipt:
    """What one shard holds: the items from ``start`` to ``stop``, of which ``cut`` were longer than what was read of them."""

    shard: int
    start: int
    stop: int
    rows: Mapping[str, int]
    sites: Mapping[str, Kept]
    cut: int
    bytes: int
    sha256: str
    harvest: str


def rows_of(site: Site) -> str:
    """The name of the rows that ``site`` is kept in. Raises BadValue for a site whose rows are not positions or items."""
    if site.axes[0] == "batch" and set(site.axes[1:]) <= FEATURES:
        return ITEM
    if site.axes[:2] == ("batch", "pos") and set(site.axes[2:]) <= FEATURES:
        return f"{site.stack}.pos" if site.stack else "pos"
    raise BadValue(
        f"the axes of site '{site.name}'",
        site.axes,
        "batch and pos, then features: a harvest keeps rows that mean the same in every batch",
        do="Leave the site out.",
    )


def file_of(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}.safetensors"


def receipt_of(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}.json"


def put(place: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    write_whole(place, lambda out: out.write(content))


def put_tensors(place: Path, tensors: Mapping[str, Ordered]) -> tuple[int, str]:
    """Write ``tensors`` as safetensors, one after another, hashed while they are written; the number of bytes and their sha256."""
    head, at = {}, 0
    for name, one in tensors.items():
        size = one.rows.numel() * one.rows.element_size()
        head[name] = {"dtype": _NAMES[one.rows.dtype], "shape": list(one.rows.shape), "data_offsets": [at, at + size]}
        at += size
    words = json.dumps(head, separators=(",", ":")).encode()
    words += b" " * (-len(words) % 8)
    words = struct.pack("<Q", len(words)) + words
    with ThreadPoolExecutor(1) as beside:  # on two cores a shard that nothing is computed beside is done in little more than half the time
        digest = beside.submit(_hashed, words, tensors)
        write_whole(place, lambda out: out.writelines(_parts(words, tensors)))
        return len(words) + at, digest.result()


def _parts(words: bytes, tensors: Mapping[str, Ordered]) -> Iterator[bytes | memoryview]:
    yield words
    for one in tensors.values():
        yield from one.pieces()


def _hashed(words: bytes, tensors: Mapping[str, Ordered]) -> str:
    whole = hashlib.sha256()
    for part in _parts(words, tensors):
        whole.update(part)
    return whole.hexdigest()


def offsets(place: Path) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """dtype, shape and first byte of each tensor in a safetensors file. Raises CorruptFile."""
    try:
        with place.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            head = json.loads(file.read(size))
        head.pop("__metadata__", None)
        return {name: (one["dtype"], tuple(one["shape"]), 8 + size + one["data_offsets"][0]) for name, one in head.items()}
    except FileNotFoundError:
        raise MissingFile(place, "shard of the harvest", do="Harvest into the folder again: what is missing is made.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, MemoryError, OverflowError) as error:
        raise CorruptFile(place, "a safetensors file", f"its head cannot be read ({error})", do=REMEDY) from None


REMEDY = "Delete it and harvest into the folder again: what is missing is made."


def checked(place: Path, receipt: Receipt) -> None:
    """Compare the bytes of a shard with its receipt. Raises MissingFile and CorruptFile, which name the file."""
    if not place.is_file():
        raise MissingFile(place, "shard of the harvest", do="Harvest into the folder again: what is missing is made.")
    with place.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != receipt.sha256:
        raise CorruptFile(place, f"of sha256 {receipt.sha256[:12]}…", f"its bytes have {found[:12]}…", do=REMEDY)


def put_receipt(folder: Path, receipt: Receipt) -> None:
    put(receipt_of(folder, receipt.shard), canonical_json(asdict(receipt)).encode())


def receipts(folder: Path, head: Mapping[str, Any]) -> dict[int, Receipt]:
    """The shards that are whole, by number. Raises CorruptFile for a receipt that cannot be read or is another harvest's."""
    out, mark = {}, mark_of(head)
    for shard in range(head["shards"]):
        place = receipt_of(folder, shard)
        if not place.is_file():
            continue
        try:
            told = json.loads(place.read_bytes())
            kept = {
                name: Kept(one["rows"], tuple(one["axes"]), tuple(one["shape"]), one["dtype"]) for name, one in told.pop("sites").items()
            }
            out[shard] = Receipt(**told, sites=kept)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptFile(place, "the receipt of a shard", f"it cannot be read ({error})", do=REMEDY) from None
        if out[shard].harvest != mark or out[shard].shard != shard:
            raise CorruptFile(place, f"the receipt of shard {shard} of this harvest", "it is another's", do=REMEDY)
    return out


def read_head(folder: Path) -> dict[str, Any] | None:
    """What was asked of the harvest in ``folder``; None where there is none. Raises CorruptFile."""
    place = folder / HEAD
    if not place.is_file():
        return None
    try:
        head = json.loads(place.read_bytes())
        if head["format"] != FORMAT:
            raise CorruptFile(place, f"a harvest of format {FORMAT}", f"it is of format {head['format']}")
        for name in ("shards", "items", "model", "data", "sites", "spec", "name", "family"):
            head[name]
    except AssayError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFile(place, "the head of a harvest", f"it cannot be read ({error!r})") from None
    return head


def mark_of(head: Mapping[str, Any]) -> str:
    """What ties a receipt to its harvest: everything that was asked but the model's name."""
    return digest_of({name: value for name, value in head.items() if name != "name"})
