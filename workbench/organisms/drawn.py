"""Programs drawn at random and set by hand into weights, so that circuits can be asked for that nobody has looked at.

A program reads symbols after BOS and writes variables, one a component, each one-hot over the symbols and BOS at every position:

``shift``    a head that copies a variable from some positions before (from BOS where there is none)
``first``    a head that copies it from a fixed position (from the position itself before that)
``lookup``   a head that copies it from the latest position whose key is what its own query is (from BOS where none is, or where BOS's is);
             with the symbols as queries and the symbols before as keys it is an induction head
``table``    an MLP that looks one variable or two up in a random table

Some components are empty. The read-out is one variable of the last layer; components that no way leads from to it are *idle*: they write as
much as others and nothing comes of it. Programs are written in the layout of compiled circuits (``workbench.adapters.compiled``), whose
truth is of all weights, idle ones among them; ``Program.live`` says which components the answer comes from.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from workbench.core.errors import BadValue

BOS, PAD = "BOS", "pad"
LENGTH = 5
"""Symbols in the longest input; BOS stands before them."""
HEADS = 2
EXAMPLES = 40
MATCH, LATER, FIRST = 200.0, 20.0, 170.0
"""What a key adds to a score for being the same, for each position it comes later, and for being BOS's: a match outweighs all later ones
that are none, BOS too, and BOS outweighs all others."""
Op = Literal["shift", "first", "lookup", "table"]


@dataclass(frozen=True)
class Part:
    """A component that is not empty. ``reads``: names of the components whose variables it reads, ``embed`` among them: of a head the value
    first, of a lookup then query and key. ``by``: how far a shift goes back, or which position ``first`` reads. ``table``: of an MLP, the
    value it writes for each value of each variable it reads ``[value, (value)]``."""

    name: str
    op: Op
    reads: tuple[str, ...]
    by: int = 0
    table: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def edges(self) -> Iterator[tuple[str, str]]:
        """(writer, reader) of all that it reads; positions are of the embedding."""
        if self.op == "table":
            yield from ((writer, self.name) for writer in dict.fromkeys(self.reads))
            return
        yield self.reads[0], f"{self.name}.v"
        yield "embed", f"{self.name}.k"  # positions
        if self.op == "shift":
            yield "embed", f"{self.name}.q"
        if self.op == "lookup":
            yield self.reads[1], f"{self.name}.q"
            if self.reads[2] != "embed":
                yield self.reads[2], f"{self.name}.k"


@dataclass(frozen=True)
class Program:
    """A drawn program: its symbols, layers, parts in the order of a run, and the part that is read out."""

    name: str
    symbols: tuple[str, ...]
    layers: int
    parts: tuple[Part, ...]
    output: str

    @property
    def values(self) -> tuple[str, ...]:
        """What a variable can be: a symbol or BOS."""
        return (*self.symbols, BOS)

    def run(self, given: Sequence[str]) -> list[str]:
        """What the program gives at BOS and at each symbol after it, from its meaning and not from weights."""
        names = self.values
        held = {"embed": [names.index(one) for one in (BOS, *given)]}
        for part in self.parts:
            read = [held[name] for name in part.reads]
            if part.op == "table":
                held[part.name] = [int(part.table[values]) for values in zip(*read, strict=True)]
            else:
                held[part.name] = [read[0][_attended(part, i, read)] for i in range(len(given) + 1)]
        return [names[value] for value in held[self.output]]

    def live(self) -> set[str]:
        """The components from which a way leads to the read-out."""
        by_name, found, todo = {part.name: part for part in self.parts}, set(), [self.output]
        while todo:
            name = todo.pop()
            if name not in found and name != "embed":
                found.add(name)
                todo += by_name[name].reads
        return found


def _attended(part: Part, i: int, read: Sequence[Sequence[int]]) -> int:
    """The position that a head reads at position ``i``."""
    if part.op == "shift":
        return max(i - part.by, 0)
    if part.op == "first":
        return min(part.by, i)
    query, keys = read[1][i], read[2][: i + 1]
    return 0 if keys[0] == query else max((j for j, key in enumerate(keys) if key == query), default=0)


# --- drawing --------------------------------------------------------------------------------------------------


def draw(seed: int) -> Program:
    """The program of this seed: two or three layers of two heads and an MLP, of which at least three parts are live and one is idle, and
    whose answer is not always the same. Raises BadValue for a seed under 0."""
    if seed < 0:
        raise BadValue("seed", seed, "0 or more")
    rng = np.random.default_rng((20, seed))
    while True:
        program = _drawn(rng, f"drawn-{seed}")
        if program is None or not 3 <= len(program.live()) < len(program.parts):
            continue
        if len({tuple(program.run(given)[1:]) for given in examples(program)[:-1] if len(given) == LENGTH}) > 3:
            return program


def _drawn(rng: np.random.Generator, name: str) -> Program | None:
    """One attempt; None where the last layer is empty."""
    symbols, layers = tuple("abc"[: rng.integers(2, 4)]), int(rng.integers(2, 4))
    parts: list[Part] = []
    for layer in range(layers):
        before = ["embed", *(part.name for part in parts)]
        for h in range(HEADS):
            kinds: list[Op | Literal[""]] = ["shift", "first", "lookup", ""]
            op = kinds[int(rng.choice(4, p=(0.3, 0.15, 0.4, 0.15)))]
            if op:
                parts.append(_head(rng, f"L{layer}H{h}", op, before))
        before = ["embed", *(part.name for part in parts)]
        count = int(rng.choice(3, p=(0.15, 0.35, 0.5)))
        if 0 < count <= len(before):
            table = rng.integers(len(symbols) + 1, size=(len(symbols) + 1,) * count)
            parts.append(Part(f"L{layer}MLP", "table", tuple(_some(rng, before, count)), table=table))
    last = [part.name for part in parts if part.name.startswith(f"L{layers - 1}")]
    return Program(name, symbols, layers, tuple(parts), str(rng.choice(last))) if last else None


def _head(rng: np.random.Generator, name: str, op: Op, before: Sequence[str]) -> Part:
    value = str(rng.choice(before))
    if op != "lookup" or len(before) == 1:
        return Part(name, "shift" if op == "lookup" else op, (value,), by=int(rng.integers(1, 3)))
    return Part(name, op, (value, *_some(rng, before, 2)))


def _some(rng: np.random.Generator, names: Sequence[str], count: int) -> list[str]:
    return [str(one) for one in rng.choice(names, size=count, replace=False)]


def examples(program: Program) -> list[tuple[str, ...]]:
    """Inputs that the program is asked about, from its name: of every length, most of them of the longest."""
    rng = np.random.default_rng([ord(letter) for letter in program.name])
    whole = [tuple(rng.choice(program.symbols, size=LENGTH).tolist()) for _ in range(EXAMPLES - LENGTH)]
    return [*whole, *(tuple(rng.choice(program.symbols, size=size).tolist()) for size in range(1, LENGTH)), ()]


# --- weights --------------------------------------------------------------------------------------------------


class _Weights:
    """The arrays of a program, filled part by part. A residual dimension holds a symbol, BOS or padding, a position, or a part's value."""

    def __init__(self, program: Program) -> None:
        self.program, self.size = program, len(program.values)
        labels = [f"tokens:{name}" for name in (*program.values, PAD)] + [f"indices:{i}" for i in range(LENGTH + 1)]
        self.at = {"embed": 0, "positions": self.size + 1}
        for part in program.parts:
            self.at[part.name] = len(labels)
            labels += [f"{part.name}:{name}" for name in program.values]
        self.labels = labels
        self.key = self.size + LENGTH + 2
        """Columns of a head: a value of what is matched, a position each, and one for what comes later."""
        self.units = max([len(part.table) ** len(part.reads) for part in program.parts if part.op == "table"], default=1)
        width, heads = len(labels), HEADS * self.key
        shapes = {"attn/query": (width, heads), "attn/key": (width, heads), "attn/value": (width, heads), "attn/linear": (heads, width),
                  "mlp/linear_1": (width, self.units), "mlp/linear_2": (self.units, width)}  # fmt: skip
        self.arrays: dict[str, Float32[np.ndarray, "..."]] = {
            "token_embed/embeddings": np.eye(self.size + 1, width, dtype=np.float32),
            "pos_embed/embeddings": np.eye(LENGTH + 1, width, self.size + 1, dtype=np.float32),
        }
        for i, (name, shape) in itertools.product(range(program.layers), shapes.items()):
            self.arrays[f"transformer/layer_{i}/{name}/w"] = np.zeros(shape, dtype=np.float32)
            self.arrays[f"transformer/layer_{i}/{name}/b"] = np.zeros(shape[1], dtype=np.float32)
        for part in program.parts:
            (self._table if part.op == "table" else self._attend)(part)

    def _values(self, name: str) -> slice:
        return slice(self.at[name], self.at[name] + self.size)

    def _attend(self, part: Part) -> None:
        layer, head = part.name[1:].split("H")
        at = lambda name: self.arrays[f"transformer/layer_{layer}/attn/{name}"]  # noqa: E731
        start, m, p = int(head) * self.key, self.size, self.at["positions"]
        own, scale, value = slice(start, start + m), math.sqrt(self.key), np.eye(m, dtype=np.float32)
        spot, late, begin = slice(start + m, start + m + LENGTH + 1), start + self.key - 1, start + m
        at("value/w")[self._values(part.reads[0]), own] = value
        at("linear/w")[own, self._values(part.name)] = value
        each = np.arange(LENGTH + 1)
        if part.op == "shift":
            at("key/w")[p + each, start + m + each] = 1
            at("query/w")[p + each, start + m + np.maximum(each - part.by, 0)] = MATCH * scale
            return
        at("key/w")[p + each, late] = each  # what comes later
        at("query/b")[late] = LATER * scale
        if part.op == "first":
            at("key/w")[p + each, spot] = np.eye(LENGTH + 1, dtype=np.float32)
            at("query/b")[start + m + part.by] = MATCH * scale
            return
        at("key/w")[p, begin] = 1
        at("query/b")[begin] = FIRST * scale
        at("query/w")[self._values(part.reads[1]), own] = MATCH * scale * value
        at("key/w")[self._values(part.reads[2]), own] = value

    def _table(self, part: Part) -> None:
        at = lambda name: self.arrays[f"transformer/layer_{part.name[1:-3]}/mlp/{name}"]  # noqa: E731
        for unit, values in enumerate(itertools.product(range(self.size), repeat=len(part.reads))):
            for name, value in zip(part.reads, values, strict=True):
                at("linear_1/w")[self.at[name] + value, unit] = 1
            at("linear_1/b")[unit] = 1 - len(part.reads)
            at("linear_2/w")[unit, self.at[part.name] + int(part.table[values])] = 1


def described(program: Program) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The program as the layout has it: its description, with what its meaning gives on the examples, and its arrays."""
    weights = _Weights(program)
    edges = sorted({edge for part in program.parts for edge in part.edges()})
    outputs = {name: i for i, name in enumerate(program.values)}
    meta = {
        "name": program.name, "causal": True, "vocab": list(program.symbols), "max_seq_len": LENGTH, "compiler_bos": BOS,
        "compiler_pad": PAD, "num_heads": HEADS, "num_layers": program.layers, "key_size": weights.key, "mlp_hidden_size": weights.units,
        "d_model": len(weights.labels), "layer_norm": False, "activation": "relu", "residual_labels": weights.labels,
        "input_encoding": {name: i for i, name in enumerate((*program.values, PAD))}, "output_encoding": outputs,
        "output_is_numerical": False, "unembed_columns": [weights.at[program.output] + i for i in range(len(outputs))],
        "used_components": [part.name for part in program.parts], "n_possible_components": program.layers * (HEADS + 1),
        "edges": [list(edge) for edge in edges],
        "examples": [{"input": [BOS, *given], "output": [BOS, *program.run(given)[1:]]} for given in examples(program)],
    }  # fmt: skip
    return meta, weights.arrays


def write(program: Program, folder: Path) -> Path:
    """The program's folder, as ``compiled:FOLDER`` opens it."""
    meta, arrays = described(program)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    save: Any = np.savez  # names with slashes are what the layout has
    save(folder / "params.npz", **arrays)
    return folder
