"""What a harvest reads: items by number, a few at a time, each with the positions that count.

``TokenCorpus`` and ``TextCorpus`` are for models of one stream of tokens; ``BatchCorpus`` takes the rows that any family trains on.
Nothing here holds activations, and items are made when they are asked for, so a corpus may be larger than memory where what it is
given (a file that is mapped, a list that reads as it goes) is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.core.batch import IGNORE, EncoderBatch, PairBatch, RowData, SequenceBatch, TokenBatch
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel
from workbench.engine.tokens import context_length, tokenizer_of


@dataclass(frozen=True)
class Given:
    """What one pass is given. By stack ('' for the only one): ``real`` is true at positions that are kept (a stack that is not named
    keeps all), ``ids`` their token ids. ``cut`` counts the items that were longer than what is read of them."""

    batch: Any
    real: Mapping[str, Bool[Tensor, "batch _"]] = field(default_factory=dict)
    ids: Mapping[str, Int[Tensor, "batch _"]] = field(default_factory=dict)
    cut: int = 0


@runtime_checkable
class Corpus(Protocol):
    """Items numbered from 0, the same whenever they are asked for."""

    def __len__(self) -> int: ...
    def digest(self) -> str:
        """sha256 (hex) of everything that decides what is read."""
        ...

    def lengths(self, items: Sequence[int]) -> Sequence[int]:
        """Positions of each item, so that those of like length share a pass."""
        ...

    def given(self, items: Sequence[int]) -> Given: ...


class TokenCorpus:
    """Rows of token ids of any lengths, padded on the right for a pass.

    ``leave_out``: ids whose positions are read but not kept, such as BOS. ``length``: more than so many tokens of an item are an error,
    or with ``cut`` are not read and counted; None is the model's context.
    """

    def __init__(
        self,
        model: HookedModel,
        rows: Sequence[Sequence[int]] | Sequence[str],
        *,
        length: int | None = None,
        cut: bool = False,
        leave_out: Collection[int] = (),
    ) -> None:
        if len(rows) == 0:
            raise BadValue("the corpus", "empty", "at least one item")
        self.model, self.rows, self.cut, self.leave_out = model, rows, cut, sorted(leave_out)
        context = context_length(model)
        if length is not None and (length < 1 or (context is not None and length > context)):
            raise BadValue("length", length, f"from 1 to {context if context is not None else '…'}, the model's context")
        self.length = length if length is not None else context
        self._found: dict[int, tuple[list[int], bool]] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def digest(self) -> str:
        whole = hashlib.sha256(repr((type(self).__name__, self.length, self.cut, self.leave_out)).encode())
        for number in range(len(self.rows)):
            whole.update(hashlib.sha256(self._content(number)).digest())
        return whole.hexdigest()

    def lengths(self, items: Sequence[int]) -> list[int]:
        self._found = {number: self._item(number) for number in items}  # read once: `given` asks for the same ones next
        return [len(self._found[number][0]) for number in items]

    def given(self, items: Sequence[int]) -> Given:
        rows = [self._found[number] if number in self._found else self._item(number) for number in items]
        width = max(len(ids) for ids, _ in rows)
        ids, real = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.bool)
        for row, (found, _) in enumerate(rows):
            ids[row, : len(found)], real[row, : len(found)] = torch.tensor(found), True
        size = getattr(self.model.config, "d_vocab", None)
        if int(ids.min()) < 0 or (size is not None and int(ids.max()) >= size):
            wrong = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
            raise BadValue("a token id of the corpus", wrong, f"from 0 to {size - 1 if size is not None else '…'}")
        padded = getattr(self.model, "padded", None)
        batch = padded(ids, real) if padded is not None else ids
        kept = real & ~torch.isin(ids, torch.tensor(self.leave_out)) if self.leave_out else real
        return Given(batch, {"": kept}, {"": ids}, sum(cut for _, cut in rows))

    def _content(self, number: int) -> bytes:
        return repr(list(map(int, self.rows[number]))).encode()

    def _ids(self, number: int) -> list[int]:
        return list(map(int, self.rows[number]))

    def _item(self, number: int) -> tuple[list[int], bool]:
        ids = self._ids(number)
        if not ids:
            raise BadValue(f"item {number} of the corpus", "without tokens", "of at least one token")
        over = self.length is not None and len(ids) > self.length
        if over and not self.cut:
            raise BadValue(
                f"the length of item {number} of the corpus", len(ids), f"at most {self.length} tokens",
                do="Cut it into shorter items, or allow items to be cut, which is counted.",
            )  # fmt: skip
        return (ids[: self.length], True) if over else (ids, False)


class TextCorpus(TokenCorpus):
    """Texts, encoded when they are read, with a BOS before each (or the control tokens of the tokenizer's template) where ``bos``; the
    rows of control tokens are kept only with ``control``."""

    def __init__(
        self,
        model: HookedModel,
        texts: Sequence[str],
        *,
        bos: bool = True,
        control: bool = True,
        length: int | None = None,
        cut: bool = False,
    ) -> None:
        self.tokenizer: Any = tokenizer_of(model)
        named = (self.tokenizer.bos_id, self.tokenizer.eos_id, self.tokenizer.pad_id, *getattr(self.tokenizer, "control_ids", ()))
        self.special = sorted({i for i in named if i is not None})
        self.texts, self.bos = texts, bos
        super().__init__(model, texts, length=length, cut=cut, leave_out=() if control else self.special)

    def digest(self) -> str:
        return hashlib.sha256(f"{super().digest()}:{self.bos}:{self.tokenizer.digest()}".encode()).hexdigest()

    def _content(self, number: int) -> bytes:
        return self.texts[number].encode("utf-8", "surrogatepass")

    def _ids(self, number: int) -> list[int]:
        ids = list(self.tokenizer.encode(self.texts[number]))
        if made := sorted(set(self.special).intersection(ids)):
            raise BadValue(f"item {number} of the corpus", self.texts[number][:40], f"encoded without control tokens, and it made {made}")
        if not ids or not self.bos:
            return ids
        if self.tokenizer.bos_id is not None:
            return [self.tokenizer.bos_id, *ids]
        framed = getattr(self.tokenizer, "framed", None)
        return framed(ids)[0] if framed is not None else ids


class BatchCorpus:
    """Rows that a family trains on, in the family's own batch type; padding is found as that type tells it."""

    def __init__(self, model: HookedModel, rows: RowData) -> None:
        if len(rows) == 0:
            raise BadValue("the corpus", "empty", "at least one item")
        self.model, self.rows = model, rows

    def __len__(self) -> int:
        return len(self.rows)

    def digest(self) -> str:
        return self.rows.digest()

    def lengths(self, items: Sequence[int]) -> list[int]:
        return [1] * len(items)  # not known before they are made: they stay in their order

    def given(self, items: Sequence[int]) -> Given:
        batch = self.rows.batch(items)
        return Given(batch, *positions_of(self.model, batch))


def positions_of(model: HookedModel, batch: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Which positions of each stack are real, and their token ids, of a family's batch; a stack that is not named is all real.

    What a decoder reads is real up to the last position that has a target; patches and frames of a picture or sound without a mask are.
    """
    if isinstance(batch, TokenBatch):
        return {}, {"": batch.tokens}
    if isinstance(batch, EncoderBatch):
        return ({} if batch.mask is None else {"": batch.mask}), {"": batch.tokens}
    if isinstance(batch, SequenceBatch):
        real = {} if batch.mask is None else {"encoder": batch.mask}
        ids = {"": batch.tokens, "decoder": batch.tokens}
        if batch.targets is not None:
            asked = (batch.targets != IGNORE).flip(1).cumsum(1).flip(1) > 0  # a target here or later
            real |= {"decoder": asked, "": asked}
        return real, ids | ({"encoder": batch.source} if batch.source.ndim == 2 else {})
    if isinstance(batch, PairBatch) and (whole := getattr(model, "sequence", None)) is not None:  # text and patches in one stream
        tokens = whole(batch).tokens
        real = torch.ones_like(tokens, dtype=torch.bool)
        if batch.mask is not None:
            real[:, : batch.mask.shape[1]] = batch.mask
        return {"": real}, {"": tokens}
    tokens, mask = getattr(batch, "tokens", None), getattr(batch, "mask", None)
    return ({} if mask is None else {"text": mask}), ({} if tokens is None else {"text": tokens})
