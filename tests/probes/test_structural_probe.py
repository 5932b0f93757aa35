"""Structural probe: trees that a site holds are found there and not before; scores are a slow twin's; what is no tree is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from probes.structural_probe import INSTRUMENT, StructuralProbeSpec, Tree, scored, trees_of
from probes.token_items import read_items
from tests.probes.standin import StandIn
from workbench.core.batch import IGNORE
from workbench.core.errors import BadValue
from workbench.core.protocol import Inputs

WIDTH = 8


def parse(n: int, seed: int = 0) -> torch.Tensor:
    """Heads [sentence, pos]: each word depends on a random one before it, the first on itself."""
    rng = np.random.default_rng(seed)
    return torch.tensor([[0, *(int(rng.integers(0, pos)) for pos in range(1, WIDTH))] for _ in range(n)])


class Pathed(StandIn):
    """At the last site a word is the sum of a direction for each edge on its way to the root, turned: squared distances are the tree's.
    Its ids are the heads, so that nothing but the path knows the tree."""

    def run(self, batch: Any, *given: Any, **more: Any) -> Any:
        trace = super().run(batch, *given, **more)
        if (site := "blocks.1.hook_resid_post") in trace.at:
            path = torch.zeros(*batch.shape, 16, dtype=torch.float64)
            for row in range(len(batch)):
                for pos in range(1, batch.shape[1]):
                    path[row, pos] = path[row, int(batch[row, pos])]
                    path[row, pos, pos] = 1
            turn = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
            return replace(trace, at={**trace.at, site: path @ turn * 5})
        return trace


@pytest.mark.slow
def test_a_planted_tree_is_found_where_it_is() -> None:
    heads = parse(90)
    spec = StructuralProbeSpec.parse({"resamples": 400, "rank": 16, "epochs": 25})
    v = INSTRUMENT(Pathed(d_model=16), Inputs(heads, labels=heads), spec).values.sel(network="model")
    there, before = v.sel(site="blocks.1.hook_resid_post"), v.sel(site="hook_embed")
    assert float(there.uuas_low) > 0.85
    assert float(there.spearman_low) > 0.85
    assert float(before.uuas_high) < float(there.uuas_low) - 0.2
    assert 0.2 < float(v.chain_uuas) < 0.5


def test_scores_are_a_slow_twins() -> None:
    rng = np.random.default_rng(0)
    for n in (3, 6, 11):
        graph = nx.random_labeled_tree(n, seed=n)
        apart = np.array([[nx.shortest_path_length(graph, a, b) for b in range(n)] for a in range(n)], dtype=float)
        noise = rng.random((n, n))
        predicted = apart + 1.5 * (noise + noise.T)
        np.fill_diagonal(predicted, 0)
        tree = Tree(0, np.arange(n), apart)
        right, edges, ranks = scored(predicted, tree)
        whole = nx.Graph()
        whole.add_weighted_edges_from((a, b, predicted[a, b]) for a in range(n) for b in range(a))
        spanning = {tuple(sorted(edge)) for edge in nx.minimum_spanning_tree(whole).edges}
        assert tree.edges == {tuple(sorted(edge)) for edge in graph.edges}
        assert right == len(spanning & tree.edges)
        assert edges == n - 1
        if n < 5:
            assert np.isnan(ranks)
        else:
            others = [np.arange(n) != word for word in range(n)]
            twin: list[Any] = [spearmanr(predicted[word, keep], apart[word, keep])[0] for word, keep in enumerate(others)]
            assert ranks == pytest.approx(sum(twin) / n)


def test_what_is_no_tree_is_refused() -> None:
    ids = torch.zeros(3, 5, dtype=torch.long)
    items = read_items(StandIn(), Inputs(ids))
    for heads, words in (
        ([[0, 0, 1, 2, 3], [0, 0, 1, 4, 3], [0, 0, 0, 0, 0]], "the tree of item 1 .*not connected"),
        ([[0, 0, 1, 2, 3], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0]], "the tree of item 1 .*2 roots"),
        ([[0, 0, IGNORE, 2, 0], [0] * 5, [0] * 5], "depends on position 2, where no word is"),
    ):
        with pytest.raises(BadValue, match=words):
            trees_of(items, torch.tensor(heads))
    with pytest.raises(BadValue, match="the position each word depends on"):
        trees_of(items, torch.zeros(3, 4, dtype=torch.long))
    with pytest.raises(BadValue, match="no sentence of at least 3 words"):
        trees_of(items, torch.full((3, 5), IGNORE))
    found, short = trees_of(items, torch.tensor([[0, 0, IGNORE, IGNORE, IGNORE], [IGNORE, 1, 1, 2, IGNORE], [0] * 5]))
    assert short == 1
    assert found[0].places.tolist() == [1, 2, 3]
    assert found[0].apart.tolist() == [[0, 1, 2], [1, 0, 1], [2, 1, 0]]
