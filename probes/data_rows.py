"""What a model was trained on, as an instrument is given it: rows, the checkpoints of the training, and which step read which row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probes.token_items import control_ids, read_items
from workbench.core.batch import IGNORE, Batch, RowData, TokenBatch
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel, Inputs

AT_ONCE = 256
"""Rows that are made at a time."""


@dataclass(frozen=True)
class Trained:
    """For ``inputs.reference``: the ``rows`` of a training (a ``RowData``, a batch of the family's type, ids, texts, or ``Inputs``), its
    ``checkpoints`` as (model, learning rate) in the order of the steps, without the final model, and the learning rate of that (``rate``).

    ``steps``: the step that first read a row, by row number, where that is known.
    """

    rows: Any
    checkpoints: Sequence[tuple[Any, float]] = ()
    rate: float = 1.0
    steps: Mapping[int, int] = field(default_factory=dict)

    def digest(self) -> str:
        """sha256 (hex) of the rows, the checkpoints and their rates."""
        given = self.rows
        if isinstance(given, Batch) or _is_rows(given):
            said = _digest(given)
        else:
            ids, lengths = (given.batch, given.lengths) if isinstance(given, Inputs) else (given, None)
            said = tuple(str(one.tolist() if isinstance(one, Tensor | np.ndarray) else one) for one in (ids, lengths))
        whole = (said, tuple((model.digest(), rate) for model, rate in self.checkpoints), self.rate)
        return hashlib.sha256(repr(whole).encode()).hexdigest()


@dataclass(frozen=True)
class Rows:
    """The training rows asked about: their numbers in the training data, in order, and how to make them."""

    source: Batch | RowData
    numbers: tuple[int, ...]
    total: int
    digest: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    def batches(self) -> Iterator[Any]:
        """The rows in order, at most ``AT_ONCE`` at a time."""
        for start in range(0, len(self), AT_ONCE):
            some = self.numbers[start : start + AT_ONCE]
            yield self.source.rows(list(some)) if isinstance(self.source, Batch) else self.source.batch(some)

    def each(self) -> Iterator[Any]:
        """Every row as a batch of one."""
        left = len(self)
        for batch in self.batches():
            for place in range(min(AT_ONCE, left)):
                yield batch.rows([place])
            left -= AT_ONCE


def read_trained(given: Any) -> Trained:
    """``inputs.reference`` as a ``Trained``: rows alone are those of a training of which only the final model is known."""
    trained = given if isinstance(given, Trained) else Trained(given)
    for number, (_, rate) in enumerate([*trained.checkpoints, (None, trained.rate)]):
        if not (np.isfinite(rate) and rate >= 0):
            raise BadValue(f"the learning rate of checkpoint {number}", rate, "a finite number, at least 0")
    return trained


def read_rows(model: HookedModel, given: Any, most: int, seed: int, bos: bool) -> Rows:
    """At most ``most`` rows, beyond it a random sample. Raises BadValue for what is no rows, and for none."""
    source = given if isinstance(given, Batch) or _is_rows(given) else _next_tokens(model, given, bos)
    count = _length(source)
    if count == 0:
        raise BadValue("the training rows", "none", "at least one")
    chosen = range(count) if count <= most else sorted(np.random.default_rng([seed, 5]).choice(count, most, replace=False).tolist())
    return Rows(source, tuple(chosen), count, _digest(source))


def _is_rows(given: Any) -> bool:
    return isinstance(given, RowData) and not isinstance(given, Tensor)


def _length(source: Batch | RowData) -> int:
    if isinstance(source, Batch):
        return len(next(value for value in vars(source).values() if value is not None))
    return len(source)


def _next_tokens(model: HookedModel, given: Any, bos: bool) -> TokenBatch:
    """Ids or texts as rows whose every token is predicted from those before it."""
    if getattr(model, "both_ways", False):
        raise BadValue("inputs.reference", type(given).__name__, "rows of the family's batch type, with what is predicted of each: this "
                       "model does not predict the next token")  # fmt: skip
    if isinstance(given, HookedModel):
        raise BadValue("inputs.reference", "a model", "training rows, or a Trained with rows and checkpoints")
    items = read_items(model, given if isinstance(given, Inputs) else Inputs(given), bos=bos)
    ahead = torch.where(items.real, items.ids, IGNORE)[:, 1:]
    return TokenBatch(items.ids, torch.cat([ahead, torch.full((len(items), 1), IGNORE)], 1))


def _digest(source: Batch | RowData) -> tuple[str, ...]:
    if not isinstance(source, Batch):
        return (source.digest(),)
    named = [(one.name, getattr(source, one.name)) for one in fields(source)]
    return tuple(f"{name}:{value.dtype}:{value.tolist()}" for name, value in named if value is not None)


def overlap(model: HookedModel, rows: Rows, questions: Sequence[set[int]]) -> np.ndarray:
    """By row, the mean over questions of the share of the question's tokens that the row holds; control tokens count for nothing. NaN for
    rows without tokens: this is what a search for words would find, without any model."""
    special = set(control_ids(model.tokenizer))
    wanted = [one - special for one in questions]
    out = np.full(len(rows), np.nan)
    for number, row in enumerate(rows.each()):
        if isinstance(tokens := getattr(row, "tokens", None), Tensor):
            held = set(tokens.flatten().tolist())
            out[number] = np.mean([len(one & held) / max(1, len(one)) for one in wanted])
    return out


def said(model: HookedModel, row: Any) -> str:
    """A row in words: its text, or its ids where there is no tokenizer; '' where it has no tokens."""
    tokens = getattr(row, "tokens", None)
    if not isinstance(tokens, Tensor):
        return ""
    special = set(control_ids(model.tokenizer))
    ids = [token for token in tokens.flatten().tolist() if token not in special]
    text = model.tokenizer.decode(ids) if model.tokenizer is not None else " ".join(map(str, ids))
    return " ".join(text.split())[:80]
