"""Circuits as sets of edges: chosen by a score so that each is one piece from the embedding to the logits, compared, and summed up in
areas.

An edge counts as *live* where it lies on a way from the embedding to the logits inside the circuit: an edge from a part that nothing
inside feeds brings what it would bring outside.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from probes.edge_graph import EdgeGraph

SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of all edges at which circuits are usually compared."""


def greedy_order(graph: EdgeGraph, score: np.ndarray) -> np.ndarray:
    """All edges in the order they join: from the logits backwards, always the one of the largest ``score [edge]`` among those whose reader
    belongs to a part that has joined (Hanna et al. 2024)."""
    into: list[list[int]] = [[] for _ in graph.readers]
    for edge, (_, v) in enumerate(graph.pairs):
        into[v].append(edge)
    opened = [False] * len(graph.readers)
    inputs, pairs = graph.inputs_of, graph.pairs
    waiting: list[tuple[float, int]] = []

    def open_reader(v: int) -> None:
        if not opened[v]:
            opened[v] = True
            for edge in into[v]:
                heapq.heappush(waiting, (-float(score[edge]), edge))

    open_reader(graph.reader("logits"))
    order: list[int] = []
    while waiting:
        edge = heapq.heappop(waiting)[1]
        order.append(edge)
        for v in inputs[pairs[edge][0]]:
            open_reader(v)
    return np.array(order)


def live(graph: EdgeGraph, inside: np.ndarray) -> np.ndarray:
    """Of ``inside [edge]`` the edges on a way from the embedding to the logits."""
    u, v = graph.ends
    grid = np.zeros(graph.allowed.shape, dtype=bool)
    grid[u, v] = inside
    inputs = graph.inputs_of
    fed = np.zeros(len(graph.writers), dtype=bool)
    fed[0] = True  # the embedding
    for k in range(1, len(fed)):
        fed[k] = bool(grid[fed][:, inputs[k]].any())
    read = np.zeros(len(graph.readers), dtype=bool)
    read[graph.reader("logits")] = True
    for k in range(len(fed) - 1, 0, -1):
        if bool(grid[k, read].any()):
            read[inputs[k]] = True
    return inside & fed[u] & read[v]


def chosen(graph: EdgeGraph, score: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """For each count the circuit ``[count, edge]`` of the live edges among the first to join, as many as fit: at most ``count``. Larger
    ones hold smaller ones."""
    order = greedy_order(graph, score)

    def first(k: int) -> np.ndarray:
        inside = np.zeros(len(graph), dtype=bool)
        inside[order[:k]] = True
        return live(graph, inside)

    out = np.zeros((len(counts), len(graph)), dtype=bool)
    for row, count in enumerate(counts):
        low, high = 0, len(order)
        while low < high:  # the most edges whose live ones fit
            middle = (low + high + 1) // 2
            low, high = (middle, high) if int(first(middle).sum()) <= count else (low, middle - 1)
        out[row] = first(low)
    return out


def counts_of(graph: EdgeGraph, sizes: Sequence[float]) -> list[int]:
    """How many edges a share is: the nearest whole number, one at least."""
    return [max(1, round(size * len(graph))) for size in sizes]


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """What two circuits share of what they hold together; NaN for two empty ones."""
    union = int((first | second).sum())
    return float("nan") if union == 0 else int((first & second).sum()) / union


def areas(sizes: Sequence[float], faithfulness: np.ndarray) -> dict[str, float]:
    """CPR, the area under the curve of faithfulness over the share of edges, and CMD, the area between it and 1 (Mueller et al. 2025);
    trapezoids from the smallest size to the largest, on the linear axis as defined there, so that the half from 50 % to 100 % counts for
    half. ``_log``: the same on the axis of the logarithm, over its length. NaN for fewer than two sizes."""
    x, y = np.asarray(sizes, dtype=float), np.asarray(faithfulness, dtype=float)
    if len(x) < 2 or not np.isfinite(y).all():
        return dict.fromkeys(("cpr", "cmd", "cpr_log", "cmd_log"), float("nan"))
    log, length = np.log(x), float(np.log(x[-1] / x[0]))
    area = lambda values, at: float(((values[1:] + values[:-1]) / 2 * np.diff(at)).sum())  # noqa: E731
    far = np.abs(1 - y)
    return {"cpr": area(y, x), "cmd": area(far, x), "cpr_log": area(y, log) / length, "cmd_log": area(far, log) / length}
