"""Circuits: chosen in one piece, pruned as one edge at a time would be, run exactly, and found where they were planted."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.circuit_discovery import INSTRUMENT, CircuitDiscoverySpec, discovered, faithfulness
from probes.circuit_pruning import distances, prune
from probes.circuit_result import CircuitDiscoveryResult
from probes.circuits import SIZES, areas, chosen, counts_of, greedy_order, jaccard, live
from probes.edge_graph import EdgeGraph
from probes.edge_runs import run_circuits
from probes.held_out import split
from tests.adapters.test_compiled import previous, written
from tests.families.models import build
from tests.probes.lookup import induction, looked_up, swapped
from tests.probes.test_edges import pair, prepared, target
from workbench.adapters.compiled import load
from workbench.core.errors import AssayError, BadValue, Incompatible
from workbench.core.protocol import Inputs, silent
from workbench.core.result import Result
from workbench.families.gpt import GPT

GRAPH: list[EdgeGraph] = []


def graph() -> EdgeGraph:
    """The graph of two layers with grouped keys and values."""
    if not GRAPH:
        model = build("grouped", dtype=torch.float64)
        GRAPH.append(prepared(model, pair(model))[0])
    return GRAPH[0]


def spec(**fields: Any) -> CircuitDiscoverySpec:
    return CircuitDiscoverySpec.parse(fields)


def find(model: GPT, inputs: Inputs, **fields: Any) -> CircuitDiscoveryResult:
    result = INSTRUMENT(model, inputs, spec(**fields))
    assert isinstance(result, CircuitDiscoveryResult)
    return result


# --- choosing ---------------------------------------------------------------------------------------------------


def live_by_paths(g: EdgeGraph, inside: np.ndarray) -> np.ndarray:
    """Twin of ``live``: every way from the embedding to the logits is walked."""
    out = np.zeros(len(g), dtype=bool)
    kept = [(k, g.writers[u].name, g.readers[v]) for k, (u, v) in enumerate(g.pairs) if inside[k]]

    def walk(writer: str, way: list[int]) -> None:
        for k, u, reader in kept:
            if u == writer and reader.name == "logits":
                out[[*way, k]] = True
            elif u == writer:
                for after in reader.of:
                    walk(after, [*way, k])

    walk("embed", [])
    return out


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.25))
def test_live_edges_are_those_on_a_way_through(seed: int, share: float) -> None:
    g = graph()
    inside = np.random.default_rng(seed).random(len(g)) < share
    assert np.array_equal(live(g, inside), live_by_paths(g, inside))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_chosen_circuits_are_in_one_piece_nested_and_no_larger_than_asked(seed: int) -> None:
    g = graph()
    score = np.random.default_rng(seed).random(len(g))
    counts = counts_of(g, SIZES)
    found = chosen(g, score, counts)
    for one, count in zip(found, counts, strict=True):
        assert one.sum() <= count
        assert np.array_equal(live(g, one), one)
    assert all((small <= large).all() for small, large in pairwise(found))
    assert found[-1].all()
    order = greedy_order(g, score)
    assert sorted(order) == list(range(len(g)))
    opened = {"logits"}  # twin of the greedy order: each next edge is the best of those whose reader has joined
    for k, edge in enumerate(order):
        rest = [other for other in order[k:] if g.readers[g.pairs[other][1]].name in opened]
        assert edge in rest
        assert score[edge] == max(score[rest])
        opened |= {v.name for v in g.readers if g.writers[g.pairs[edge][0]].name in v.of}


def test_areas_are_those_that_are_defined() -> None:
    """A circuit that does nothing before it is whole: the published scores of random circuits."""
    step = areas(SIZES, np.array([0.0] * 9 + [1.0]))
    assert step["cpr"] == pytest.approx(0.25)
    assert step["cmd"] == pytest.approx(0.749)
    assert step["cpr_log"] == pytest.approx(0.5 * np.log(2) / np.log(1000))
    whole = areas(SIZES, np.ones(10))
    assert (whole["cpr"], whole["cmd"]) == (pytest.approx(0.999), 0.0)
    assert (whole["cpr_log"], whole["cmd_log"]) == (pytest.approx(1.0), 0.0)
    above = areas(SIZES, np.full(10, 2.0))
    assert (above["cpr_log"], above["cmd_log"]) == (pytest.approx(2.0), pytest.approx(1.0))  # too much is no match
    assert np.isnan(areas((1.0,), np.ones(1))["cpr"])
    assert np.isnan(areas(SIZES, np.full(10, np.nan))["cmd"])


def test_small_words() -> None:
    one, two = np.array([True, True, False]), np.array([False, True, True])
    assert jaccard(one, two) == pytest.approx(1 / 3)
    assert np.isnan(jaccard(one & False, two & False))
    value, whole, none = np.array([[1.0, 3.0]]), np.array([2.0, 6.0]), np.array([0.0, 2.0])
    assert faithfulness(value, whole, none)[0] == pytest.approx((2 - 1) / (4 - 1))  # of means, not of ratios
    assert np.isnan(faithfulness(value, whole, whole)[0])


# --- pruning ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.2, pytest.param(0.02, marks=pytest.mark.slow)])
def test_pruning_is_one_edge_at_a_time(threshold: float) -> None:
    """Twin: the plain loop of Conmy et al., one run an edge."""
    model = build("grouped", dtype=torch.float64)
    g, part = prepared(model, pair(model))
    kept, rise = prune([part], g, threshold, 1 << 30, silent)
    inside, current = np.ones(len(g), dtype=bool), 0.0
    expected = np.full(len(g), np.nan)
    for v in sorted(range(len(g.readers)), key=lambda k: (-g.readers[k].stage, k)):
        edges = [k for k, (_, r) in enumerate(g.pairs) if r == v][::-1]
        reached = {"logits"}
        for k in sorted(range(len(g)), key=lambda k: -g.readers[g.pairs[k][1]].stage):
            if inside[k] and g.readers[g.pairs[k][1]].name in reached:
                reached |= {r.name for r in g.readers if g.writers[g.pairs[k][0]].name in r.of}
        for edge in edges:
            if g.readers[v].name not in reached:
                inside[edge] = False
                continue
            trial = inside.copy()
            trial[edge] = False
            away = float(distances([part], trial[None], 1 << 30).mean())
            expected[edge] = away - current
            if expected[edge] < threshold:
                inside, current = trial, away
    assert np.array_equal(kept, inside)
    assert np.allclose(rise, expected, atol=1e-10, equal_nan=True)
    assert 0 < kept.sum() < len(g)


def distances_of(result: CircuitDiscoveryResult) -> float:
    """How far the pruned circuit's answers are from the whole model's."""
    v: Any = result.values
    return float(np.abs(v.value.values[v.kind.values == "pruned"] - v.value.values[v.kind.values == "all"]).mean())


@pytest.mark.slow
def test_a_pruned_circuit_is_run_beside_those_of_each_size() -> None:
    model = build("grouped", dtype=torch.float64)
    inputs = pair(model, rows=6)
    result = find(model, inputs, method="greedy-pruning", threshold=0.05, nulls=1, resamples=3)
    v: Any = result.values
    one: Any = result.curve("pruned").iloc[0]
    assert one.edges <= int(v.kept.values.sum())
    assert float(distances_of(result)) < 0.05 * int((~v.kept.values).sum())
    assert np.isnan(result.curve().stability).all()
    assert "Pruning kept" in result.summary()
    kept = find(model, inputs, method="greedy-pruning", threshold=1e-12, nulls=0, resamples=0)
    assert float(kept.curve("pruned").faithfulness.iloc[0]) == pytest.approx(1.0, abs=1e-9)
    none = find(model, inputs, method="greedy-pruning", threshold=1e9, nulls=0, resamples=0)
    assert int(none.curve("pruned").edges.iloc[0]) == 0
    assert float(none.curve("pruned").faithfulness.iloc[0]) == pytest.approx(0.0, abs=1e-9)


# --- the result -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["eap", *(pytest.param(name, marks=pytest.mark.slow) for name in ("exact", "eap-ig-activations"))])
def test_a_result_holds_what_its_circuits_are_worth(by: str) -> None:
    model = build("grouped", dtype=torch.float64)
    inputs = pair(model, rows=6)
    result = find(model, inputs, by=by, nulls=2, resamples=6, sizes=[0.05, 0.2, 0.5, 1.0])
    v: Any = result.values
    g, part = prepared(model, inputs)
    clean, corrupt = (target(model.run(ids), inputs) for ids in (inputs.batch, inputs.reference))
    named = {kind: v.value.values[v.kind.values == kind] for kind in ("all", "none", "found", "complement", "random")}
    assert np.abs(named["all"] - clean).max() < 1e-10
    assert np.abs(named["none"] - corrupt).max() < 1e-10
    for k, size in enumerate((0.05, 0.2, 0.5, 1.0)):
        edges = set(result.circuit(size))
        inside = np.array([[name in edges for name in g.names]])
        assert len(edges) == int(result.curve().edges[k]) <= round(size * len(g))
        assert np.abs(run_circuits(part, inside, 1 << 30) - named["found"][k]).max() < 1e-10
        assert np.abs(run_circuits(part, ~inside, 1 << 30) - named["complement"][k]).max() < 1e-10
        expected = (named["found"][k].mean() - corrupt.mean()) / (clean.mean() - corrupt.mean())
        assert result.curve().faithfulness[k] == pytest.approx(expected)
    assert result.curve().faithfulness.iloc[-1] == pytest.approx(1.0)
    assert result.curve("complement").faithfulness.iloc[-1] == pytest.approx(0.0, abs=1e-9)
    assert named["random"].shape == (8, 6)
    assert np.abs(named["random"][:3] - named["random"][4:7]).max() > 1e-3  # other circuits
    found = result.curve()
    draws = np.random.default_rng([0, 1]).integers(0, 6, (1000, 6))  # clean and corrupt are drawn together
    again = (named["found"][2][draws].mean(1) - corrupt[draws].mean(1)) / (clean[draws].mean(1) - corrupt[draws].mean(1))
    assert np.allclose([found.low[2], found.high[2]], np.quantile(again, (0.025, 0.975)))
    assert (found.low <= found.faithfulness + 1e-9).all()
    assert (found.high >= found.faithfulness - 1e-9).all()
    assert ((found.stability >= 0) & (found.stability <= 1))[found.edges > 0].all()
    assert found.stability.iloc[-1] == 1
    assert float(v.cpr) == pytest.approx(areas((0.05, 0.2, 0.5, 1.0), found.faithfulness.to_numpy())["cpr"])
    random = result.curve("random")
    assert (random.low <= random.high).all()
    assert Result.from_json(result.to_json()).digest() == result.digest()
    layers = [one for one in result.plot().to_dict()["layer"] if "field" in one.get("encoding", {}).get("x", {})]
    assert all(one["encoding"]["x"]["scale"]["type"] == "log" for one in layers)
    assert layers


def test_scores_are_by_size_or_by_what_helps() -> None:
    model = build("grouped", dtype=torch.float64)
    inputs = pair(model, rows=4)
    size, helps = (find(model, inputs, by="exact", order=order, nulls=0, resamples=0) for order in ("size", "helping"))
    assert np.array_equal(size.values.score.values, np.abs(helps.values.score.values))
    assert (helps.values.score.values < 0).any()
    assert np.isnan(float(size.values.random_cpr))
    assert np.isnan(size.curve().stability).all()


def test_zero_ablation_needs_no_corrupt_input() -> None:
    model = build("no_norm", dtype=torch.float64)
    inputs = replace(pair(model), reference=None)
    result = find(model, inputs, replacement="zero", nulls=1, resamples=2)
    assert result.curve().faithfulness.iloc[-1] == pytest.approx(1.0)
    own = discovered(
        model, inputs, spec(replacement="mean", nulls=0, resamples=0), metric=lambda given: given.max(-1).values, name="the top"
    )
    assert "The number read is the top;" in " ".join(own.notes)


# --- planted ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"by": "exact"}, {"method": "greedy-pruning", "threshold": 1e-6}])
def test_a_circuit_put_there_by_hand_is_found_whole(tmp_path: Path, fields: dict[str, Any]) -> None:
    """A compiled program of two layers: L0H0 copies the symbol before. All that the answer needs are its three inputs and its output."""
    meta, arrays = previous()
    model = load(written(tmp_path / "hand", meta, arrays))
    rows = [model.symbols.ids(one.given) for one in model.truth.examples if len(one.given) > 1]
    ids = torch.tensor([row for row in rows if len(row) == len(rows[0])])
    inputs = Inputs(ids, targets=torch.zeros(len(ids)).long())
    told = lambda given: (given.double() * torch.arange(1.0, 1 + given.shape[-1])).sum(-1)  # noqa: E731
    result = discovered(model, inputs, spec(replacement="zero", sizes=[0.2, 0.5, 1.0], nulls=3, resamples=0, **fields), metric=told)
    true = {*(("embed", f"L0H0.{word}") for word in "qkv"), ("L0H0", "logits")}
    v: Any = result.values
    whole = int(v.edges.values[0])
    assert round(0.2 * whole) >= 4
    seen = {(u, r) for u, r, score in zip(v.writer.values, v.reader.values, v.score.values, strict=True) if score > 1e-6}
    assert seen == true
    assert result.curve().faithfulness[0] == pytest.approx(1.0, abs=1e-6)
    assert true <= set(result.circuit(0.2))
    assert abs(result.curve("complement").faithfulness[0]) < 1e-6
    assert (result.curve("random").faithfulness[:1] < 0.9).all()
    if "method" in fields:
        assert int(result.curve("pruned").edges.iloc[0]) == 4


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{"by": "exact"}, {"by": "eap"}, {}, {"method": "greedy-pruning", "threshold": 0.3}])
def test_a_trained_lookup_is_a_circuit_of_six_edges_and_random_ones_are_not(fields: dict[str, Any]) -> None:
    """What was looked up goes from the embedding through the earlier head into the values of both later ones, and to the logits."""
    inputs, _ = swapped(64, 999)
    result = find(induction(), inputs, quantity="logit-difference", sizes=[0.1, 0.2, 0.5, 1.0], **fields)
    found, random = result.curve(), result.curve("random")
    inside = set(result.circuit(0.2))
    assert {("L1H0", "logits"), ("L1H1", "logits"), ("embed", "L1H0.v"), ("embed", "L1H1.v")} <= inside
    assert len(inside) == 6
    assert 0.7 < found.faithfulness[1] < 1
    assert found.faithfulness[1] > random.high[1] + 0.3
    assert abs(result.curve("complement").faithfulness[1]) < 0.1
    assert abs(found.faithfulness[2] - 1) < 0.05
    if "method" in fields:
        one: Any = result.curve("pruned").iloc[0]
        assert int(one.edges) < 10
        assert float(one.faithfulness) > 0.9
    else:
        assert found.stability[1] > 0.9


def asked_elsewhere(count: int, seed: int) -> Inputs:
    """Look-ups whose twin asks about another word of the same row: the answer changes by the question, not by what is looked up."""
    ids, where = looked_up(count, seed)
    rows, corrupt = torch.arange(count), ids.clone()
    there = torch.where(where == 1, 2, where - 1)  # another word that something follows
    corrupt[rows, 7] = ids[rows, there - 1]
    return Inputs(ids, reference=corrupt, targets=ids[rows, where], foils=ids[rows, there])


def both(first: Inputs, second: Inputs) -> Inputs:
    """Items of two kinds, each a group."""
    together: dict[str, Any] = {n: torch.cat([getattr(first, n), getattr(second, n)]) for n in ("batch", "reference", "targets", "foils")}
    return Inputs(**together, groups=["value"] * len(first.batch) + ["question"] * len(second.batch))


@pytest.mark.slow
def test_a_circuit_holds_on_other_items_of_its_kind_and_not_on_another_kind() -> None:
    """Planted: what was looked up moves through values. Twins that ask elsewhere move the queries, which that circuit leaves outside."""
    model, fields = induction(), {"quantity": "logit-difference", "sizes": [0.1, 0.2, 0.5, 1.0], "by": "exact", "nulls": 5, "resamples": 0}
    inputs, _ = swapped(48, 999)
    own = find(model, inputs, **fields, held_out=0.33)
    inside, aside = own.curve(), own.curve(held_out=True)
    assert own.held == 16
    assert aside.faithfulness[1] == pytest.approx(inside.faithfulness[1], abs=0.1)
    assert aside.faithfulness[1] > own.curve("random", held_out=True).high[1] + 0.3
    mixed = both(inputs, asked_elsewhere(48, 998))
    seed = next(k for k in range(20) if split(96, mixed.groups, 0.5, k)[0][0] == 0)
    other = find(model, mixed, **fields, held_out=0.5, seed=seed)
    assert np.flatnonzero(~other.values.held_out.values).tolist() == list(range(48))
    assert other.curve().faithfulness[1] > 0.7
    assert other.curve(held_out=True).faithfulness[1] < 0.3
    assert other.curve(held_out=True).faithfulness[3] == pytest.approx(1.0, abs=1e-6)


# --- bad input --------------------------------------------------------------------------------------------------


def test_what_makes_no_sense_says_so() -> None:
    model = build("grouped", dtype=torch.float64)
    inputs = pair(model)
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({}, {"reference": None}, r"inputs\.reference is None"),
        ({}, {"reference": inputs.reference[:, :5]}, "length of corrupt item 0"),
        ({"sizes": []}, {}, r"sizes is \[\], but it must be at least one share"),
        ({"sizes": [0.5, 0.2]}, {}, "each larger than the one before"),
        ({"sizes": [0.0, 0.2]}, {}, "above 0"),
        ({"sizes": [0.2, 1.5]}, {}, "at most 1"),
        ({"max_runs": 10}, {}, "edited runs is 'about 216', but it must be at most max_runs = 10"),
        ({"quantity": "kl", "by": "eap"}, {}, "quantity is 'kl'.*no slope"),
    ]
    for fields, changes, words in cases:
        with pytest.raises(BadValue, match=words):
            find(model, replace(inputs, **changes), **fields)
    with pytest.raises(AssayError, match="threshold"):
        spec(threshold=0.0)
    result = find(model, inputs, nulls=0, resamples=0)
    with pytest.raises(BadValue, match=r"size is 0\.3, but it must be one of 0\.001, "):
        result.circuit(0.3)
    with pytest.raises(BadValue, match="kind of circuit is 'pruned', but it must be one of all, none, found, complement"):
        result.curve("pruned")


def test_the_same_input_twice_is_undefined_and_not_zero() -> None:
    model = build("grouped", dtype=torch.float64)
    inputs = pair(model)
    result = find(model, replace(inputs, reference=inputs.batch), nulls=1, resamples=3)
    assert np.isnan(result.values.faithfulness.values).all()
    assert np.isnan(float(result.values.cpr))
    assert "faithfulness is undefined, not zero" in " ".join(result.notes)
    assert result.summary()
    with pytest.raises(BadValue, match="undefined at every size"):
        result.plot()


def test_a_run_that_reads_more_than_writers_write_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One reader's edits go unheard: a circuit of no edges is then not the corrupt run."""
    model = build("grouped", dtype=torch.float64)
    run = GPT.run

    def deaf(self: GPT, batch: Any, *, edit: Any = (), **options: Any) -> Any:
        return run(self, batch, edit=[one for one in edit if str(one.site) != "blocks.1.hook_resid_post"], **options)

    monkeypatch.setattr(GPT, "run", deaf)
    with pytest.raises(Incompatible, match="a circuit of no edges is .* away from the corrupt run"):
        find(model, pair(model), nulls=0, resamples=0)
