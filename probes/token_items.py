"""What every token instrument reads first: ids, lengths, pieces and control tokens, checked once.

Positions are those of the batch as it is run, a BOS included. Text gets a BOS only where the spec says so, and the
result records whether it did: a BOS put in without a word shifts every position by one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.core.batch import TokenBatch
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel, Inputs, Tokenizer
from workbench.core.result import Provenance


@dataclass(frozen=True)
class TokenItems:
    """A right-padded batch of token sequences.

    ``control`` is true at BOS, EOS and padding ids; ``pieces`` ``[batch, pos]`` holds each token's text ('' past the end).
    """

    ids: Int[Tensor, "batch pos"]
    lengths: Int[Tensor, "batch"]
    control: Bool[Tensor, "batch pos"]
    pieces: np.ndarray
    bos_added: bool
    framed: bool = False

    @property
    def added(self) -> str:
        """What was put around the texts, in a sentence."""
        if self.bos_added:
            return "A BOS was put before each text."
        if self.framed:
            return "The tokenizer's control tokens were put around each text."
        return "No BOS was added: positions are those of the ids given."

    @property
    def real(self) -> Bool[Tensor, "batch pos"]:
        """True at real tokens, false at padding."""
        return torch.arange(self.ids.shape[1]) < self.lengths[:, None]

    @property
    def width(self) -> int:
        """Positions of the longest item."""
        return self.ids.shape[1]

    def given(self, model: HookedModel, part: slice, device: torch.device) -> Any:
        """What a run of the items in ``part`` is given: the model says how it wants padding told."""
        ids, real = self.ids[part].to(device), self.real[part].to(device)
        padded = getattr(model, "padded", None)
        return padded(ids, real) if padded is not None else ids

    def data(self) -> dict[str, Any]:
        """What determines the items, for a provenance."""
        return {"ids": self.ids, "lengths": self.lengths}

    def __len__(self) -> int:
        return self.ids.shape[0]


def read_items(model: HookedModel, inputs: Inputs, *, bos: bool = True) -> TokenItems:
    """The batch of ``inputs`` as ids. ``bos`` concerns text only: ids are taken as they are. Where a tokenizer has no BOS but a template
    that puts control tokens around a text (``framed``), ``bos`` asks for that.

    Raises BadValue for an empty batch, ids outside the vocabulary, a context too long, lengths that do not fit, padding
    without lengths, several segments in a row, and text a tokenizer turns into a control token.
    """
    tokenizer = model.tokenizer
    given, lengths = inputs.batch, inputs.lengths
    bos_added = framed = False
    if isinstance(given, str) or (isinstance(given, Sequence) and len(given) > 0 and all(isinstance(g, str) for g in given)):
        if tokenizer is None:
            raise BadValue("inputs.batch", "text", "token ids, since this model has no tokenizer")
        if lengths is not None:
            raise BadValue("inputs.lengths", "given", "left out for text, whose lengths the tokenizer decides")
        bos_added = bos and tokenizer.bos_id is not None
        framed = bos and not bos_added and hasattr(tokenizer, "framed")
        ids, lengths = _encode_all(tokenizer, [given] if isinstance(given, str) else list(given), bos_added, bos)
    else:
        ids = _ids(given)
        lengths = _lengths(ids, lengths, tokenizer)
    _check_ids(model, ids)
    special = control_ids(tokenizer)
    control = torch.isin(ids, torch.tensor(special, dtype=ids.dtype)) if special else torch.zeros_like(ids, dtype=torch.bool)
    return TokenItems(ids, lengths, control, _pieces(tokenizer, ids, lengths), bos_added, framed)


def control_ids(tokenizer: Tokenizer | None) -> list[int]:
    """The ids no user text may become: BOS, EOS and padding, as far as the tokenizer has them."""
    if tokenizer is None:
        return []
    more = getattr(tokenizer, "control_ids", ())
    return sorted({i for i in (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, *more) if i is not None})


def vocabulary_size(model: HookedModel) -> int | None:
    """``d_vocab`` of the model's config, or None where the config does not say."""
    return getattr(model.config, "d_vocab", None)


def slices(n: int, rows: int) -> Iterator[slice]:
    """``range(n)`` cut into consecutive slices of at most ``rows``."""
    for start in range(0, n, rows):
        yield slice(start, min(n, start + rows))


def rows_a_pass(tokens_a_pass: int, width: int) -> int:
    """How many rows of ``width`` tokens one forward pass takes under the token budget; at least one."""
    return max(1, tokens_a_pass // max(1, width))


def origin(model: HookedModel, *, seed: int | None, dtype: torch.dtype, **data: Any) -> Provenance:
    """Provenance of a result on ``model``; ``data`` are the arrays that determine it, hashed together in name order."""
    digest = hashlib.sha256()
    for name in sorted(data):
        value = data[name]
        if value is None:
            continue
        array = np.ascontiguousarray(value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value))
        body = repr(array.tolist()).encode() if array.dtype.kind in "OUS" else array.tobytes()
        digest.update(f"{name}:{array.dtype.str if array.dtype.kind != 'O' else 'O'}:{array.shape}:".encode() + body)
    return Provenance.here(
        model=model.family, model_digest=model.digest(), data_digest=digest.hexdigest(), seed=seed, dtype=str(dtype).removeprefix("torch.")
    )


# --- reading ------------------------------------------------------------------------------------------------


def _encode_all(tokenizer: Tokenizer, texts: Sequence[str], bos: bool, frame: bool) -> tuple[Tensor, Tensor]:
    special = set(control_ids(tokenizer))
    rows = []
    for number, text in enumerate(texts):
        ids = list(tokenizer.encode(text))
        if found := sorted(special.intersection(ids)):
            raise BadValue(
                f"text {number} of inputs.batch", text[:40], f"encoded without control tokens, and this tokenizer made {found} of it"
            )
        if not ids:
            raise BadValue(f"text {number} of inputs.batch", text, "of at least one token")
        framed = getattr(tokenizer, "framed", None)
        if bos:
            ids = [tokenizer.bos_id, *ids]
        elif frame and framed is not None:
            ids = framed(ids)[0]
        rows.append(ids)
    width = max(map(len, rows))
    fill = tokenizer.pad_id if tokenizer.pad_id is not None else 0
    padded = torch.tensor([row + [fill] * (width - len(row)) for row in rows])
    return padded, torch.tensor([len(row) for row in rows])


def _ids(given: Any) -> Tensor:
    if isinstance(given, TokenBatch):
        if given.segments is not None and bool((given.segments != given.segments[:, :1]).any()):
            raise BadValue("inputs.batch", "rows of several segments", "one sequence a row, so that positions mean something")
        given = given.tokens
    ids = given if isinstance(given, Tensor) else torch.as_tensor(given) if isinstance(given, list | tuple | np.ndarray) else None
    if ids is None:
        raise BadValue("inputs.batch", type(given).__name__, "token ids [batch, pos], text, or a list of texts")
    if ids.ndim != 2 or ids.numel() == 0:
        raise BadValue("the shape of inputs.batch", tuple(ids.shape), "[batch, pos] with at least one item and one token")
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise BadValue("the dtype of inputs.batch", str(ids.dtype), "an integer dtype: these are token ids")
    return ids.detach().long().cpu()


def _lengths(ids: Tensor, lengths: Tensor | None, tokenizer: Tokenizer | None) -> Tensor:
    batch, width = ids.shape
    if lengths is None:
        pad = tokenizer.pad_id if tokenizer is not None else None
        if pad is not None and bool((ids == pad).any()):
            raise BadValue("inputs.lengths", None, f"given, because the batch holds the padding id {pad}")
        return torch.full((batch,), width)
    lengths = torch.as_tensor(lengths).long().cpu()
    if lengths.shape != (batch,) or int(lengths.min()) < 1 or int(lengths.max()) > width:
        raise BadValue("inputs.lengths", lengths.tolist(), f"{batch} counts from 1 to {width}, one an item")
    return lengths


def _check_ids(model: HookedModel, ids: Tensor) -> None:
    size = vocabulary_size(model)
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or (size is not None and high >= size):
        raise BadValue("a token id of inputs.batch", low if low < 0 else high, f"from 0 to {size - 1 if size is not None else '…'}")
    context = getattr(model.config, "n_ctx", None)
    if context is not None and ids.shape[1] > context:
        raise BadValue("the length of inputs.batch", ids.shape[1], f"at most the model's context of {context} tokens")


def _pieces(tokenizer: Tokenizer | None, ids: Tensor, lengths: Tensor) -> np.ndarray:
    out = np.full(tuple(ids.shape), "", dtype=object)
    for row, length in enumerate(lengths.tolist()):
        chosen = ids[row, :length].tolist()
        out[row, :length] = tokenizer.pieces(chosen) if tokenizer is not None else [str(i) for i in chosen]
    return out
