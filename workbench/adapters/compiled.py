"""Transformers whose weights were compiled from a program (Lindner et al. 2023), so that the circuit is known.

A folder holds ``params.npz`` (the arrays) and ``meta.json`` (shapes, alphabet, read-out, examples and the structural truth). The model has
the sites and weights of a decoder without norms; what differs is its last step. A program has an output alphabet of its own, or
numbers, so the read-out is the residual dimensions named in ``unembed_columns`` (``W_U`` picks them) and the logits' last axis is
``class``. ``Truth`` is checked against the arrays when a folder is opened: a folder whose stated circuit is not the one in its weights is
refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal
from zipfile import BadZipFile

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from workbench.adapters.weights import Line, imported, line
from workbench.blocks.attention import Attention
from workbench.blocks.cache import KVCache
from workbench.blocks.embed import Axes, Embed, Unembed
from workbench.blocks.inputs import Passage, chosen, given_mask, passage
from workbench.blocks.listen import under
from workbench.blocks.mask import attention_mask
from workbench.blocks.mlp import MLP
from workbench.blocks.model import Ask, Model, prefixed
from workbench.blocks.stack import Block, Setting, Stack
from workbench.core.batch import TokenBatch
from workbench.core.errors import BadValue, CorruptFile, Incompatible, MissingFile, UnknownName
from workbench.core.protocol import Resume
from workbench.core.spec import Spec, canonical_json

META, PARAMS = "meta.json", "params.npz"
Symbol = str | int | float | bool


class CompiledConfig(Spec):
    """The shape of a compiled model. ``n_out`` read-out dimensions: one for a numerical program, else one an output symbol."""

    n_layers: PositiveInt
    d_model: PositiveInt
    n_heads: PositiveInt
    d_head: PositiveInt
    d_mlp: PositiveInt
    d_vocab: PositiveInt
    n_ctx: PositiveInt
    n_out: PositiveInt
    causal: bool
    numerical: bool = Field(description="the read-out is the value itself; otherwise the largest wins")
    norm_placement: Literal["none"] = "none"


class Symbols:
    """The alphabet of a program. As text, symbols stand between spaces; BOS and padding are never read from text."""

    def __init__(self, ids: Mapping[str, int], *, bos: str, pad: str) -> None:
        self._ids, self._names = dict(ids), [name for name, _ in sorted(ids.items(), key=lambda pair: pair[1])]
        self._bos, self._pad = self._ids[bos], self._ids[pad]
        self._written = {name: number for name, number in self._ids.items() if name not in (bos, pad)}

    @property
    def vocab_size(self) -> int:
        return len(self._names)

    @property
    def bos_id(self) -> int:
        return self._bos

    @property
    def eos_id(self) -> None:
        return None

    @property
    def pad_id(self) -> int:
        return self._pad

    def encode(self, text: str, *, bos: bool = False) -> list[int]:
        """The ids of symbols between spaces. Raises UnknownName."""
        for name in (parts := text.split()):
            if name not in self._written:
                raise UnknownName("symbol", name, self._written, where="in this program's alphabet")
        return [self._bos] * bos + [self._ids[name] for name in parts]

    def ids(self, symbols: Sequence[Symbol]) -> list[int]:
        """The ids of symbols, control symbols among them. Raises UnknownName."""
        for name in (names := [str(symbol) for symbol in symbols]):
            if name not in self._ids:
                raise UnknownName("symbol", name, self._ids, where="in this program's encoding")
        return [self._ids[name] for name in names]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.pieces(ids))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return [self._names[number] for number in ids]

    def digest(self) -> str:
        return hashlib.sha256(canonical_json([self._names, self._bos, self._pad]).encode()).hexdigest()


class _Begun(Symbols):
    """The same alphabet where every text begins with BOS, as every program expects."""

    def __init__(self, symbols: Symbols) -> None:
        self.__dict__.update(symbols.__dict__)

    def encode(self, text: str, *, bos: bool = True) -> list[int]:
        return super().encode(text, bos=True)


@dataclass(frozen=True)
class Example:
    """An input with BOS before it, and what the program gives at each position (BOS at the first)."""

    given: tuple[str, ...]
    expected: tuple[str | float, ...]


@dataclass(frozen=True)
class Truth:
    """What is known of a compiled model.

    ``used``: the heads and MLPs (``L1H0``, ``L0MLP``) whose weights are not all zero, of ``possible``. ``edges``: (writer, reader) where
    the reader's input weights touch a residual dimension that the writer writes; readers of a head are ``L1H0.q``, ``.k``, ``.v``, and
    ``embed`` is the embedding. An edge can carry nothing on a given input. ``labels`` names each residual dimension; ``outputs`` the output
    symbol of each logit (empty for numbers).
    """

    name: str
    used: tuple[str, ...]
    possible: int
    edges: tuple[tuple[str, str], ...]
    labels: tuple[str, ...]
    outputs: tuple[str, ...]
    examples: tuple[Example, ...]


class Compiled(Model):
    """A compiled model. A batch is ids ``[batch, pos]`` or text, each row beginning with BOS (text gets it); padding is attended to by
    nobody, and ``logits="last"`` is the last symbol before it. Logits are ``[batch, pos or chosen, class]``."""

    family = "compiled"
    config_type: ClassVar[type[CompiledConfig]] = CompiledConfig
    abilities: frozenset[str] = frozenset({"logits", "edit", "grad", "mask", "weights"})
    resumes: ClassVar[frozenset[str]] = frozenset({"start", "stop", "residual", "positions", "mask"})

    def __init__(self, config: CompiledConfig, symbols: Symbols, truth: Truth) -> None:
        super().__init__(config, symbols)
        self.symbols, self.truth = symbols, truth
        self.embed = Embed(config.d_vocab, config.d_model, n_positions=config.n_ctx)
        self.stack = Stack([self._block() for _ in range(config.n_layers)])
        self.unembed = Unembed(config.d_model, config.n_out, tied=False)
        self._finish(self._sites(), additive=True, seed=0, writes=2 * config.n_layers)

    def _block(self) -> Block:
        c = self.config
        attn = Attention(c.d_model, c.n_heads, c.n_heads, c.d_head, bias=True)
        return Block(attn, MLP(c.d_model, c.d_mlp, act="relu", bias=True), None, placement="none")

    def _sites(self) -> dict[str, Axes]:
        read_out = self.unembed.sites() | {"hook_logits": ("batch", "pos", "class")}
        return self.embed.sites() | self.stack.sites() | prefixed("unembed.", read_out)

    def _pass(self, batch: Any, ask: Ask) -> tuple[Tensor | None, KVCache | None]:
        given = self._read(batch, ask.resume)
        asked = chosen(ask.logits, given) if ask.stops is None else None
        x = given.residual
        if x is None:
            assert given.tokens is not None, "a passage has tokens or a residual"
            x = self.embed(given.tokens, given.positions, ask.listener)
        setting = Setting(given.mask)
        x, _ = self.stack(x, setting, listener=ask.listener, start=ask.start(self.stack), stop=ask.stop(self.stack))
        head = under(ask.listener, "unembed.")
        if ask.stops is not None or (asked is None and head is None):
            return None, None
        out = self.unembed(x, self.embed, head)
        return asked.take(out) if asked is not None else None, None

    def _read(self, batch: Any, resume: Resume) -> Passage:
        if isinstance(batch, TokenBatch):
            if batch.segments is not None:
                raise BadValue("the batch's segments", "given", "left out: a program reads one sequence a row")
            resume = replace(resume, positions=resume.positions if resume.positions is not None else batch.positions)
            batch = batch.tokens
        like = self.embed.token.weight
        given = passage(batch, resume, self.config, tokenizer=_Begun(self.symbols), like=like)
        (rows, length), valid, lengths = given.shape, None, given.lengths
        tokens = batch.to(like.device) if isinstance(batch, Tensor) else given.tokens
        if tokens is not None:
            if bool((tokens[:, 0] != self.symbols.bos_id).any()):
                raise BadValue("the first symbol of a row", "another", "BOS: compiled programs count positions from it")
            valid = tokens != self.symbols.pad_id
            ends = (valid * torch.arange(1, length + 1, device=like.device)).amax(1)
            lengths = tuple(int(end) for end in ends.expand(rows))
        elif lengths is not None:
            valid = torch.arange(length, device=like.device) < torch.tensor(lengths, device=like.device).unsqueeze(1)
        valid = None if valid is None or bool(valid.all()) else valid
        allowed = given_mask(resume.mask, rows, length, length, like.device)
        mask = attention_mask(length, 0, like.device, causal=self.config.causal, valid=valid, given=allowed)
        return replace(given, mask=mask, lengths=lengths)

    def padded(self, ids: Tensor, real: Tensor) -> Tensor:
        """The batch of right-padded ``ids [batch, pos]`` whose real symbols are ``real``: padding is a symbol of the program's own."""
        return ids.masked_fill(~real, self.symbols.pad_id)

    def named_weights(self) -> dict[str, Tensor]:
        """Every weight by its public name; ``W_U`` [d_model, class] picks the read-out dimensions."""
        return self.stack.weights() | self.embed.weights() | self.unembed.weights(self.embed)

    def decode(self, logits: Tensor) -> list[list[str | float]]:
        """What the program says at each position of ``logits`` [batch, pos, class], taken at all positions: BOS at the first, then
        the symbol of the largest logit, or the number."""
        if logits.ndim != 3 or logits.shape[2] != self.config.n_out:
            raise BadValue("the shape of the logits", tuple(logits.shape), f"[batch, pos, {self.config.n_out}]")
        bos: list[str | float] = [self.symbols.pieces([self.symbols.bos_id])[0]]
        if self.config.numerical:
            return [bos + row[1:] for row in logits[..., 0].tolist()]
        return [bos + [self.truth.outputs[best] for best in row[1:]] for row in logits.argmax(-1).tolist()]

    def outputs(self, symbols: Sequence[Symbol]) -> list[str | float]:
        """What the program gives for ``symbols`` (BOS is put before them)."""
        logits = self.run(torch.tensor([[self.symbols.bos_id, *self.symbols.ids(symbols)]])).logits
        assert logits is not None, "logits were asked for"
        return self.decode(logits)[0]


# --- opening a folder ---------------------------------------------------------------------------------------


class _Meta(Spec):
    """``meta.json`` as it must be; one Spec a concern below."""

    name: str
    causal: bool
    vocab: tuple[Symbol, ...]
    max_seq_len: PositiveInt
    compiler_bos: str
    compiler_pad: str
    input_encoding: dict[str, int]
    output_encoding: dict[str, int] | None
    output_is_numerical: bool
    unembed_columns: tuple[int, ...]


class _Shape(Spec):
    num_heads: PositiveInt
    num_layers: PositiveInt
    key_size: PositiveInt
    mlp_hidden_size: PositiveInt
    d_model: PositiveInt
    layer_norm: bool
    activation: str


class _Pair(Spec):
    input: tuple[Symbol, ...]
    output: tuple[Symbol, ...]


class _Known(Spec):
    residual_labels: tuple[str, ...]
    used_components: tuple[str, ...]
    n_possible_components: int
    edges: tuple[tuple[str, str], ...]
    examples: tuple[_Pair, ...]


def load(folder: Path | str) -> Compiled:
    """The model in ``folder``, in evaluation mode and float32.

    Raises MissingFile, CorruptFile (a file that is not what the layout says, by field or array) and Incompatible (a field that is not
    handled, by name).
    """
    folder = Path(folder)
    meta, shape, known = _described(folder / META)
    arrays = _arrays(folder / PARAMS)
    config = CompiledConfig(
        n_layers=shape.num_layers, d_model=shape.d_model, n_heads=shape.num_heads, d_head=shape.key_size,
        d_mlp=shape.mlp_hidden_size, d_vocab=len(meta.input_encoding), n_ctx=meta.max_seq_len + 1,
        n_out=len(meta.unembed_columns), causal=meta.causal, numerical=meta.output_is_numerical,
    )  # fmt: skip
    truth = _truth(folder / META, meta, known)
    model = Compiled(config, Symbols(meta.input_encoding, bos=meta.compiler_bos, pad=meta.compiler_pad), truth)
    own = {name: value for name, value in model.state_dict().items() if name != "unembed.own.weight"}
    state = imported(_lines(config), {name: torch.from_numpy(value) for name, value in arrays.items()}, own, path=folder / PARAMS)
    state["unembed.own.weight"] = torch.eye(config.d_model)[list(meta.unembed_columns)]
    model.load_state_dict(state, strict=True)
    _check_truth(folder / META, truth, config, arrays)
    return model.eval()


def _described(path: Path) -> tuple[_Meta, _Shape, _Known]:
    """``meta.json`` taken apart and checked against itself."""
    if not path.is_file():
        raise MissingFile(path, "description of a compiled circuit")
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptFile(path, "JSON", f"it is not ({error})") from None
    if not isinstance(given, dict):
        raise CorruptFile(path, "a JSON object", f"it is {type(given).__name__}")
    kinds: tuple[type[Spec], ...] = (_Meta, _Shape, _Known)
    fields = {name for kind in kinds for name in kind.model_fields}
    reasons = [f"the field '{name}' is not handled" for name in sorted(set(given) - fields)]
    for name, only in (("layer_norm", False), ("activation", "relu")):
        if name in given and given[name] != only:
            reasons.append(f"{name}={given[name]!r} is not handled (only {only!r})")
    if reasons:
        raise Incompatible("open", str(path), reasons)
    if missing := sorted(fields - set(given)):
        raise CorruptFile(path, "the description of a compiled circuit", f"the field '{missing[0]}' is missing")
    try:
        meta, shape, known = (kind.parse({name: given[name] for name in kind.model_fields}) for kind in kinds)
    except (BadValue, UnknownName) as error:
        raise CorruptFile(path, "the description of a compiled circuit", str(error).rstrip(".")) from None
    assert isinstance(meta, _Meta)
    assert isinstance(shape, _Shape)
    assert isinstance(known, _Known)
    if wrong := _inconsistent(meta, shape, known):
        raise CorruptFile(path, "the description of a compiled circuit", wrong)
    return meta, shape, known


def _inconsistent(meta: _Meta, shape: _Shape, known: _Known) -> str:
    """The first thing in which ``meta.json`` contradicts itself, or nothing."""
    columns, outputs = meta.unembed_columns, meta.output_encoding
    symbols = {str(symbol) for symbol in meta.vocab} | {meta.compiler_bos, meta.compiler_pad}
    if set(meta.input_encoding) != symbols:
        return f"'input_encoding' names {sorted(meta.input_encoding)}, and 'vocab' with BOS and padding {sorted(symbols)}"
    if sorted(meta.input_encoding.values()) != list(range(len(symbols))):
        return f"'input_encoding' does not number its symbols 0 to {len(symbols) - 1}"
    if len(known.residual_labels) != shape.d_model:
        return f"'residual_labels' has {len(known.residual_labels)} names for {shape.d_model} dimensions"
    if len(set(columns)) != len(columns) or not columns or min(columns) < 0 or max(columns) >= shape.d_model:
        return f"'unembed_columns' are not distinct dimensions within 0 to {shape.d_model - 1}"
    if meta.output_is_numerical and (outputs is not None or len(columns) != 1):
        return "'output_is_numerical' needs one unembed column and no 'output_encoding'"
    if not meta.output_is_numerical and sorted((outputs or {}).values()) != list(range(len(columns))):
        return f"'output_encoding' does not number its symbols 0 to {len(columns) - 1}, one an unembed column"
    for number, pair in enumerate(known.examples):
        unknown = [symbol for symbol in pair.input if str(symbol) not in meta.input_encoding]
        if unknown or len(pair.input) != len(pair.output) or len(pair.input) > meta.max_seq_len + 1:
            return f"'examples' number {number} does not fit: its input is {list(pair.input)}, its output {list(pair.output)}"
    return ""


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of ``params.npz``; nothing in it is executed."""
    if not path.is_file():
        raise MissingFile(path, "weights of a compiled circuit")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            out = {name: file[name] for name in file.files}
    except (ValueError, TypeError, OSError, EOFError, BadZipFile) as error:
        raise CorruptFile(path, "arrays in NumPy's npz form", f"it cannot be read ({error})") from None
    for name, value in out.items():
        if value.dtype != np.float32:
            raise CorruptFile(path, "float32 arrays", f"'{name}' is {value.dtype}")
        if value.ndim != (1 if name.endswith("/b") else 2):
            raise CorruptFile(path, "matrices and their biases", f"'{name}' has shape {value.shape}")
        if not np.isfinite(value).all():
            raise CorruptFile(path, "finite weights", f"'{name}' holds a NaN or an infinity")
    return out


def _lines(config: CompiledConfig) -> list[Line]:
    lines = [line("token_embed/embeddings", "embed.token.weight"), line("pos_embed/embeddings", "embed.position.weight")]
    names = {"query": "q", "key": "k", "value": "v", "linear": "o"}
    for i in range(config.n_layers):
        parts = {f"attn/{theirs}": f"attn.{ours}" for theirs, ours in names.items()}
        parts |= {"mlp/linear_1": "mlp.inner", "mlp/linear_2": "mlp.out"}
        for theirs, ours in parts.items():
            lines.append(line(f"transformer/layer_{i}/{theirs}/w", f"stack.blocks.{i}.{ours}.weight", turned=True))
            lines.append(line(f"transformer/layer_{i}/{theirs}/b", f"stack.blocks.{i}.{ours}.bias"))
    return lines


# --- the truth ----------------------------------------------------------------------------------------------


def _truth(path: Path, meta: _Meta, known: _Known) -> Truth:
    numbers = {number: name for name, number in (meta.output_encoding or {}).items()}
    outputs = tuple(numbers[i] for i in range(len(numbers)))
    examples: list[Example] = []
    for number, pair in enumerate(known.examples):
        given = tuple(str(symbol) for symbol in pair.input)
        expected: list[str | float] = [str(pair.output[0])] if pair.output else []
        for symbol in pair.output[1:]:
            fits = isinstance(symbol, int | float) if meta.output_is_numerical else str(symbol) in outputs
            if not fits:
                raise CorruptFile(path, "the description of a compiled circuit", f"'examples' number {number} expects {symbol!r}")
            expected.append(float(symbol) if meta.output_is_numerical else str(symbol))
        if not given or given[0] != meta.compiler_bos or expected[0] != meta.compiler_bos:
            raise CorruptFile(path, "the description of a compiled circuit", f"'examples' number {number} does not begin with BOS")
        examples.append(Example(given, tuple(expected)))
    return Truth(
        meta.name, known.used_components, known.n_possible_components, known.edges, known.residual_labels, outputs, tuple(examples)
    )  # fmt: skip


def structure(config: CompiledConfig, arrays: Mapping[str, np.ndarray]) -> tuple[list[str], list[tuple[str, str]]]:
    """The used components and the structural edges (see Truth) that the arrays of a folder say, in the order of a run."""
    used: list[str] = []
    edges: list[tuple[str, str]] = []
    writes = {"embed": _rows(arrays["token_embed/embeddings"].T) | _rows(arrays["pos_embed/embeddings"].T)}

    def reader(name: str, weights: np.ndarray) -> None:
        edges.extend((writer, name) for writer, written in writes.items() if written & _rows(weights))

    for i in range(config.n_layers):
        at = {part: arrays[f"transformer/layer_{i}/{part}"] for part in _PARTS}
        written: dict[str, set[int]] = {}
        for h in range(config.n_heads):
            name, own = f"L{i}H{h}", slice(h * config.d_head, (h + 1) * config.d_head)
            heads = {word: at[f"attn/{part}/w"][:, own] for word, part in (("q", "query"), ("k", "key"), ("v", "value"))}
            out = at["attn/linear/w"][own]
            if any(value.any() for value in (*heads.values(), out)):
                used.append(name)
            for word, value in heads.items():
                reader(f"{name}.{word}", value)
            written[name] = _rows(out.T)
        writes |= written
        name, first, second = f"L{i}MLP", at["mlp/linear_1/w"], at["mlp/linear_2/w"]
        if first.any() or second.any():
            used.append(name)
        reader(name, first)
        writes[name] = _rows(second.T) | _rows(at["mlp/linear_2/b"][:, None])
    return used, edges


_PARTS = (
    *(f"attn/{part}/w" for part in ("query", "key", "value", "linear")),
    *("mlp/linear_1/w", "mlp/linear_2/w", "mlp/linear_2/b"),
)


def _rows(weights: np.ndarray) -> set[int]:
    """The residual dimensions (rows) with a weight that is not zero."""
    return {int(row) for row in np.flatnonzero(weights.any(axis=1))}


def _check_truth(path: Path, truth: Truth, config: CompiledConfig, arrays: Mapping[str, np.ndarray]) -> None:
    used, edges = structure(config, arrays)
    possible = config.n_layers * (config.n_heads + 1)
    stated = {"used_components": set(truth.used), "edges": set(truth.edges), "n_possible_components": {truth.possible}}
    found = {"used_components": set(used), "edges": set(edges), "n_possible_components": {possible}}
    for name, value in stated.items():
        if odd := value ^ found[name]:
            raise CorruptFile(path, f"the truth of '{PARAMS}'", f"'{name}' differs from the weights at {sorted(odd, key=str)[:3]}")
