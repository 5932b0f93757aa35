"""Text as numbers: tokenizers whose control tokens no text can produce, and rows of tokens to train on.

The control tokens have ids of their own after the last ordinary one, and the engine that reads text does not know them: the
literal spelling ``<|eos|>`` in a text becomes ordinary pieces, and there is no parsing step that could be tricked.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tokenizers
import torch
from tokenizers import models, pre_tokenizers, trainers

from workbench.core.batch import IGNORE, TokenBatch
from workbench.core.errors import BadValue, UnknownName
from workbench.core.protocol import Tokenizer
from workbench.core.spec import canonical_json
from workbench.data.counter import key_of, mixed_array
from workbench.data.encoding import BYTE_OF, FORMAT, Span, json_object, stored, utf8
from workbench.data.pretrained import PretrainedTokenizer

CONTROL = ("<|bos|>", "<|eos|>", "<|pad|>")


class BPETokenizer:
    """Byte-level byte-pair encoding (Sennrich et al., ACL 2016; bytes as in GPT-2): every Unicode text, exactly reversible.

    ``tokens`` in id order and ``merges`` in order of priority, both in the byte alphabet. After them come the three control
    tokens: begin, end, padding.
    """

    def __init__(self, tokens: Sequence[str], merges: Sequence[tuple[str, str]]) -> None:
        self._tokens, self._merges = tuple(tokens), tuple((a, b) for a, b in merges)
        vocabulary = {token: i for i, token in enumerate(self._tokens)}
        missing = [b for c, b in BYTE_OF.items() if c not in vocabulary]
        if missing or len(vocabulary) != len(self._tokens):
            raise BadValue("the tokenizer's tokens", f"{len(missing)} bytes missing", "distinct, with all 256 bytes among them")
        self._engine = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=list(self._merges)))
        self._engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        self._bytes = tuple(bytes(BYTE_OF[c] for c in token) for token in self._tokens)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> BPETokenizer:
        """Learn merges from ``texts`` until there are ``vocab_size`` tokens, the three control tokens included, or no pair
        occurs twice. Raises BadValue below 259 (256 bytes and the control tokens)."""
        least = 256 + len(CONTROL)
        if vocab_size < least:
            raise BadValue("vocab_size", vocab_size, f"at least {least}")
        engine = tokenizers.Tokenizer(models.BPE())
        engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - len(CONTROL), min_frequency=2, show_progress=False, special_tokens=[], initial_alphabet=sorted(BYTE_OF)
        )  # fmt: skip
        engine.train_from_iterator(texts, trainer)
        model = json.loads(engine.to_str())["model"]
        return cls(sorted(model["vocab"], key=model["vocab"].__getitem__), [(a, b) for a, b in model["merges"]])

    @property
    def vocab_size(self) -> int:
        """Ordinary and control tokens together."""
        return len(self._tokens) + len(CONTROL)

    @property
    def bos_id(self) -> int:
        return len(self._tokens)

    @property
    def eos_id(self) -> int:
        return len(self._tokens) + 1

    @property
    def pad_id(self) -> int:
        return len(self._tokens) + 2

    def encode(self, text: str, *, bos: bool = False) -> list[int]:
        """The ids of ``text``, after the begin token if ``bos``. Raises BadValue for a lone surrogate."""
        utf8(text)
        return ([self.bos_id] if bos else []) + self._engine.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """``[encode(text) for text in texts]``, in parallel."""
        for text in texts:
            utf8(text)
        return [e.ids for e in self._engine.encode_batch_fast(list(texts), add_special_tokens=False)]

    def offsets(self, text: str) -> tuple[list[int], list[Span]]:
        """The ids and, for each, the characters ``(start, end)`` it covers. A token holding part of a character covers all of it."""
        ids = self.encode(text)
        widths = [len(c.encode()) for c in text]
        char_of = np.repeat(np.arange(len(text)), widths)
        ends = np.cumsum([len(self._bytes[i]) for i in ids])
        starts = np.concatenate([[0], ends[:-1]]) if ids else ends
        return ids, [(int(char_of[s]), int(char_of[e - 1]) + 1) for s, e in zip(starts, ends, strict=True)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text, control tokens left out; bytes that are not UTF-8 become U+FFFD. ``decode(encode(x)) == x``."""
        return b"".join(self._bytes[self._checked(i)] for i in ids if not self._is_control(i)).decode(errors="replace")

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """What each id stands for. Without control tokens the pieces concatenate to ``decode(ids)``: a character split over
        several tokens is shown at its last. Control tokens show as ``<|bos|>``."""
        pieces: list[str] = []
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for i in ids:
            if self._is_control(i):
                pieces.append(decoder.decode(b"", final=True) + CONTROL[i - len(self._tokens)])
                decoder.reset()
            else:
                pieces.append(decoder.decode(self._bytes[self._checked(i)]))
        rest = decoder.decode(b"", final=True)
        if rest and pieces:
            pieces[-1] += rest
        return pieces

    def digest(self) -> str:
        """sha256 (hex) of ``to_json()``."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Everything needed to make this tokenizer again, as canonical JSON."""
        return canonical_json({"type": "bpe", "format": FORMAT, "tokens": self._tokens, "merges": self._merges, "control": CONTROL})

    @classmethod
    def from_json(cls, text: str) -> BPETokenizer:
        """The inverse of ``to_json``. Raises CorruptFile for anything else."""
        part = stored(text, "bpe", {"tokens", "merges", "control"})
        return cls(part["tokens"], [(a, b) for a, b in part["merges"]])

    def _is_control(self, i: int) -> bool:
        return len(self._tokens) <= i < self.vocab_size

    def _checked(self, i: int) -> int:
        if not 0 <= i < self.vocab_size:
            raise BadValue("token id", int(i), f"within 0 to {self.vocab_size - 1}")
        return i


class CharTokenizer:
    """One id a character of a fixed alphabet, in order; no control tokens.

    >>> CharTokenizer.of("banana").encode("nab")
    [2, 0, 1]
    """

    bos_id = eos_id = pad_id = None

    def __init__(self, alphabet: Sequence[str]) -> None:
        self._alphabet = tuple(alphabet)
        self._id = {c: i for i, c in enumerate(self._alphabet)}
        if not self._alphabet or len(self._id) != len(self._alphabet) or any(len(c) != 1 for c in self._alphabet):
            raise BadValue("alphabet", "".join(self._alphabet)[:40], "distinct single characters, at least one")

    @classmethod
    def of(cls, text: str) -> CharTokenizer:
        """The alphabet of ``text``, sorted by code point."""
        return cls(sorted(set(text)))

    @property
    def vocab_size(self) -> int:
        return len(self._alphabet)

    def encode(self, text: str, *, bos: bool = False) -> list[int]:
        """One id a character. Raises UnknownName for a character outside the alphabet, BadValue for ``bos``."""
        if bos:
            raise BadValue("bos", bos, "false, since a character tokenizer has no begin token")
        try:
            return [self._id[c] for c in text]
        except KeyError as error:
            place = f"in this tokenizer's alphabet (position {text.index(error.args[0])} of the text)"
            raise UnknownName("character", error.args[0], self._alphabet, where=place) from None

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """``[encode(text) for text in texts]``."""
        return [self.encode(text) for text in texts]

    def offsets(self, text: str) -> tuple[list[int], list[Span]]:
        """The ids and the one character each covers."""
        return self.encode(text), [(i, i + 1) for i in range(len(text))]

    def decode(self, ids: Sequence[int]) -> str:
        """The text."""
        return "".join(self.pieces(ids))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The character of each id. Raises BadValue outside the vocabulary."""
        for i in ids:
            if not 0 <= i < len(self._alphabet):
                raise BadValue("token id", int(i), f"within 0 to {len(self._alphabet) - 1}")
        return [self._alphabet[i] for i in ids]

    def digest(self) -> str:
        """sha256 (hex) of ``to_json()``."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Everything needed to make this tokenizer again, as canonical JSON."""
        return canonical_json({"type": "char", "format": FORMAT, "alphabet": self._alphabet})

    @classmethod
    def from_json(cls, text: str) -> CharTokenizer:
        """The inverse of ``to_json``. Raises CorruptFile for anything else."""
        return cls(stored(text, "char", {"alphabet"})["alphabet"])


AnyTokenizer = BPETokenizer | CharTokenizer | PretrainedTokenizer
_TYPES: dict[str, type[AnyTokenizer]] = {"bpe": BPETokenizer, "char": CharTokenizer, "pretrained": PretrainedTokenizer}


def tokenizer_from_json(text: str) -> AnyTokenizer:
    """The tokenizer a ``to_json`` text describes, by its ``type``. Raises UnknownName for a type there is not."""
    kind = json_object(text).get("type")
    if kind not in _TYPES:
        raise UnknownName("tokenizer type", str(kind), _TYPES)
    return _TYPES[kind].from_json(text)


# --- rows ---------------------------------------------------------------------------------------------------


def _packed(lengths: Sequence[int], room: int) -> Iterator[tuple[int, int]]:
    """``(row, offset)`` for each piece in turn: the fullest open row with enough room (the one opened last among equals),
    else a new row. ``open_mask`` has bit r set when some row has exactly r places left, so each step is a few operations."""
    stacks: list[list[int]] = [[] for _ in range(room + 1)]
    open_mask, rows = 0, 0
    for length in lengths:
        fitting = open_mask >> length
        if fitting:
            left = (fitting & -fitting).bit_length() - 1 + length
            row = stacks[left].pop()
            if not stacks[left]:
                open_mask ^= 1 << left
        else:
            row, left, rows = rows, room, rows + 1
        yield row, room - left
        if left > length:
            stacks[left - length].append(row)
            open_mask |= 1 << (left - length)


class PackedRows:
    """Documents packed into rows of ``length`` tokens, each its own segment with positions from 0 (a ``RowData``).

    A document's inputs are the begin token and its ids; its targets are its ids and the end token. The end token is predicted,
    never read: nothing follows it. A target never belongs to another document than its input; padding has target ``IGNORE``
    and segment −1. A document of more than ``length`` inputs is cut into pieces, each a segment that starts where the last
    ended (``cut`` counts such documents); no target is lost by it.
    """

    def __init__(self, texts: Sequence[str], tokenizer: BPETokenizer, length: int) -> None:
        if length < 2:
            raise BadValue("length", length, "at least 2 tokens")
        if not texts:
            raise BadValue("texts", 0, "at least one document")
        self.length, self._source = length, tokenizer.digest()
        self.documents = len(texts)
        encoded = tokenizer.encode_batch(texts)
        sizes = np.array([len(ids) + 1 for ids in encoded])
        self.cut = int((sizes > length).sum())
        stream = np.fromiter((i for ids in encoded for i in (tokenizer.bos_id, *ids)), np.int32, int(sizes.sum()))
        follow = np.fromiter((i for ids in encoded for i in (*ids, tokenizer.eos_id)), np.int32, int(sizes.sum()))
        pieces = [min(length, int(n) - at) for n in sizes for at in range(0, int(n), length)]
        self._set(stream, follow, np.array(pieces), tokenizer.pad_id)

    def _set(self, stream: np.ndarray, follow: np.ndarray, pieces: np.ndarray, pad: int) -> None:
        row, offset = np.array(list(_packed(pieces.tolist(), self.length))).T
        within = np.arange(len(stream)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        flat = np.repeat(row * self.length + offset, pieces) + within
        self.rows = int(row.max()) + 1
        place = lambda values, empty: _filled(self.rows, self.length, flat, values, empty)  # noqa: E731
        self._tokens, self._targets = place(stream, pad), place(follow, IGNORE)
        self._positions = place(within, 0)
        starts = place(within == 0, 0)
        self._segments = np.where(self._targets == IGNORE, -1, np.cumsum(starts, axis=1) - 1).astype(np.int32)

    def __len__(self) -> int:
        return self.rows

    @property
    def predicted(self) -> int:
        """How many targets there are in all."""
        return int((self._targets != IGNORE).sum())

    def batch(self, indices: Sequence[int]) -> TokenBatch:
        """The rows ``indices`` as int64 tensors ``[row, length]``."""
        chosen = _checked_rows(indices, self.rows)
        pick = lambda a: torch.from_numpy(a[chosen].astype(np.int64))  # noqa: E731
        return TokenBatch(pick(self._tokens), pick(self._targets), pick(self._segments), pick(self._positions))

    def digest(self) -> str:
        """sha256 (hex) over the tokenizer and all rows."""
        whole = hashlib.sha256(f"packed {self._source} {self._tokens.shape}".encode())
        for part in (self._tokens, self._targets, self._segments, self._positions):
            whole.update(np.ascontiguousarray(part, dtype="<i4").tobytes())
        return whole.hexdigest()


def _filled(rows: int, length: int, flat: np.ndarray, values: np.ndarray, empty: int) -> np.ndarray:
    out = np.full(rows * length, empty, np.int32)
    out[flat] = values
    return out.reshape(rows, length)


def _checked_rows(indices: Sequence[int], rows: int) -> np.ndarray:
    chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
    if chosen.size == 0 or chosen.min() < 0 or chosen.max() >= rows:
        raise BadValue("row indices", chosen.tolist()[:8], f"non-empty and within 0 to {rows - 1}")
    return chosen


class ContiguousRows:
    """Windows of one long text (a ``RowData``): row r is ``length`` tokens from a place drawn by (seed, r) alone.

    With ``seed`` None the windows lie side by side from the beginning instead, for evaluation; a last part shorter than
    ``length + 1`` is left out (``left_out`` tokens).
    """

    def __init__(self, ids: Sequence[int] | np.ndarray, length: int, *, rows: int | None = None, seed: int | None = None) -> None:
        self._ids, self.length, self._seed = np.ascontiguousarray(ids, dtype=np.int32), length, seed
        starts = len(self._ids) - length  # a row needs length + 1 ids
        if length < 1 or starts < 1:
            raise BadValue("length", length, f"at least 1 and below the {len(self._ids)} ids there are")
        if (rows is None) != (seed is None):
            raise BadValue("rows", rows, "given together with a seed, or both left out")
        if rows is not None and rows < 1:
            raise BadValue("rows", rows, "at least 1")
        if seed is None:
            self._starts = np.arange(0, starts, length)
            self.left_out = len(self._ids) - (int(self._starts[-1]) + length + 1)
        else:
            drawn = mixed_array(key_of("windows", seed), np.arange(rows or 0, dtype=np.uint64))
            self._starts = (drawn % np.uint64(starts)).astype(np.int64)
            self.left_out = 0

    @classmethod
    def of(cls, text: str, tokenizer: Tokenizer, length: int, *, rows: int | None = None, seed: int | None = None) -> ContiguousRows:
        """Rows of ``text``."""
        return cls(tokenizer.encode(text), length, rows=rows, seed=seed)

    def __len__(self) -> int:
        return len(self._starts)

    def batch(self, indices: Sequence[int]) -> TokenBatch:
        """The rows ``indices`` as int64 tensors ``[row, length]``, every position with a target."""
        starts = self._starts[_checked_rows(indices, len(self))]
        window = self._ids[starts[:, None] + np.arange(self.length + 1)].astype(np.int64)
        return TokenBatch(torch.from_numpy(window[:, :-1].copy()), torch.from_numpy(window[:, 1:].copy()))

    def digest(self) -> str:
        """sha256 (hex) over the ids and where the rows begin."""
        whole = hashlib.sha256(f"contiguous {self.length} {len(self)}".encode())
        for part in (self._ids.astype("<i4"), self._starts.astype("<i8")):
            whole.update(part.tobytes())
        return whole.hexdigest()
