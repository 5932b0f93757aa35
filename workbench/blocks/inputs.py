"""What a run was given, checked and made ready: tokens or a residual, positions, mask and past; and which logits it asks for.

Every mistake is met here, with the rule it breaks, rather than as an index error inside a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from workbench.blocks.cache import KVCache, Step
from workbench.blocks.forest import forest
from workbench.blocks.mask import AttentionMask, attention_mask, narrowed
from workbench.blocks.ragged import ragged
from workbench.blocks.sparse import Pattern, Sparse
from workbench.core.batch import TokenBatch
from workbench.core.errors import BadValue
from workbench.core.protocol import LogitsAt, Resume, Tokenizer


@runtime_checkable
class Limits(Protocol):
    """The numbers of a config that bound its inputs."""

    @property
    def n_layers(self) -> int: ...
    @property
    def d_model(self) -> int: ...
    @property
    def d_vocab(self) -> int: ...
    @property
    def n_ctx(self) -> int: ...


@runtime_checkable
class Width(Protocol):
    """The width of a config's stream."""

    @property
    def d_model(self) -> int: ...


@dataclass(frozen=True)
class Passage:
    """One pass, ready to run. ``tokens`` is None where the run starts from ``residual``; ``positions`` has one row where all
    rows share them; ``lengths`` are the rows' real tokens where text was padded on the right."""

    tokens: Int[Tensor, "batch pos"] | None
    residual: Float[Tensor, "batch pos d_model"] | None
    positions: Int[Tensor, "rows pos"]
    mask: AttentionMask
    past: KVCache | Step | None
    lengths: tuple[int, ...] | None

    @property
    def shape(self) -> tuple[int, int]:
        """(batch, pos)."""
        given = self.tokens if self.tokens is not None else self.residual
        assert given is not None, "a passage has tokens or a residual"
        return given.shape[0], given.shape[1]


def passage(
    batch: Any, resume: Resume, limits: Limits, *, tokenizer: Tokenizer | None, like: Tensor, pattern: Pattern | None = None
) -> Passage:
    """Read what ``run`` was given; ``like`` is any weight of the model (its device and dtype are the model's), ``pattern`` what of a row
    its attention sees (None: all). A pattern counts tokens along the row, or, where ``resume`` says positions or a mask, by position.

    ``batch`` is ids ``[batch, pos]``, a TokenBatch, or text; it may be None where ``resume.start`` begins elsewhere.
    ``resume.mask`` replaces the causal rule and is combined with the segments of a TokenBatch; positions then come from
    ``resume.positions``. Raises BadValue.
    """
    tokens, segments, positions, lengths = _read(batch, tokenizer) if batch is not None else (None, None, None, None)
    if tokens is None and resume.start is None:
        raise BadValue("the batch", None, "token ids [batch, pos], a TokenBatch or text")
    if tokens is not None:
        check_tokens(tokens, limits.d_vocab)  # before they are moved: a look at what lies on a device waits for it
        tokens, segments = tokens.to(like.device), None if segments is None else segments.to(like.device)
    residual = given_residual(resume, tokens, limits, like)
    rows, length = (tokens if residual is None else residual).shape[:2]  # type: ignore[union-attr]  # one of the two is given
    if resume.parents is not None:
        return _grown(resume, tokens, segments, residual, limits, like, pattern)
    past = _past(resume.past, rows, limits)
    if isinstance(past, Step):
        return _stepped(resume, tokens, past, limits, like, pattern)
    held = past.length if past is not None else 0
    if segments is not None and past is not None:
        raise BadValue("a batch with segments", "together with a past", "without one: the segments of the past are not known")
    positions = given_positions(resume.positions if resume.positions is not None else positions, rows, length, held, limits, like.device)
    allowed = given_mask(resume.mask, rows, length, held + length, like.device)
    moved = resume.mask is not None or resume.positions is not None
    if pattern is None or moved:
        mask = attention_mask(length, held, like.device, segments=segments, given=allowed)
        mask = mask if pattern is None else narrowed(mask, pattern, positions, held, held + length)
    else:
        mask = AttentionMask(sparse=Sparse(pattern, held, True, segments))
    return Passage(tokens if residual is None else None, residual, positions, mask, past, lengths)


def _stepped(resume: Resume, tokens: Tensor | None, past: Step, limits: Limits, like: Tensor, pattern: Pattern | None) -> Passage:
    """One more token of each row of a room."""
    beside = [name for name in ("positions", "mask", "residual") if getattr(resume, name) is not None]
    if tokens is None or tokens.shape[1] != 1 or beside:
        found = f"given with {beside[0]}" if beside else "given with rows that are not one token long"
        raise BadValue("resume.past", found, "alone with one token a row: a room says where each stands")
    positions = given_positions(torch.tensor(past.lengths)[:, None], len(tokens), 1, 0, limits, like.device)
    return Passage(tokens, None, positions, AttentionMask(sparse=ragged(past.lengths, like.device, pattern)), past, None)


def _grown(
    resume: Resume, tokens: Tensor | None, segments: Tensor | None, residual: Tensor | None, limits: Limits, like: Tensor, pattern: Any
) -> Passage:
    """A row of tokens that is a forest of texts."""
    given = tokens if residual is None else residual
    assert resume.parents is not None, "a forest has parents"
    assert given is not None, "a forest has tokens"
    beside = [name for name in ("past", "positions", "mask") if getattr(resume, name) is not None]
    if segments is not None or beside:
        raise BadValue("resume.parents", f"given beside {beside[0] if beside else 'segments'}", "alone: they say where each token stands")
    if tuple(given.shape[:2]) != (1, len(resume.parents)):
        raise BadValue("resume.parents", tuple(resume.parents.shape), f"one for each token of a batch of one row, {tuple(given.shape[:2])}")
    grown = forest(resume.parents, like.device, pattern)
    positions = given_positions(grown.depth[None], 1, given.shape[1], 0, limits, like.device)
    return Passage(tokens if residual is None else None, residual, positions, AttentionMask(sparse=grown), None, None)


def check_tokens(tokens: Tensor, d_vocab: int) -> None:
    """Raise BadValue unless ``tokens`` is a non-empty integer tensor ``[batch, pos]`` of ids within the vocabulary."""
    if tokens.ndim != 2 or tokens.numel() == 0:
        raise BadValue("the shape of the token ids", tuple(tokens.shape), "[batch, pos] with at least one token")
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise BadValue("the dtype of the token ids", str(tokens.dtype), "an integer dtype, such as torch.int64")
    low, high = (int(v) for v in torch.aminmax(tokens))
    if low < 0 or high >= d_vocab:
        raise BadValue("a token id", low if low < 0 else high, f"within 0 to {d_vocab - 1}, the model's vocabulary")


_Parts = tuple[Tensor, Tensor | None, Tensor | None, "tuple[int, ...] | None"]


def _read(batch: Any, tokenizer: Tokenizer | None) -> _Parts:
    if isinstance(batch, TokenBatch):
        return batch.tokens, batch.segments, batch.positions, None
    if isinstance(batch, Tensor):
        return batch, None, None, None
    texts = [batch] if isinstance(batch, str) else batch
    if not isinstance(texts, list | tuple) or not texts or not all(isinstance(text, str) for text in texts):
        raise BadValue("the batch", type(batch).__name__, "token ids [batch, pos], a TokenBatch, a text or a list of texts")
    if tokenizer is None:
        raise BadValue("the batch", "text", "token ids: this model has no tokenizer")
    rows = [tokenizer.encode(text) for text in texts]
    lengths = tuple(len(row) for row in rows)
    if min(lengths) == 0:
        raise BadValue("a text", texts[lengths.index(0)], "at least one token long")
    width = max(lengths)
    pad = tokenizer.pad_id
    if pad is None and min(lengths) < width:
        raise BadValue("the lengths of the texts", lengths, "equal: this tokenizer has no padding token")
    padded = [row + [pad or 0] * (width - len(row)) for row in rows]
    return torch.tensor(padded), None, None, lengths


def given_residual(resume: Resume, tokens: Tensor | None, limits: Width, like: Tensor) -> Tensor | None:
    """The residual to start from, on the model's device; None where the run starts from tokens. Raises BadValue."""
    if (resume.start is None) != (resume.residual is None):
        found = "start without residual" if resume.residual is None else "residual without start"
        raise BadValue("resume", found, "both or neither: where the run begins, and the stream there")
    if resume.residual is None:
        return None
    residual = resume.residual
    if residual.ndim != 3 or residual.shape[2] != limits.d_model or residual.numel() == 0:
        raise BadValue("the shape of resume.residual", tuple(residual.shape), f"[batch, pos, {limits.d_model}] with at least one token")
    if residual.dtype != like.dtype:
        raise BadValue("the dtype of resume.residual", str(residual.dtype), f"{like.dtype}, as the model")
    if tokens is not None and (tokens.shape[1] != residual.shape[1] or tokens.shape[0] not in (1, residual.shape[0])):
        raise BadValue(
            "the shape of resume.residual", tuple(residual.shape), f"that of the batch, {tuple(tokens.shape)} (or give None as batch)"
        )
    return residual.to(like.device)


def _past(past: Any, rows: int, limits: Limits) -> KVCache | Step | None:
    if past is None:
        return None
    if not isinstance(past, KVCache | Step) or len(past.layers) != limits.n_layers:
        raise BadValue("resume.past", type(past).__name__, f"the `past` of a Trace of this model ({limits.n_layers} layers)")
    if past.batch != rows and (past.batch != 1 or isinstance(past, Step)):
        raise BadValue("the rows of resume.past", past.batch, f"1 or {rows}, as the batch")
    return past.expand(rows) if isinstance(past, KVCache) and past.batch != rows else past


def given_positions(given: Tensor | None, rows: int, length: int, held: int, limits: Limits, device: torch.device) -> Tensor:
    """The positions given, or those that follow the ``held`` ones. Raises BadValue where they are outside the context."""
    if given is None:
        if held + length > limits.n_ctx:
            raise BadValue(
                "the number of tokens", held + length, f"at most {limits.n_ctx}, the model's context", do="Nothing is cut short."
            )
        return torch.arange(held, held + length, device=device).unsqueeze(0)
    if (
        given.ndim != 2
        or given.shape[0] not in (1, rows)
        or given.shape[1] != length
        or given.is_floating_point()
        or given.dtype == torch.bool
    ):
        raise BadValue("the positions", f"{tuple(given.shape)} {given.dtype}", f"integers [{rows} or 1, {length}]")
    low, high = (int(v) for v in torch.aminmax(given))
    if low < 0 or high >= limits.n_ctx:
        raise BadValue("a position", low if low < 0 else high, f"within 0 to {limits.n_ctx - 1}, the model's context")
    return given.to(device)


def given_mask(mask: Tensor | None, rows: int, query: int, key: int, device: torch.device) -> Tensor | None:
    """``resume.mask``, checked."""
    if mask is None:
        return None
    if mask.dtype != torch.bool or mask.ndim != 3 or mask.shape[0] not in (1, rows) or tuple(mask.shape[1:]) != (query, key):
        raise BadValue(
            "resume.mask", f"{tuple(mask.shape)} {mask.dtype}", f"bool [{rows} or 1, query {query}, key {key}] (past, then current)"
        )
    return mask.to(device)


# --- which logits -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chosen:
    """The positions whose logits are asked for: all, some columns, or some of each row. ``last``: known to be the last column alone."""

    columns: Int[Tensor, " chosen"] | None = None
    by_row: Int[Tensor, "batch chosen"] | None = None
    last: bool = False

    @property
    def count(self) -> int | None:
        """How many positions of a row; None: all of them."""
        held = self.by_row if self.by_row is not None else self.columns
        return None if held is None else held.shape[-1]

    def take(self, x: Shaped[Tensor, "batch pos *rest"]) -> Shaped[Tensor, "batch chosen *rest"]:
        """The chosen positions of ``x``, in the order asked."""
        if self.by_row is not None:
            return x[torch.arange(len(x), device=x.device).unsqueeze(1), self.by_row]
        return x if self.columns is None else x[:, self.columns]


def chosen(logits: LogitsAt, given: Passage) -> Chosen | None:
    """Read ``run``'s ``logits`` argument; None where none are asked for.

    ``"last"`` keeps the axis (``[batch, 1, d_vocab]``) and is each row's last real token where texts were padded. Positions are a
    list or tensor ``[n]`` (the same for all rows) or a tensor ``[batch, n]``; negative ones count from the end.
    """
    rows, length = given.shape
    device = given.positions.device
    if logits is None:
        return None
    if isinstance(logits, str):
        if logits == "all":
            return Chosen()
        if logits != "last":
            raise BadValue("logits", logits, "'all', 'last', positions or None")
        if given.lengths is not None and min(given.lengths) < length:
            return Chosen(by_row=torch.tensor(given.lengths, device=device).unsqueeze(1) - 1)
        return Chosen(columns=torch.tensor([length - 1], device=device), last=True)
    try:
        where = torch.as_tensor(logits, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise BadValue("logits", logits, "'all', 'last', positions or None") from None
    fits = where.ndim == 1 or (where.ndim == 2 and where.shape[0] == rows)
    if not fits or where.numel() == 0 or where.is_floating_point() or where.dtype == torch.bool:
        raise BadValue("logits", f"{tuple(where.shape)} {where.dtype}", f"integer positions [n] or [{rows}, n], at least one")
    low, high = (int(v) for v in torch.aminmax(where))
    if low < -length or high >= length:
        raise BadValue("a position of logits", high, f"within 0 to {length - 1} (negative ones count from the end)")
    where, last = where.long() % length, where.shape[-1] == 1 and low == high and low % length == length - 1
    return Chosen(columns=where, last=last) if where.ndim == 1 else Chosen(by_row=where, last=last)
