"""Attention flow: how much could reach an input token if attention weights were the widths of pipes.

Nodes are positions at each depth. From position q after layer l to position k before it runs a pipe as wide as the mixed weight

    M_l[q, k],   M_l = normalise_rows((1 - residual) mean_over_heads(A_l) + residual I)

and the flow from q after layer l to input k is the largest that all pipes between them carry together (a maximum flow, found on integers,
widths in units of 2**-30). It is never less than the rollout, which sends along every path what its weights multiply to, and unlike the
rollout it may use a wide way fully; the flows of one query to its keys are found one by one and do not add up to one.

Source: Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020 (arXiv:2005.00928), section 3; maximum flow, Dinic 1970.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import maximum_flow

UNIT = 1 << 30
"""Widths are whole numbers of 1 / UNIT. What leaves a query is one in all, so no flow exceeds what an int32 holds."""


def pipes(mixed: Float[np.ndarray, "layer query key"]) -> csr_array:
    """The graph: node ``depth * width + position``, with edges from each depth to the one below; widths in units."""
    layers, width, _ = mixed.shape
    depth, query, key = np.nonzero(mixed)
    units = np.rint(mixed[depth, query, key] * UNIT).astype(np.int32)
    nodes = (layers + 1) * width
    graph = csr_array(coo_array((units, ((depth + 1) * width + query, depth * width + key)), shape=(nodes, nodes)))
    graph.eliminate_zeros()
    return graph


def flow(
    mixed: Float[np.ndarray, "layer query key"], done: Callable[[int], None] = lambda count: None
) -> Float[np.ndarray, "layer query key"]:
    """The flow after each layer, of mixed weights whose rows sum to one. ``done`` is told how many layers are finished.

    Off by at most half a unit for every pipe of the narrowest cut, so by less than pipes / 2**31.
    """
    layers, width, _ = mixed.shape
    out = np.zeros(mixed.shape)
    out[0] = mixed[0]  # one layer of pipes: the way is the pipe
    graph, reach = pipes(mixed), mixed[0] > 0
    for layer in range(1, layers):
        reach = (mixed[layer] > 0).astype(int) @ reach > 0
        nodes = (layer + 2) * width
        below = graph[:nodes, :nodes]
        for query, key in zip(*np.nonzero(reach), strict=True):
            out[layer, query, key] = maximum_flow(below, (layer + 1) * width + int(query), int(key)).flow_value / UNIT
        done(layer + 1)
    return out
