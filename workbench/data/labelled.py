"""Rows of token ids with what is to be said of each: a class of every token, a class of the row, or where an answer begins and ends."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from workbench.core.batch import IGNORE, EncoderBatch
from workbench.core.errors import BadValue

Kind = Literal["token", "sequence", "span"]


class LabelledRows:
    """Rows and their targets (a ``RowData`` of ``EncoderBatch``), for the encoder's head of the same name.

    ``targets``: for ``token`` as many a row as it has tokens (``IGNORE``: not predicted), for ``sequence`` one class a row, for ``span``
    the positions (begin, end) of an answer's first and last token. ``types`` number the text a token belongs to (None: all are of one).
    Shorter rows of a batch are filled with ``pad`` and masked. Raises BadValue for no rows, an empty one, and targets that do not fit.
    """

    def __init__(
        self, kind: Kind, rows: Sequence[Sequence[int]], targets: Sequence[Any], *, pad: int, types: Sequence[Sequence[int]] | None = None
    ) -> None:
        self.kind, self._pad = kind, pad
        self._rows = [np.asarray(row, dtype=np.int64) for row in rows]
        self._types = None if types is None else [np.asarray(row, dtype=np.int64) for row in types]
        self._targets = [np.asarray(target, dtype=np.int64) for target in targets]
        lengths = [len(row) for row in self._rows]
        if not lengths or not min(lengths):
            raise BadValue("the rows", len(lengths), "at least one, each of at least one token")
        if self._types is not None and [len(row) for row in self._types] != lengths:
            raise BadValue("the types", len(self._types), "one a token, for every row")
        shapes = [{"token": (length,), "sequence": (), "span": (2,)}[kind] for length in lengths]
        if len(self._targets) != len(lengths) or [target.shape for target in self._targets] != shapes:
            raise BadValue("the targets", len(self._targets), f"for each of {len(lengths)} rows those of the head '{kind}'")
        if kind == "span" and any(not 0 <= begin <= end < length for (begin, end), length in zip(self._targets, lengths, strict=True)):
            raise BadValue("the targets", "one outside its row", "positions (begin, end) within the row, the end not before the begin")

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def longest(self) -> int:
        """The most positions of a row."""
        return max(map(len, self._rows))

    def batch(self, indices: Sequence[int]) -> EncoderBatch:
        """The rows ``indices``, as wide as the longest of them."""
        numbers = [int(i) for i in indices]
        if not numbers or min(numbers) < 0 or max(numbers) >= len(self):
            raise BadValue("row indices", numbers[:8], f"non-empty and within 0 to {len(self) - 1}")
        lengths = np.array([len(self._rows[i]) for i in numbers])
        real = np.arange(lengths.max()) < lengths[:, None]
        tokens, types = np.full(real.shape, self._pad), np.zeros(real.shape, dtype=np.int64)
        tokens[real] = np.concatenate([self._rows[i] for i in numbers])
        if self._types is not None:
            types[real] = np.concatenate([self._types[i] for i in numbers])
        if self.kind == "token":
            targets = np.full(real.shape, IGNORE)
            targets[real] = np.concatenate([self._targets[i] for i in numbers])
        else:
            targets = np.stack([self._targets[i] for i in numbers])
        mask = None if real.all() else torch.from_numpy(real)
        return EncoderBatch(
            torch.from_numpy(tokens), torch.from_numpy(targets), mask, None if self._types is None else torch.from_numpy(types)
        )

    def digest(self) -> str:
        """sha256 (hex) over the rows, their types and their targets."""
        whole = hashlib.sha256(f"labelled {self.kind} {self._pad} {len(self)}".encode())
        for at, row in enumerate(self._rows):
            types = np.zeros(0, dtype=np.int64) if self._types is None else self._types[at]
            for part in (row, types, self._targets[at]):
                whole.update(part.size.to_bytes(4, "little") + part.astype("<i4").tobytes())
        return whole.hexdigest()
