"""Rows with some tokens hidden, to be guessed from the others on both sides: the masked-token objective of BERT.

Of each row's text tokens a share is chosen (15 %, at least one). Of the chosen, 80 % are shown as the mask, 10 % as a random token, 10 %
as they are; only the chosen are predicted. Devlin et al., "BERT: pre-training of deep bidirectional transformers for language
understanding" (NAACL 2019), section 3.1 and appendix A.1. A row is masked anew each time it is shown: Liu et al., "RoBERTa" (2019),
section 4.1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from workbench.core.batch import IGNORE, EncoderBatch
from workbench.core.errors import BadValue
from workbench.data.counter import key_of, mixed_array
from workbench.data.pretrained import PretrainedTokenizer

SHARE, AS_MASK, AS_RANDOM = 0.15, 0.8, 0.1
Ids = Sequence[int] | np.ndarray


@dataclass(frozen=True)
class Masking:
    """How rows are masked. ``share`` of the text tokens is chosen; of these ``as_mask`` show the mask and ``as_random`` a token drawn
    from all ordinary ones. Raises BadValue for shares outside 0 to 1."""

    share: float = SHARE
    as_mask: float = AS_MASK
    as_random: float = AS_RANDOM

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise BadValue("the share of masked tokens", self.share, "above 0 and at most 1")
        if self.as_mask < 0 or self.as_random < 0 or self.as_mask + self.as_random > 1:
            raise BadValue("as_mask and as_random", (self.as_mask, self.as_random), "at least 0 each and at most 1 together")


class MaskedRows:
    """Rows of token ids to be guessed in part (a ``RowData`` of ``EncoderBatch``).

    ``rows`` are framed ids; control tokens and unknown words are never chosen. Row number r is ``rows[r % n]``, masked by a draw from
    (seed, r) alone: with ``count`` above n the same text comes again under another mask, and a training that is continued reads what an
    unbroken one reads. Raises BadValue for no rows, a row without text, or a tokenizer without mask or padding.
    """

    def __init__(
        self, rows: Sequence[Ids], tokenizer: PretrainedTokenizer, *, seed: int, count: int | None = None, masking: Masking | None = None
    ) -> None:
        mask, pad = tokenizer.mask_id, tokenizer.pad_id
        if mask is None or pad is None:
            raise BadValue("the tokenizer's roles", sorted(tokenizer.roles), "with mask and pad among them")
        self._mask, self._pad, self._seed, self.masking = mask, pad, seed, masking or Masking()
        odd = [*tokenizer.control_ids, tokenizer.roles.get("unk", mask)]  # what is unknown is not to be guessed
        self._ordinary = np.setdiff1d(np.arange(tokenizer.vocab_size), odd)
        self._rows = [np.asarray(row, dtype=np.int64) for row in rows]
        self._text = [np.flatnonzero(~np.isin(row, odd)) for row in self._rows]
        if not self._rows or min(map(len, self._text)) == 0:
            raise BadValue("the rows", f"{len(self._rows)}", "at least one, each with at least one token of text")
        self._count = len(self._rows) if count is None else count
        if self._count < 1:
            raise BadValue("count", count, "at least 1")
        self._source = tokenizer.digest()

    @classmethod
    def of(
        cls, texts: Sequence[str], tokenizer: PretrainedTokenizer, *, seed: int, count: int | None = None, masking: Masking | None = None
    ) -> MaskedRows:
        """Rows of texts, each in the tokenizer's frame."""
        rows = [tokenizer.framed(ids)[0] for ids in tokenizer.encode_batch(texts)]
        return cls(rows, tokenizer, seed=seed, count=count, masking=masking)

    def __len__(self) -> int:
        return self._count

    @property
    def longest(self) -> int:
        """The most positions of a row."""
        return max(map(len, self._rows))

    @property
    def mask_id(self) -> int:
        """The id that hides a token."""
        return self._mask

    def whole(self, number: int) -> np.ndarray:
        """The ids of row ``number`` before it is masked."""
        return self._rows[number % len(self._rows)]

    def masked(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Row ``number``: the ids shown, and the targets (``IGNORE`` where nothing is predicted)."""
        row, text = self.whole(number), self._text[number % len(self._rows)]
        drawn = mixed_array(key_of("masked", self._seed, number), np.arange(3 * len(text), dtype=np.uint64)).reshape(3, -1)
        chosen = np.argsort(drawn[0], kind="stable")[: max(1, round(self.masking.share * len(text)))]
        places, kind = text[chosen], drawn[1, chosen] / 2.0**64
        other = self._ordinary[drawn[2, chosen] % np.uint64(len(self._ordinary))]
        shown, targets = row.copy(), np.full(len(row), IGNORE)
        targets[places] = row[places]
        as_mask, as_random = self.masking.as_mask, self.masking.as_random
        shown[places] = np.where(kind < as_mask, self._mask, np.where(kind < as_mask + as_random, other, row[places]))
        return shown, targets

    def batch(self, indices: Sequence[int]) -> EncoderBatch:
        """The rows ``indices``, as wide as the longest of them."""
        numbers = [int(i) for i in indices]
        if not numbers or min(numbers) < 0 or max(numbers) >= len(self):
            raise BadValue("row indices", numbers[:8], f"non-empty and within 0 to {len(self) - 1}")
        return side_by_side([self.masked(number) for number in numbers], self._pad)

    def digest(self) -> str:
        """sha256 (hex) over the tokenizer, all rows, how many are shown and how they are masked."""
        whole = hashlib.sha256(f"masked {self._source} {self._seed} {self._count} {self.masking}".encode())
        for row in self._rows:
            whole.update(len(row).to_bytes(4, "little") + row.astype("<i4").tobytes())
        return whole.hexdigest()


def side_by_side(rows: Sequence[tuple[Ids, Ids]], pad: int) -> EncoderBatch:
    """Rows of ids, each with as many targets, as one batch: filled up with ``pad`` and ``IGNORE``, masked where that was needed."""
    width = max(len(ids) for ids, _ in rows)
    tokens, targets = np.full((len(rows), width), pad), np.full((len(rows), width), IGNORE)
    for at, (ids, wanted) in enumerate(rows):
        tokens[at, : len(ids)], targets[at, : len(ids)] = ids, wanted
    real = np.arange(width) < np.array([len(ids) for ids, _ in rows])[:, None]
    return EncoderBatch(torch.from_numpy(tokens), torch.from_numpy(targets), None if real.all() else torch.from_numpy(real))
