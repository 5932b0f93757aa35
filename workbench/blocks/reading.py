"""What an encoder was given, checked and made ready: tokens with their sentence types and padding, or a residual.

Text is read as the tokenizer frames it (its begin and separator tokens, where it has any) and padded on the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.blocks.inputs import Limits, Passage, check_tokens, given_mask, given_positions, given_residual
from workbench.blocks.mask import AttentionMask, attention_mask, narrowed
from workbench.blocks.sparse import Pattern, Sparse
from workbench.core.batch import EncoderBatch
from workbench.core.errors import BadValue
from workbench.core.protocol import Resume, Tokenizer

ALLOWED = "token ids [batch, pos], an EncoderBatch, a text, a list of texts or a list of pairs of texts"


@runtime_checkable
class Framing(Protocol):
    """A tokenizer that knows what a model expects around a text, or a pair of texts."""

    def framed(self, ids: Sequence[int], second: Sequence[int] | None = None) -> tuple[list[int], list[int]]:
        """The ids with control tokens around them, and the sentence type of each."""
        ...


@dataclass(frozen=True)
class Reading(Passage):
    """A pass of an encoder. ``types`` are None where the run starts from a residual; ``valid`` is true at real tokens (None: all)."""

    types: Int[Tensor, "batch pos"] | None
    valid: Bool[Tensor, "_rows pos"] | None


def reading(
    batch: Any,
    resume: Resume,
    limits: Limits,
    *,
    n_types: int,
    tokenizer: Tokenizer | None,
    like: Tensor,
    pattern: Pattern | None = None,
) -> Reading:
    """Read what ``run`` was given; ``like`` is any weight of the model (its device and dtype are the model's), ``pattern`` what of a row
    its attention sees (None: all; counted as ``blocks.inputs.passage`` says).

    ``batch`` may be None where ``resume.start`` begins elsewhere; an EncoderBatch or text given there still says what is padding.
    ``resume.mask`` replaces the rule that every token sees every real one, and is combined with the padding. Raises BadValue.
    """
    given = _read(batch, tokenizer).to(like.device) if batch is not None else None
    if given is None and resume.start is None:
        raise BadValue("the batch", None, ALLOWED)
    if given is not None:
        _check(given, limits.d_vocab, n_types)
    residual = given_residual(resume, given.tokens if given is not None else None, limits, like)
    shaped = residual if residual is not None else given.tokens if given is not None else None
    assert shaped is not None, "a run has tokens or a residual"
    rows, length = shaped.shape[:2]
    positions = given_positions(resume.positions, rows, length, 0, limits, like.device)
    valid = given.mask if given is not None else None
    if valid is not None and bool(valid.all()):
        valid = None  # nothing is padding: the kernel needs no mask
    allowed = given_mask(resume.mask, rows, length, length, like.device)
    if pattern is None or allowed is not None or resume.positions is not None:
        mask = attention_mask(length, 0, like.device, causal=False, valid=valid, given=allowed)
        mask = mask if pattern is None else narrowed(mask, pattern, positions, 0, length)
    else:
        mask = AttentionMask(sparse=Sparse(pattern, 0, False, valid=valid))
    tokens, types = (None, None) if given is None or residual is not None else (given.tokens, given.types)
    if tokens is not None and types is None:
        types = torch.zeros_like(tokens)
    return Reading(tokens, residual, positions, mask, None, _lengths(valid, rows), types, valid)


def _lengths(valid: Tensor | None, rows: int) -> tuple[int, ...] | None:
    """For each row, the place after its last real token."""
    if valid is None:
        return None
    last = (valid * torch.arange(1, valid.shape[1] + 1, device=valid.device)).amax(1)
    return tuple(int(v) for v in last.expand(rows))


def _read(batch: Any, tokenizer: Tokenizer | None) -> EncoderBatch:
    if isinstance(batch, EncoderBatch):
        return batch
    if isinstance(batch, Tensor):
        return EncoderBatch(batch)
    texts = [batch] if isinstance(batch, str) else batch
    if not isinstance(texts, list | tuple) or not texts or not all(isinstance(text, str) or _is_pair(text) for text in texts):
        raise BadValue("the batch", type(batch).__name__, ALLOWED)
    if tokenizer is None:
        raise BadValue("the batch", "text", "token ids: this model has no tokenizer")
    rows = [_framed(text, tokenizer) for text in texts]
    lengths = [len(ids) for ids, _ in rows]
    if min(lengths) == 0:
        raise BadValue("a text", texts[lengths.index(0)], "at least one token long")
    width, pad = max(lengths), tokenizer.pad_id
    if pad is None and min(lengths) < width:
        raise BadValue("the lengths of the texts", lengths, "equal: this tokenizer has no padding token")
    ids = torch.tensor([row + [pad or 0] * (width - len(row)) for row, _ in rows])
    types = torch.tensor([row + [0] * (width - len(row)) for _, row in rows])
    return EncoderBatch(ids, mask=torch.arange(width) < torch.tensor(lengths).unsqueeze(1), types=types)


def _is_pair(text: Any) -> bool:
    return isinstance(text, list | tuple) and len(text) == 2 and all(isinstance(part, str) for part in text)


def _framed(text: Any, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    parts = [tokenizer.encode(part) for part in ([text] if isinstance(text, str) else text)]
    if isinstance(tokenizer, Framing):
        return tokenizer.framed(*parts)
    if len(parts) > 1:
        raise BadValue("a text", text, "one text: this tokenizer does not say how two are joined")
    return parts[0], [0] * len(parts[0])


def _check(given: EncoderBatch, d_vocab: int, n_types: int) -> None:
    check_tokens(given.tokens, d_vocab)
    shape = tuple(given.tokens.shape)
    if given.mask is not None:
        if given.mask.dtype != torch.bool or tuple(given.mask.shape) != shape:
            raise BadValue("the batch's mask", f"{tuple(given.mask.shape)} {given.mask.dtype}", f"bool {shape}, true at real tokens")
        if not bool(given.mask.any(1).all()):
            row = int((~given.mask.any(1)).nonzero()[0])
            raise BadValue(f"the batch's mask of row {row}", "all padding", "true at one token or more")
    if given.types is not None:
        types = given.types
        if types.is_floating_point() or types.is_complex() or types.dtype == torch.bool or tuple(types.shape) != shape:
            raise BadValue("the batch's types", f"{tuple(types.shape)} {types.dtype}", f"integers {shape}")
        low, high = (int(v) for v in torch.aminmax(types))
        if low < 0 or high >= n_types:
            raise BadValue("a sentence type", low if low < 0 else high, f"within 0 to {n_types - 1}, the model's types")
