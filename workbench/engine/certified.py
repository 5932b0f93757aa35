"""Scores that do not change a bit with the batch, its order or what else is asked: one forest of all texts, each beginning run once.

What moves a float32 number on a CPU, and what is done about it here and in ``blocks.forest``:

* the number of rows of a product: rows are padded to a multiple of ``TILE``;
* where a row's activations fall among the lanes of vector instructions: where ``TILE`` does not make every thread's share a
  whole number of them, ``ROWS`` does;
* the number of keys, their order and masked neighbours: a path's keys stand in the order of the path, in a width fixed by the position;
* the number of threads: it stays what it was, and the certificate names it.

Everything else acts on one token at a time. This holds for float32 and float64 on a CPU, and tests hold it to that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.core.protocol import HookedModel, Resume
from workbench.engine.reading import Values, Wanted, read
from workbench.engine.tokens import Encoded
from workbench.engine.tree import ROOT

TILE = 16
"""Rows of whole tiles of a product."""
ROWS = 32
"""Rows a thread that make whole vectors of activations of any width."""
GRAIN = 32_768
"""torch gives each thread at least so many elements (``at::internal::GRAIN_SIZE``)."""
WIDE = (torch.float32, torch.float64)
LOGITS = 7 << 20
"""Logits made at once: 28 MiB in float32, a block that ``engine.memory`` keeps."""


def outside(model: Any) -> str:
    """Why ``model`` is outside the certificate, as a clause; '' where it is inside."""
    if "parents" not in getattr(model, "resumes", ()):
        return f"this {model.family} model cannot run texts as a forest"
    weight = model.weight("W_E")
    if weight.device.type != "cpu":
        return f"its weights are on {weight.device.type}, where kernels choose their own order"
    kind = str(weight.dtype).removeprefix("torch.")
    return "" if weight.dtype in WIDE else f"its weights are {kind}, and float32 or float64 is certified"


def padded(rows: int, config: Any) -> int:
    """The number of rows a pass of ``rows`` is padded to."""
    threads = torch.get_num_threads()
    width = getattr(config, "d_mlp", 0) or getattr(config, "d_model", 0) or 1
    even = threads <= 2 and width % (2 * threads) == 0  # then half as many rows make whole vectors too
    unit = TILE if even else ROWS * threads
    # With more than two threads torch may use fewer for a small pass, in shares that split a vector.
    least = -(-GRAIN * threads // width) if threads > 2 else 1
    return -(-max(rows, least) // unit) * unit


@dataclass(frozen=True)
class Unit:
    """One continuation to be scored: what is read (its last token never is), where reading begins to predict, and the targets."""

    read: tuple[int, ...]
    first: int
    targets: tuple[int, ...]
    request: int
    number: int


@dataclass
class Pass:
    """A forest under way: its tokens, what is to be scored of it, and the path that was added last."""

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    path: list[int] = field(default_factory=list)
    last: tuple[int, ...] = ()

    def add(self, unit: Unit) -> None:
        """Add a text; it shares what it has in common with the last one, so texts come sorted."""
        common = shared(self.last, unit.read)
        base = len(self.tokens)
        new = range(base, base + len(unit.read) - common)
        self.tokens.extend(unit.read[common:])
        self.parents.extend(([self.path[common - 1] if common else ROOT, *new[:-1]]) if new else ())
        self.path = [*self.path[:common], *new]
        self.last = unit.read
        self.nodes.extend(self.path[unit.first :])
        self.targets.extend(unit.targets)
        self.units.append(unit)

    def with_(self, unit: Unit) -> int:
        """How many tokens it would have with ``unit``."""
        return len(self.tokens) + len(unit.read) - shared(self.last, unit.read)


def shared(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """How many tokens both begin with."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def passes(ready: Sequence[tuple[int, Encoded]], budget: int) -> Iterator[Pass]:
    """The forests, each of at most ``budget`` tokens (a longer text makes a longer one). Texts are sorted: what they share is run once."""
    units = [
        Unit(request.context + ids[:-1], len(request.context) - 1, ids, index, number)
        for index, request in ready
        for number, ids in enumerate(request.continuations)
    ]
    now = Pass()
    for unit in sorted(units, key=lambda u: u.read):
        if now.units and now.with_(unit) > budget:
            yield now
            now = Pass()
        now.add(unit)
    if now.units:
        yield now


def certified(model: HookedModel, ready: Sequence[tuple[int, Encoded]], budget: int, wanted: Wanted) -> Iterator[tuple[int, list[Values]]]:
    """(index of the request, for each continuation its tokens' values), a request as soon as its last continuation is scored."""
    waiting: dict[int, list[Values | None]] = {index: [None] * len(request.continuations) for index, request in ready}
    left = {index: len(found) for index, found in waiting.items()}
    for now in passes(ready, budget):
        values, first = _run(model, now, wanted), 0
        for unit in now.units:
            waiting[unit.request][unit.number] = values[first : first + len(unit.targets)]
            first += len(unit.targets)
            left[unit.request] -= 1
            if not left[unit.request]:
                yield unit.request, [found for found in waiting.pop(unit.request) if found is not None]


def _run(model: HookedModel, now: Pass, wanted: Wanted) -> Values:
    """The values of a pass's edges: the layers once, then the logits of the scored positions, a bounded number at a time."""
    scored, where = np.unique(np.asarray(now.nodes), return_inverse=True)
    stream = _stream(model, now, torch.from_numpy(scored))
    vocabulary = int(getattr(model.config, "d_vocab", 1))
    step = padded(1, model.config)
    step = max(step, LOGITS // max(1, vocabulary) // step * step)
    targets, out = torch.tensor(now.targets), np.empty((0, 0))
    for first in range(0, len(scored), step):
        chosen = ((where >= first) & (where < first + step)).nonzero()[0]
        values = read(_logits(model, stream[first : first + step]), torch.from_numpy(where[chosen] - first), targets[chosen], wanted)
        out = out if out.size else np.empty((len(where), values.shape[1]))
        out[chosen] = values
    return out


def _last(model: HookedModel) -> str:
    return [name for name in model.sites() if name.endswith("hook_resid_post")][-1]


def _stream(model: HookedModel, now: Pass, scored: Tensor) -> Tensor:
    """What the layers leave at the scored positions ``[place, d_model]``."""
    size, many = padded(len(now.tokens), model.config), padded(len(scored), model.config)
    filler = size - len(now.tokens)
    tokens = torch.tensor([now.tokens + [now.tokens[0]] * filler])
    parents = torch.tensor(now.parents + [ROOT] * filler)
    stop, only = _last(model), torch.cat([scored, scored[-1:].expand(many - len(scored))])
    if "only" in getattr(model, "resumes", ()):
        trace = model.run(tokens, capture=(stop,), logits=None, resume=Resume(parents=parents, stop=stop, only=only[None]))
        return trace[stop][0, : len(scored)]
    return model.run(tokens, capture=(stop,), logits=None, resume=Resume(parents=parents, stop=stop))[stop][0, scored]


def _logits(model: HookedModel, stream: Tensor) -> Tensor:
    """Logits ``[place, d_vocab]`` of rows of the last stream."""
    many = padded(len(stream), model.config)
    filled = torch.cat([stream, stream[-1:].expand(many - len(stream), -1)])[None]
    start = Resume(start=_last(model), residual=filled, positions=torch.zeros(1, many, dtype=torch.long))
    logits = model.run(None, logits="all", resume=start).logits
    assert logits is not None, "logits were asked for"
    return logits[0]
