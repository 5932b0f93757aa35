"""Continuations of one context as a token tree, scored in one pass.

Every distinct prefix is one node, so shared prefixes are computed once; a node attends to the context and to its own
ancestors only (tree attention), at the position it would have had alone. With positions given explicitly the result is
exact for learned and rotary positions. Leaves are never run: the log-probability of an edge (node, token) comes from the
node's own logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.engine.tokens import Encoded

ROOT = -1
"""The node every tree hangs from: the last token of the context."""


@dataclass
class Tree:
    """The inner nodes below a context, parents before children, and the edges to be scored.

    ``token``, ``parent`` (``ROOT`` for the context's end) and ``depth`` (1 = right after the context) per node;
    ``edges`` are (node, target token); ``paths[c]`` lists the edges of continuation ``c`` in order.
    """

    token: list[int] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)
    paths: list[list[int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.token)


@lru_cache(maxsize=2)
def tree_of(continuations: tuple[tuple[int, ...], ...]) -> Tree:
    """The tree of the continuations. Sorted insertion puts the nodes in depth-first order, which chunks well.

    The last trees are kept, since a suite may ask for one large space after many contexts; a tree is never changed once built.
    """
    tree = Tree(paths=[[] for _ in continuations])
    edge_at: dict[tuple[int, int], int] = {}
    child_at: dict[tuple[int, int], int] = {}
    for number in sorted(range(len(continuations)), key=lambda c: continuations[c]):
        node = ROOT
        ids = continuations[number]
        for place, token in enumerate(ids):
            step = (node, token)
            if step not in edge_at:
                edge_at[step] = len(tree.edges)
                tree.edges.append(step)
            tree.paths[number].append(edge_at[step])
            if place + 1 == len(ids):
                break
            if step not in child_at:
                child_at[step] = len(tree)
                tree.token.append(token)
                tree.parent.append(node)
                tree.depth.append(place + 1)
            node = child_at[step]
    return tree


def ancestry(parents: Sequence[int]) -> np.ndarray:
    """``[node, node]`` bool: which nodes each node sees (itself and its ancestors). Parents precede their children."""
    seen = np.zeros((len(parents), len(parents)), dtype=bool)
    for node, parent in enumerate(parents):
        if parent != ROOT:
            seen[node] = seen[parent]
        seen[node, node] = True
    return seen


def pieces_of(tree: Tree, most: int) -> Iterator[list[int]]:
    """The nodes in runs of at most ``most``, each closed under ancestors: a run begins by repeating its first node's ancestors.

    A path deeper than ``most`` makes a longer run, since it cannot be cut.
    """
    piece: list[int] = []
    for node in range(len(tree)):
        if not piece or len(piece) >= most:
            if piece:
                yield piece
            piece = []
            above = tree.parent[node]
            while above != ROOT:
                piece.append(above)
                above = tree.parent[above]
            piece.reverse()
        piece.append(node)
    if piece:
        yield piece


@dataclass(frozen=True)
class Batch:
    """Rows laid out for one run: contexts end in column ``start``, trees begin in the next.

    ``mask`` is None where every row is a plain sequence without padding before it (causal order suffices).
    """

    tokens: Int[Tensor, "batch pos"]
    positions: Int[Tensor, "batch pos"] | None
    mask: Bool[Tensor, "batch pos pos"] | None
    start: int


def layout(rows: Sequence[tuple[Encoded, Tree]]) -> Batch:
    """Rows side by side: padded on the left so that contexts end together, on the right where trees are smaller.

    Padding sees only itself and is seen by nobody, so a row's numbers do not depend on its neighbours.
    """
    lead = max(len(request.context) for request, _ in rows)
    width = lead + max(len(tree) for _, tree in rows)
    tokens = np.zeros((len(rows), width), dtype=np.int64)
    positions = np.zeros((len(rows), width), dtype=np.int64)
    mask = np.zeros((len(rows), width, width), dtype=bool)
    mask[:, np.arange(width), np.arange(width)] = True
    for row, (request, tree) in enumerate(rows):
        length, size = len(request.context), len(tree)
        first = lead - length
        tokens[row, first:lead] = request.context
        positions[row, first:lead] = np.arange(length)
        mask[row, first:lead, first:lead] = np.tri(length, dtype=bool)
        tokens[row, lead : lead + size] = tree.token
        positions[row, lead : lead + size] = np.asarray(tree.depth, dtype=np.int64) + (length - 1)
        mask[row, lead : lead + size, first:lead] = True
        mask[row, lead : lead + size, lead : lead + size] = ancestry(tree.parent)
    return Batch(torch.from_numpy(tokens), torch.from_numpy(positions), torch.from_numpy(mask), lead - 1)


def chains(rows: Sequence[tuple[int, ...]]) -> Int[Tensor, "batch pos"]:
    """Plain sequences padded on the right, where causal order already keeps padding out of sight."""
    width = max(len(row) for row in rows)
    out = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        out[number, : len(row)] = torch.tensor(row)
    return out
