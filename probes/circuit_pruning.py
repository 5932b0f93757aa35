"""Circuits by greedy pruning: every edge is taken out in turn, and stays out where the answer hardly moves.

From the logits backwards, reader by reader, the edge under test is patched on top of all that were taken out before; it stays out where the
distance from the whole model's answer rises by less than the threshold. Edges into parts that nothing reads any more go untested. Several
edges are tried in one pass, each on top of the ones before it as if they all went out: what follows the first that stays in is tried anew,
so the outcome is that of one edge at a time.

Source: Conmy et al., Towards Automated Circuit Discovery for Mechanistic Interpretability, 2023 (arXiv:2304.14997).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from probes.circuits import live
from probes.edge_graph import EdgeGraph
from probes.edge_runs import Part, run_circuits
from workbench.core.protocol import Progress

TOGETHER = 16
"""Edges tried in one pass."""


def distances(parts: Sequence[Part], inside: np.ndarray, memory: int) -> np.ndarray:
    """How far each circuit's answers are from the whole model's, ``[circuit, batch]``: the number read (KL is a distance by itself, 0 at
    the clean run), its absolute change."""
    return np.concatenate([np.abs(run_circuits(part, inside, memory) - part.clean) for part in parts], 1)


def prune(
    parts: Sequence[Part], graph: EdgeGraph, threshold: float, memory: int, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The edges kept, and how much the mean distance rose as each was tried, ``[edge]`` (NaN: not tried)."""
    kept = np.ones(len(graph), dtype=bool)
    rise = np.full(len(graph), np.nan)
    current = float(distances(parts, kept[None], memory).mean())
    order = _order(graph)
    done = 0
    for edges in order:
        waiting = list(edges) if read_at_all(graph, kept, graph.pairs[edges[0]][1]) else []
        kept[edges] &= bool(waiting)
        while waiting:
            trial = waiting[:TOGETHER]
            inside = np.repeat(kept[None], len(trial), 0)
            for k, edge in enumerate(trial):
                inside[k:, edge] = False
            for edge, away in zip(trial, distances(parts, inside, memory).mean(1).tolist(), strict=True):
                rise[edge] = away - current
                waiting.remove(edge)
                if rise[edge] >= threshold:
                    break
                kept[edge], current = False, away
        done += len(edges)
        progress(done, len(graph), "edges")
    return kept, rise


def read_at_all(graph: EdgeGraph, kept: np.ndarray, reader: int) -> bool:
    """Whether what a reader reads can reach the logits through kept edges."""
    from_embedding = graph.pairs.index((0, reader))  # every reader reads the embedding, which reads nothing
    probe = kept.copy()
    probe[from_embedding] = True
    return bool(live(graph, probe)[from_embedding])


def _order(graph: EdgeGraph) -> list[list[int]]:
    """The edges into each reader, last reader and last writer first."""
    into: list[list[int]] = [[] for _ in graph.readers]
    for edge, (_, v) in enumerate(graph.pairs):
        into[v].append(edge)
    last = sorted(range(len(graph.readers)), key=lambda v: (-graph.readers[v].stage, v))
    return [sorted(into[v], key=lambda edge: -graph.pairs[edge][0]) for v in last]
