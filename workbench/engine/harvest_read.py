"""Reading a harvest back: by row, or as shuffled batches, with no more than a buffer of it in memory.

    rows = Harvest.open(folder)
    for batch in rows.batches("blocks.2.hook_resid_post", 512, seed=0, epoch=3):
        batch["blocks.2.hook_resid_post"]      # [row, d_model]
        batch.item, batch.pos, batch.id        # [row]

An epoch draws blocks of consecutive rows from all shards in a random order, fills a buffer with them, and hands out the buffer's rows in
a random order: each row once, the same order for the same seed and epoch. Each shard is compared with its sha256 when it is first read.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from workbench.core.errors import BadValue, CorruptFile, MissingFile, UnknownName
from workbench.core.sites import selected
from workbench.core.spec import digest_of
from workbench.engine.harvest_files import COLUMNS, DTYPES, HEAD, REMEDY, Kept, Receipt, checked, file_of, offsets, read_head, receipts

BLOCK = 256


@dataclass(frozen=True)
class Rows:
    """Rows of one or more sites, and where each comes from: the item's number in the corpus, its position (-1: the whole item) and token
    id (-1: none)."""

    at: Mapping[str, Tensor]
    item: Int[Tensor, " row"]
    pos: Int[Tensor, " row"]
    id: Int[Tensor, " row"]

    def __getitem__(self, site: str) -> Tensor:
        """``[row, ...]``, the features of a site."""
        if site not in self.at:
            raise UnknownName("site", site, self.at, where="in these rows")
        return self.at[site]

    def __len__(self) -> int:
        return len(self.item)

    def take(self, chosen: slice | Tensor) -> Rows:
        """The chosen rows."""
        return Rows({name: value[chosen] for name, value in self.at.items()}, self.item[chosen], self.pos[chosen], self.id[chosen])


@dataclass
class Harvest:
    """A harvest on disk. ``sites`` says how each is kept; ``head`` what was asked: ``model`` and ``data`` digests, ``items``, ``spec`` …"""

    folder: Path
    head: Mapping[str, Any]
    receipts: Mapping[int, Receipt]
    sites: Mapping[str, Kept]
    check: bool = True
    _seen: dict[int, dict[str, tuple[str, tuple[int, ...], int]]] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, folder: Path | str, *, partial: bool = False, check: bool = True) -> Harvest:
        """The harvest in ``folder``. One that is not finished is an error unless ``partial``; ``check`` False reads shards without
        comparing their sha256. Raises MissingFile and CorruptFile."""
        place = Path(folder)
        head = read_head(place)
        if head is None:
            raise MissingFile(place / HEAD, "harvest", do="`workbench harvest REF --data NAME --out DIR` makes one.")
        found = receipts(place, head)
        if (missing := [shard for shard in range(head["shards"]) if shard not in found]) and (not partial or not found):
            raise MissingFile(
                file_of(place, missing[0]), f"shard {missing[0]} ({len(missing)} of {head['shards']} are missing)",
                do="Harvest into the folder again to finish it.",
            )  # fmt: skip
        first, names = next(iter(found.values())), [name for name, _ in head["sites"]]  # in the order of a run
        for receipt in found.values():
            if receipt.sites != first.sites or set(receipt.sites) != set(names):
                raise CorruptFile(
                    place / f"shard-{receipt.shard:05d}.json", "of the same sites as the other shards", "they differ", do=REMEDY
                )
        return cls(place, head, found, {name: first.sites[name] for name in names}, check)

    @property
    def model(self) -> str:
        """The digest of the model that was run."""
        return self.head["model"]

    @property
    def cut(self) -> int:
        """Items that were longer than what was read of them."""
        return sum(receipt.cut for receipt in self.receipts.values())

    def digest(self) -> str:
        """sha256 (hex) of all that is stored, from the hashes of its shards."""
        return digest_of([self.receipts[shard].sha256 for shard in sorted(self.receipts)])

    def verify(self) -> None:
        """Compare every shard with its sha256. Raises MissingFile and CorruptFile, which name the file."""
        for shard, receipt in self.receipts.items():
            checked(file_of(self.folder, shard), receipt)

    def rows(self, site: str) -> int:
        """How many rows ``site`` has."""
        kept = self._kept(site)
        return sum(receipt.rows[kept.rows] for receipt in self.receipts.values())

    # --- reading --------------------------------------------------------------------------------------------

    def read(self, sites: str | Sequence[str], start: int = 0, stop: int | None = None) -> Rows:
        """The rows from ``start`` to ``stop`` in the order of items and positions."""
        names, total = self._named(sites), self.rows(self._named(sites)[0])
        stop = total if stop is None else stop
        if not 0 <= start < stop <= total:
            raise BadValue("the rows asked for", (start, stop), f"a range within 0 to {total}, of at least one")
        parts, first = [], 0
        for shard, count in self._counts(names[0]):
            low, high = max(start - first, 0), min(stop - first, count)
            if low < high:
                parts.append(self._block(names, shard, low, high))
            first += count
        return _joined(parts)

    def batches(
        self, sites: str | Sequence[str], size: int, *, seed: int, epoch: int = 0, buffer: int = 65536, start: int = 0, last: bool = True
    ) -> Iterator[Rows]:
        """Every row once, in batches of ``size``; the last is smaller, or left out with ``last`` False.

        Several ``sites`` must share their rows (one stack). ``buffer`` rows are in memory at a time, and the more they are the better
        they are mixed. ``start`` begins at a later batch, as a training that is taken up again does; what comes before is not read.
        """
        names = self._named(sites)
        for word, value, least in (("size", size, 1), ("buffer", buffer, 1), ("start", start, 0), ("epoch", epoch, 0), ("seed", seed, 0)):
            if value < least:
                raise BadValue(word, value, f"at least {least}")
        return self._batches(names, size, np.random.default_rng([seed, epoch]), buffer, start * size, last)

    def _batches(self, names: list[str], size: int, rng: np.random.Generator, buffer: int, skip: int, last: bool) -> Iterator[Rows]:
        blocks = [(shard, low, min(low + BLOCK, count)) for shard, count in self._counts(names[0]) for low in range(0, count, BLOCK)]
        rest: Rows | None = None
        for window, order in _windows(blocks, rng, buffer):
            if skip >= len(order):
                skip -= len(order)
                continue
            drawn = _joined([self._block(names, *block) for block in window]).take(torch.from_numpy(order[skip:]))
            skip = 0
            whole = drawn if rest is None else _joined([rest, drawn])
            full = len(whole) // size * size
            for low in range(0, full, size):
                yield whole.take(slice(low, low + size))
            rest = whole.take(slice(full, None)) if full < len(whole) else None
        if rest is not None and last:
            yield rest

    def _block(self, names: Sequence[str], shard: int, low: int, high: int) -> Rows:
        rows = self.sites[names[0]].rows
        columns = [self._tensor(shard, f"{rows}/{column}", low, high) for column in COLUMNS]
        found = {name: self._tensor(shard, name, low, high) for name in names}
        for name, value in found.items():
            if not bool(torch.isfinite(value).all()):
                raise CorruptFile(file_of(self.folder, shard), "of finite activations", f"'{name}' has NaN or infinity there", do=REMEDY)
        return Rows(found, *columns)

    def _tensor(self, shard: int, name: str, low: int, high: int) -> Tensor:
        place = file_of(self.folder, shard)
        if shard not in self._seen:
            if self.check:
                checked(place, self.receipts[shard])
            self._seen[shard] = offsets(place)
        if name not in self._seen[shard]:
            raise CorruptFile(place, f"with the tensor '{name}'", "it has none", do=REMEDY)
        kind, shape, first = self._seen[shard][name]
        dtype = DTYPES[kind]
        wide = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        content = np.fromfile(place, np.uint8, (high - low) * wide, offset=first + low * wide)
        if len(content) != (high - low) * wide:
            raise CorruptFile(place, f"of {shape[0]} rows of '{name}'", "it ends before them", do=REMEDY)
        return torch.from_numpy(content).view(dtype).reshape(high - low, *shape[1:])

    # --- names ----------------------------------------------------------------------------------------------

    def _counts(self, site: str) -> list[tuple[int, int]]:
        rows = self.sites[site].rows
        return [(shard, self.receipts[shard].rows[rows]) for shard in sorted(self.receipts)]

    def _kept(self, site: str) -> Kept:
        if site not in self.sites:
            raise UnknownName("site", site, self.sites, where=f"in the harvest '{self.folder}'")
        return self.sites[site]

    def _named(self, sites: str | Sequence[str]) -> list[str]:
        texts = [sites] if isinstance(sites, str) else list(sites)
        names = list(selected(texts, list(self.sites), kind="site", where=f"the harvest '{self.folder}'"))
        if not names:
            raise BadValue("sites", texts, "at least one")
        if len(kinds := sorted({self.sites[name].rows for name in names})) > 1:
            raise BadValue("sites", names, f"of the same rows, and these are of {kinds}: one has no row for another's")
        return names


def _windows(
    blocks: list[tuple[int, int, int]], rng: np.random.Generator, buffer: int
) -> Iterator[tuple[list[tuple[int, int, int]], np.ndarray]]:
    """Blocks in a random order, as many as ``buffer`` rows take (at least one), and an order of their rows."""
    order = rng.permutation(len(blocks))
    window: list[tuple[int, int, int]] = []
    count = 0
    for number in itertools.chain(order.tolist(), [None]):
        size = 0 if number is None else blocks[number][2] - blocks[number][1]
        if window and (number is None or count + size > buffer):
            yield window, rng.permutation(count)
            window, count = [], 0
        if number is not None:
            window.append(blocks[number])
            count += size


def _joined(parts: Sequence[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    at = {name: torch.cat([part.at[name] for part in parts]) for name in parts[0].at}
    return Rows(at, *(torch.cat([getattr(part, column) for part in parts]) for column in COLUMNS))
