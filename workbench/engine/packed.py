"""Scores of packed rows: a context with its continuations as a token tree, and rows of like length side by side.

Fast, and not certified: a token's last bits depend on what stands beside it in the row and in the batch (1e-5 a scored token in float32,
tested). Models without masks and a cache get a plain row a continuation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.core.protocol import HookedModel, Resume
from workbench.engine.reading import CELLS, COLUMNS, Values, Wanted, read
from workbench.engine.tokens import Encoded
from workbench.engine.tree import ROOT, Tree, ancestry, chains, layout, pieces_of, tree_of

PIECE = 512
"""Tree nodes a run when a tree is too big for one row: attention costs piece², running the context again costs nothing (past)."""

Found = tuple[int, list[Values]]

# --- trees --------------------------------------------------------------------------------------------------


def packed(model: HookedModel, ready: Sequence[tuple[int, Encoded]], budget: int, wanted: Wanted) -> Iterator[Found]:
    """(index of the request, for each continuation its tokens' values), in the order they are ready."""
    whole = {"mask", "cache"} <= set(model.abilities)
    yield from (_trees if whole else _plain)(model, ready, budget, wanted)


def _trees(model: HookedModel, ready: Sequence[tuple[int, Encoded]], budget: int, wanted: Wanted) -> Iterator[Found]:
    grown = [(index, request, tree_of(request.continuations)) for index, request in ready]
    small = [g for g in grown if len(g[2]) <= PIECE and len(g[1].context) + len(g[2]) <= budget]
    kept = {g[0] for g in small}
    for group in _packed(small, budget, vocabulary_of(model)):
        yield from _row_group(model, group, wanted)
    for index, request, tree in grown:
        if index not in kept:
            yield index, _answers(tree, _big_tree(model, request, tree, min(PIECE, budget), wanted))


def _packed(rows: Iterable[tuple[int, Encoded, Tree]], budget: int, vocabulary: int) -> Iterator[list[tuple[int, Encoded, Tree]]]:
    """Rows of like length together, under the token budget and the bound on logits."""
    group: list[tuple[int, Encoded, Tree]] = []
    lead = wide = 0
    for row in sorted(rows, key=lambda r: (len(r[1].context) + len(r[2]), len(r[2]), r[0])):
        new_lead, new_wide = max(lead, len(row[1].context)), max(wide, len(row[2]))
        count = len(group) + 1
        if group and (count * (new_lead + new_wide) > budget or count * (new_wide + 1) * vocabulary > CELLS):
            yield group
            group, new_lead, new_wide = [], len(row[1].context), len(row[2])
        group.append(row)
        lead, wide = new_lead, new_wide
    if group:
        yield group


def _row_group(model: HookedModel, group: Sequence[tuple[int, Encoded, Tree]], wanted: Wanted) -> Iterator[Found]:
    batch = layout([(request, tree) for _, request, tree in group])
    asked = list(range(batch.start, batch.tokens.shape[1]))
    trace = model.run(batch.tokens, logits=asked, resume=Resume(positions=batch.positions, mask=batch.mask))
    rows = [row for row, (_, _, tree) in enumerate(group) for _ in tree.edges]
    places = [node + 1 for _, _, tree in group for node, _ in tree.edges]  # ROOT = −1 is the context's last column
    targets = [target for _, _, tree in group for _, target in tree.edges]
    values = _read(_logits(trace), rows, places, targets, wanted)
    first = 0
    for index, _, tree in group:
        yield index, _answers(tree, values[first : first + len(tree.edges)])
        first += len(tree.edges)


def _big_tree(model: HookedModel, request: Encoded, tree: Tree, most: int, wanted: Wanted) -> Values:
    """Edge values of a tree too big for one row: the context runs once, the tree in pieces on its cache."""
    length = len(request.context)
    trace = model.run(torch.tensor([request.context]), logits="last", cache=True)
    past, values = trace.past, np.full((len(tree.edges), COLUMNS[wanted]), math.nan)
    below: list[list[int]] = [[] for _ in range(len(tree) + 1)]
    for edge, (node, _) in enumerate(tree.edges):
        below[node + 1].append(edge)

    def fill(logits: Tensor, nodes: Sequence[int]) -> None:
        chosen = [(place, edge) for place, node in enumerate(nodes) for edge in below[node + 1] if math.isnan(values[edge, 0])]
        if not chosen:
            return
        at, targets = [place for place, _ in chosen], [tree.edges[edge][1] for _, edge in chosen]
        values[[edge for _, edge in chosen]] = _read(logits, [0] * len(at), at, targets, wanted)

    fill(_logits(trace), [ROOT])
    for piece in pieces_of(tree, most):
        inside = {node: place for place, node in enumerate(piece)}
        seen = torch.from_numpy(ancestry([inside.get(tree.parent[node], ROOT) for node in piece]))
        mask = torch.cat([torch.ones(len(piece), length, dtype=torch.bool), seen], dim=1)[None]
        positions = torch.tensor([[length - 1 + tree.depth[node] for node in piece]])
        tokens = torch.tensor([[tree.token[node] for node in piece]])
        fill(_logits(model.run(tokens, logits="all", resume=Resume(past=past, positions=positions, mask=mask))), piece)
    return values


def _answers(tree: Tree, values: Values) -> list[Values]:
    return [values[path] for path in tree.paths]


# --- plain rows ---------------------------------------------------------------------------------------------


def _plain(model: HookedModel, ready: Sequence[tuple[int, Encoded]], budget: int, wanted: Wanted) -> Iterator[Found]:
    """For a model that takes no mask or cache: one row a continuation, padded on the right."""
    jobs = [(request.context + ids[:-1], ids, index, c) for index, request in ready for c, ids in enumerate(request.continuations)]
    open_answers: dict[int, list[Values | None]] = {index: [None] * len(request.continuations) for index, request in ready}
    group: list[tuple[tuple[int, ...], tuple[int, ...], int, int]] = []
    vocabulary = vocabulary_of(model)

    def flush() -> Iterator[Found]:
        scored = sequences(model, [(row, len(row) - len(ids), ids) for row, ids, _, _ in group], wanted)
        for (_, _, index, c), values in zip(group, scored, strict=True):
            open_answers[index][c] = values
            if all(v is not None for v in open_answers[index]):
                yield index, [v for v in open_answers.pop(index) if v is not None]
        group.clear()

    for job in sorted(jobs, key=lambda j: (len(j[0]), j[2], j[3])):
        wide = (len(group) + 1) * len(job[0])
        if group and (wide > budget or wide * vocabulary > CELLS):
            yield from flush()
        group.append(job)
    if group:
        yield from flush()


def sequences(model: HookedModel, rows: Sequence[tuple[tuple[int, ...], int, tuple[int, ...]]], wanted: Wanted) -> list[Values]:
    """Values of ``targets`` read at columns ``first`` … of each plain row (row, first, targets)."""
    tokens = chains([row for row, _, _ in rows])
    start = min(first for _, first, _ in rows)
    trace = model.run(tokens, logits=list(range(start, tokens.shape[1])))
    where = [(number, first - start + k, target) for number, (_, first, targets) in enumerate(rows) for k, target in enumerate(targets)]
    row, place, target = (list(part) for part in zip(*where))
    values = _read(_logits(trace), row, place, target, wanted)
    ends = np.cumsum([len(targets) for _, _, targets in rows])[:-1]
    return np.split(values, ends)


def _read(logits: Tensor, rows: Sequence[int], places: Sequence[int], targets: Sequence[int], wanted: Wanted) -> Values:
    at = torch.tensor(rows, dtype=torch.long) * logits.shape[1] + torch.tensor(places, dtype=torch.long)
    return read(logits.flatten(0, 1), at, torch.tensor(targets, dtype=torch.long), wanted)


def _logits(trace: Any) -> Tensor:
    assert trace.logits is not None, "logits were asked for"
    return trace.logits


def vocabulary_of(model: HookedModel) -> int:
    """How many logits a position has."""
    return getattr(model.config, "d_vocab", None) or (model.tokenizer.vocab_size if model.tokenizer is not None else 1)
